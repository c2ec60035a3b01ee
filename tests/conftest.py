"""What holds for every test: nothing is looked for on the network, where a missing answer would cost half a minute."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before huggingface_hub is imported, which reads it once
