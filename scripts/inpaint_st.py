"""Where Runway had a page for in-painting; what it did is scripts/inpaint.py here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/inpaint_st.py

from ldm.commands.elsewhere import says

if __name__ == "__main__":
    says(
        "this page is a command here: python scripts/inpaint.py --init-img FILE --mask FILE --prompt TEXT --ckpt CKPT"
    )
