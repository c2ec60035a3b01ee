"""Pictures out of a picture with a model that is shown its depth, such as Stable Diffusion 2's.

    python -m scripts.depth2img --init-img photo.jpg --prompt "a marble statue" --ckpt MODEL.ckpt --config MODEL.yaml
    python -m scripts.depth2img --init-img photo.jpg --prompt "a robot" --strength 1 --ckpt MODEL.ckpt
    python -m scripts.depth2img --init-img photos --prompt "a drawing" --scale 9 --steps 50 --ckpt MODEL.ckpt
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/depth2img.py

from ldm.commands.flags import init_flags, make_pictures, new_parser, picture_flags
from ldm.util import run_command


def main() -> None:
    """Raises UserError: as ``ldm.workflows.depth2img.depth2img``."""
    parser = new_parser(__doc__)
    init_flags(parser, "the picture whose depth is kept, or a folder of which each is taken")
    parser.add_argument("--strength", type=float, help="how much is new; at 1 the depth alone is kept (0.9)")
    picture_flags(parser)
    given = vars(parser.parse_args())
    given.pop("debug", None)

    from ldm.workflows.depth2img import Depth2ImgOptions, depth2img

    make_pictures(Depth2ImgOptions(**given), depth2img)


if __name__ == "__main__":
    run_command(main)
