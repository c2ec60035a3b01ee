"""Prompts to pictures under the name and with the defaults of the original command: 2 batches of 3 pictures.

    python -m scripts.txt2img --prompt "a red circle on a blue background"                     # the small model
    python -m scripts.txt2img --prompt "a red star" --plms --n_iter 1 --n_samples 2 --skip_grid
    python -m scripts.txt2img --from-file prompts.txt --repeat 2 --ckpt MODEL.ckpt --config MODEL.yaml

``txt2img.py`` of this project is the same with defaults of its own; docs/coming-from.md says what differs.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/txt2img.py

from ldm.commands.flags import make_pictures, new_parser, picture_flags
from ldm.commands.originals import old_flags, settled
from ldm.util import run_command

DEFAULTS = {
    "prompt": "a painting of a virus monster playing guitar", "steps": 50, "guidance_scale": 7.5, "n_iter": 2,
    "n_samples": 3,
}  # fmt: skip


def make(description: str | None) -> None:
    """Raises UserError: as ``ldm.workflows.txt2img.txt2img``."""
    parser = new_parser(description or "")
    picture_flags(parser)
    old_flags(parser)
    given = vars(parser.parse_args())

    from ldm.workflows.txt2img import Txt2ImgOptions, txt2img

    make_pictures(Txt2ImgOptions(**settled(given, DEFAULTS)), txt2img)


def main() -> None:
    make(__doc__)


if __name__ == "__main__":
    run_command(main)
