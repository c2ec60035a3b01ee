"""Pictures out of pictures under a prompt, with the original command's flags and defaults; see docs/sampling.md.

    python -m scripts.img2img --init-img photo.jpg --prompt "a large red star on a blue background" --strength 0.7
    python -m scripts.img2img --init-img photos --prompt "a red circle" --strength 0.5       # each picture of a folder
    python -m scripts.img2img --init-img sketch.jpg --prompt "a fantasy landscape" --strength 0.8 --ckpt MODEL.ckpt
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/img2img.py

from ldm.commands.flags import init_flags, make_pictures, new_parser, picture_flags
from ldm.commands.originals import old_flags, settled
from ldm.util import run_command

DEFAULTS = {
    "prompt": "a painting of a virus monster playing guitar", "steps": 50, "guidance_scale": 5.0, "n_samples": 2,
}  # fmt: skip


def main() -> None:
    """Raises UserError: as ``ldm.workflows.img2img.img2img``."""
    parser = new_parser(__doc__)
    init_flags(parser, "the picture to begin from, or a folder of which each is taken")
    parser.add_argument("--strength", type=float, help="0 the picture as it is, 1 a new one (0.75)")
    picture_flags(parser)
    old_flags(parser)
    given = vars(parser.parse_args())

    from ldm.workflows.img2img import Img2ImgOptions, img2img

    make_pictures(Img2ImgOptions(**settled(given, DEFAULTS)), img2img)


if __name__ == "__main__":
    run_command(main)
