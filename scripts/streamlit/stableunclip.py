"""Where Stable Diffusion 2 had a page; what it did is scripts/variations.py here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for: python scripts/streamlit/stableunclip.py

from ldm.commands.elsewhere import page

if __name__ == "__main__":
    page("scripts/variations.py")
