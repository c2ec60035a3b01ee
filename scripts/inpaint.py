"""A part of a picture made anew, or a picture made larger than its frame; see docs/sampling.md.

    python -m scripts.inpaint --init-img photo.jpg --mask mask.png --prompt "a red star on a blue background"
    python -m scripts.inpaint --init-img photo.jpg --mask mask.png --only_masked --prompt "a red star"
    python -m scripts.inpaint --init-img photo.jpg --outpaint left=64,right=64 --prompt "a red circle"
    python -m scripts.inpaint --indir data/inpainting_examples --outdir outputs/inpainting_results --steps 50

White in a mask is where something new is wanted. With --indir, as in latent diffusion's command, each picture that has
its mask beside it ('<picture>_mask.png') becomes the one picture '<outdir>/<picture>.png'.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/inpaint.py

from ldm.commands.flags import init_flags, make_pictures, new_parser, picture_flags
from ldm.commands.originals import INPAINTING, SD1_INPAINTING, old_flags, settled
from ldm.util import run_command

PADDING = 32  # as in AUTOMATIC1111's web UI
OF_A_FOLDER = {"n_samples": 1, "n_iter": 1, "skip_grid": True, "prompt": "", "keep_names": True}


def options_of(given: dict[str, Any]) -> dict[str, Any]:
    """What the command line asks for; --indir is a folder of pictures, each of which keeps its name."""
    folder = given.pop("indir", None)
    if folder is None:
        return settled(given, {"steps": 50, "n_samples": 2}, SD1_INPAINTING)
    given["init_img"] = folder
    return settled(given, {"steps": 50, "outdir": "outputs/inpainting_results", **OF_A_FOLDER}, INPAINTING)


def main() -> None:
    """Raises UserError: as ``ldm.workflows.inpaint.inpaint``."""
    parser = new_parser(__doc__)
    init_flags(parser, "the picture, or a folder of which each is taken that has a mask beside it")
    add = parser.add_argument
    add("--indir", metavar="FOLDER", help="pictures with their masks beside them, whose results keep their names")
    add("--mask", metavar="FILE", help="white where something new is wanted ('<picture>_mask.png', or transparency)")
    add("--invert_mask", action="store_true", help="black where something new is wanted")
    add("--mask_blur", type=float, metavar="PIXELS", help="a soft edge for the mask (0)")
    add("--only_masked", type=int, nargs="?", const=PADDING, metavar="PIXELS",
        help=f"paint the box around the masked part alone, with so many pixels around it ({PADDING}), at full size")
    add("--outpaint", metavar="PIXELS", help="what is added around the picture: 64, or left=64,top=32")
    add("--strength", type=float, help="below 1 what was there is painted over (1)")
    picture_flags(parser)
    old_flags(parser)
    given = vars(parser.parse_args())

    from ldm.workflows.inpaint import InpaintOptions, inpaint

    make_pictures(InpaintOptions(**options_of(given)), inpaint)


if __name__ == "__main__":
    run_command(main)
