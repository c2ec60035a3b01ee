"""Prompts with learned words to pictures, under the name that textual inversion's command for Stable Diffusion has.

    python -m scripts.stable_txt2img --prompt "a photo of *" --embedding_path embeddings.pt --ckpt MODEL.ckpt
    python -m scripts.stable_txt2img --prompt "a red circle" --n_samples 2 --n_iter 1
    python -m scripts.stable_txt2img --n_samples 8 --n_iter 2 --scale 10.0 --ddim_steps 50 --ckpt MODEL.ckpt

The same as scripts/txt2img.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/stable_txt2img.py

from ldm.util import run_command
from scripts.txt2img import make


def main() -> None:
    """Raises UserError: as ``ldm.workflows.txt2img.txt2img``."""
    make(__doc__)


if __name__ == "__main__":
    run_command(main)
