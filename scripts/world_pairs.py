"""Write sentence pairs about the rendered world for an aligner to learn from, as CSV with columns lang,source,en.

    python -m scripts.world_pairs outputs/pairs/train.csv -n 60000
    python -m scripts.world_pairs outputs/pairs/heldout.csv -n 2000 --split heldout --seed 1
    python -m scripts.world_pairs outputs/pairs/shapes.csv -n 60000 --seed 2 --shapes 0.6 --two 0.6
    python -m scripts.world_pairs outputs/pairs/few.csv -n 1000 --debug
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from ldm.arguments import Parser
from ldm.util import UserError, atomic_write, run_command
from ldm.world.draw_scenes import Shares
from ldm.world.scene_pairs import scene_pairs


def write_pairs(
    path: Path, n: int, split: str = "train", seed: int = 0, shapes: float = Shares.shapes, two: float = Shares.two
) -> None:
    """Write ``n`` pairs; see ``ldm.world.scene_pairs``."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["lang", "source", "en"])
        for pair in scene_pairs(n, split, seed, shapes, two):  # type: ignore[arg-type]
            writer.writerow([pair.language, pair.source, pair.english])


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("path", type=Path, help="the CSV file")
    parser.add_argument("-n", type=int, default=60_000, help="how many")
    parser.add_argument("--split", default="train", help="train, heldout (what training never sees) or all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shapes", type=float, default=Shares.shapes,
                        help="share of geometric shapes among the things (%(default)s)")  # fmt: skip
    parser.add_argument("--two", type=float, default=Shares.two, help="share of scenes with two things (%(default)s)")
    parser.add_argument("--world", choices=["scenes"], help=argparse.SUPPRESS)  # there was another one
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args()
    if options.n < 1:
        raise UserError(f"-n must be at least 1, got {options.n}")
    write_pairs(options.path, options.n, options.split, options.seed, options.shapes, options.two)
    print(f"{options.n} pairs are in {options.path}")


if __name__ == "__main__":
    run_command(main)
