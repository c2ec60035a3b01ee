"""Pictures of classes, such as ImageNet's, with a model that was trained on their numbers.

    python -m scripts.class2img --classes 25 187 448 992 --n_samples 6 --scale 3 --steps 20 --ckpt MODEL.ckpt
    python -m scripts.class2img --classes 0 --ckpt MODEL.ckpt --config configs/latent-diffusion/cin256-v2.yaml
    python -m scripts.class2img --classes 9 --seed 7 --skip_grid --ckpt MODEL.ckpt
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/class2img.py

from ldm.commands.flags import make_pictures, new_parser, picture_flags
from ldm.util import run_command


def main() -> None:
    """Raises UserError: as ``ldm.workflows.class2img.class2img``."""
    parser = new_parser(__doc__)
    parser.add_argument("--classes", type=int, nargs="+", metavar="N", help="numbers of the classes (0)")
    picture_flags(parser)
    given = vars(parser.parse_args())
    given.pop("debug", None)

    from ldm.workflows.class2img import Class2ImgOptions, class2img

    make_pictures(Class2ImgOptions(**given), class2img)


if __name__ == "__main__":
    run_command(main)
