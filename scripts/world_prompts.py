"""Print captions of the rendered world, one a line.

    python -m scripts.world_prompts --split heldout -n 512 > prompts.txt
    python -m scripts.world_prompts -n 64 --language ko
    python -m scripts.world_prompts --split train -n 64 --seed 1 --open_size 0.5
"""

from __future__ import annotations

import argparse

from ldm.util import UserError, run_command
from ldm.world.shapes import ShapesWorld


def prompts(
    split: str = "heldout", n: int = 512, seed: int = 0, language: str = "en", open_size: float = 0.0
) -> list[str]:
    """Captions of a split's combinations, each combination once before any comes again."""
    world = ShapesWorld(split, size=8, length=n, seed=seed, language=language, open_size=open_size)  # type: ignore[arg-type]
    return [item["caption"] for item in world.__getitems__(range(n))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="heldout", help="train, heldout (what training never sees) or all")
    parser.add_argument("-n", type=int, default=512, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--language", default="en", help="en, ko, zh or mixed")
    parser.add_argument("--open_size", type=float, default=0.0, help="share of captions that do not say the size")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args()
    if options.n < 1:
        raise UserError(f"-n must be at least 1, got {options.n}")
    print("\n".join(prompts(options.split, options.n, options.seed, options.language, options.open_size)))


if __name__ == "__main__":
    run_command(main)
