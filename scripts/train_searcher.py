"""Where latent diffusion made the search index of retrieval-augmented models, which are not built here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/train_searcher.py

from ldm.commands.elsewhere import says

if __name__ == "__main__":
    says(
        "retrieval-augmented models and their search index are not built here; python main.py trains others"
    )
