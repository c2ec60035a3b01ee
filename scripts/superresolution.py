"""Pictures made larger, four times by the released models.

    python -m scripts.superresolution --init-img small.png --prompt "a photograph of a cat" --ckpt MODEL.ckpt
    python -m scripts.superresolution --init-img small.png --noise_level 50 --n_samples 1 --ckpt MODEL.ckpt
    python -m scripts.superresolution --init-img photos --longest 128 --ckpt MODEL.ckpt --config MODEL.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/superresolution.py

from ldm.commands.flags import init_flags, make_pictures, new_parser, picture_flags
from ldm.util import run_command


def main() -> None:
    """Raises UserError: as ``ldm.workflows.superresolution.superresolution``."""
    parser = new_parser(__doc__)
    init_flags(parser, "the small picture, or a folder of which each is taken")
    parser.add_argument("--noise_level", type=int, metavar="N",
        help="noise on the small picture, for details that were not there (20)")
    picture_flags(parser)
    given = vars(parser.parse_args())
    given.pop("debug", None)

    from ldm.workflows.superresolution import SuperresolutionOptions, superresolution

    make_pictures(SuperresolutionOptions(**{"n_samples": 1, **given}), superresolution)


if __name__ == "__main__":
    run_command(main)
