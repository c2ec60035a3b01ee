"""Where latent diffusion had retrieval-augmented models (Blattmann et al. 2022), which are not built here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/knn2img.py

from ldm.commands.elsewhere import says

if __name__ == "__main__":
    says(
        "retrieval-augmented models are not built here; python scripts/txt2img.py makes pictures from prompts"
    )
