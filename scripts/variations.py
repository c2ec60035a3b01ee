"""Pictures like a picture, with a model that is shown an embedding of it (unCLIP, image variations).

    python -m scripts.variations --init-img photo.jpg --ckpt MODEL.ckpt --config MODEL.yaml
    python -m scripts.variations --init-img photo.jpg --prompt "at night" --noise_level 100 --ckpt MODEL.ckpt
    python -m scripts.variations --init-img photos --n_samples 4 --scale 10 --ckpt MODEL.ckpt
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/variations.py

from ldm.commands.flags import init_flags, make_pictures, new_parser, picture_flags
from ldm.util import run_command


def main() -> None:
    """Raises UserError: as ``ldm.workflows.variations.variations``."""
    parser = new_parser(__doc__)
    init_flags(parser, "the picture to vary, or a folder of which each is taken", sized=False)
    parser.add_argument("--noise_level", type=int, metavar="N",
        help="noise on its embedding: 0 keeps it (default), up to 999 forgets it")
    picture_flags(parser)
    given = vars(parser.parse_args())
    given.pop("debug", None)

    from ldm.workflows.variations import VariationsOptions, variations

    make_pictures(VariationsOptions(**given), variations)


if __name__ == "__main__":
    run_command(main)
