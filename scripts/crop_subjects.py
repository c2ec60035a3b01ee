"""Cut a thing out of photographs of it: squares around it to learn from, each with its mask beside it.

    python -m scripts.crop_subjects photos --outdir squares                          # only the thing is learned of them
    python -m scripts.crop_subjects photos --outdir squares --margin 0.3 --fill neutral      # grey behind the thing
    python -m scripts.crop_subjects photos --outdir squares --strokes strokes --sam models/sam-vit-base

The thing is what a mask beside a picture marks (photos/dog.png, photos/dog_mask.png), what strokes are on (white: in,
black: out; strokes/dog.png), or what differs from the picture's rim; a SAM model looks into the box around that. A text
beside a picture goes along. With --fill the whole square is learned, so that it has a mask only with --masks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ldm.arguments import Parser
from ldm.pictures.subjects import MARGIN
from ldm.util import run_command
from ldm.workflows.subject_crops import FILLS, NONE, Cuts, crop_subjects


def parse() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="the photographs")
    add("--outdir", type=Path, required=True, metavar="FOLDER", help="where the squares go, under the same names")
    add("--margin", type=float, default=MARGIN, metavar="M",
        help=f"around the thing, as a share of its longer side, as far as the picture goes ({MARGIN})")  # fmt: skip
    add("--fill", choices=FILLS, default=NONE,
        help="what is behind the thing; random: a colour for each picture (none: what was there)")  # fmt: skip
    add("--feather", type=float, default=0.0, metavar="R", help="soften the thing's edge by so many pixels")
    add("--strokes", type=Path, metavar="FOLDER", help="strokes of the photographs' names and sizes")
    add("--sam", default="", metavar="FOLDER", help="a model of the SAM family on this disk, as transformers saves it")
    add("--masks", action="store_true", help="masks beside squares that are filled, too")
    add("--seed", type=int, default=0, help="of random fills (0)")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args()


def main() -> None:
    options = parse()
    cuts = Cuts(
        options.margin, options.fill, options.feather, options.strokes, options.sam, options.masks, options.seed
    )  # fmt: skip
    for made in crop_subjects(options.folder, options.outdir, cuts):
        print(f"{made.path}: {made.side}x{made.side}, {100 * made.share:.0f} % is the thing", flush=True)
    print(f"learn from them: --data_root {options.outdir}")


if __name__ == "__main__":
    run_command(main)
