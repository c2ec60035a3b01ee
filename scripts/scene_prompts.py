"""Write sentences about scenes and the scenes that they ask for, for `scripts.judge`:

    python -m scripts.scene_prompts outputs/asked -n 512 --things one
    python txt2img.py --from-file outputs/asked/prompts.txt --n_samples 64 --skip_grid --outdir outputs/asked
    python -m scripts.judge outputs/asked/samples --scenes outputs/asked/scenes.jsonl
    python -m scripts.scene_prompts outputs/korean -n 64 --language ko
    python -m scripts.scene_prompts outputs/three -n 64 --objects 3 --seed 1
"""

from __future__ import annotations

import random
from pathlib import Path

from ldm.arguments import Parser
from ldm.util import UserError, atomic_write, run_command
from ldm.world.scene import Scene
from ldm.world.scene_files import write_scenes
from ldm.world.scenes import SceneWorld
from ldm.world.sentences import asked, speak, wish_for

KINDS = {  # shares of shapes, of pairs, of scenes with an outline
    "one": (0.0, 0.0, 0.0), "shapes": (1.0, 0.0, 0.0), "two": (0.0, 1.0, 0.0), "all": (0.22, 0.2, 0.0),
    "single": (0.22, 0.0, 0.0),  # one thing alone, an object or a shape
    "even": (0.5, 0.5, 0.0),  # shapes as often as objects, pairs as often as one thing alone
    "outlined": (0.3, 0.3, 1.0),
}  # fmt: skip


def prompts(
    n: int, things: str = "all", split: str = "heldout", seed: int = 0, language: str = "en",
    objects: int | None = None, free: bool = False,
) -> tuple[list[str], list[Scene]]:  # fmt: skip
    """Sentences and what they ask for; ``free`` ones are as people write them, the others plain and complete.

    Raises:
        UserError: an unknown kind of things, split or language, or fewer than one sentence.
    """
    if things not in KINDS:
        raise UserError(f"things are {', '.join(KINDS)}, not '{things}'")
    if n < 1:
        raise UserError(f"-n must be at least 1, got {n}")
    shapes, two, outlined = KINDS[things]
    world = SceneWorld(
        split, length=n, seed=seed, language=language, objects=objects, shapes=shapes, two=two, figures=0.0,  # type: ignore[arg-type]
        outlined=outlined,
    )  # fmt: skip
    texts, wanted = [], []
    for number, scene in enumerate(world.contents(range(n))):
        rng = random.Random(seed * 1_000_003 + number) if free else None
        wish = wish_for(scene, rng)  # type: ignore[arg-type]
        texts.append(speak(wish, language, rng))
        wanted.append(asked(wish))
    return texts, wanted


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where prompts.txt and scenes.jsonl go")
    parser.add_argument("-n", type=int, default=512, help="how many")
    parser.add_argument("--things", default="all", help=f"what is asked for: {', '.join(KINDS)}")
    parser.add_argument("--split", default="heldout", help="train, heldout (what training never sees) or all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--language", default="en", help="en, ko or zh")
    parser.add_argument("--objects", type=int, help="only the first so many objects")
    parser.add_argument("--free", action="store_true", help="sentences as people write them")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    texts, wanted = prompts(
        options.n, options.things, options.split, options.seed, options.language, options.objects, options.free
    )
    options.folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(options.folder / "prompts.txt") as path:
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    write_scenes(options.folder / "scenes.jsonl", wanted)
    print(f"{options.n} sentences and scenes are in {options.folder}")


if __name__ == "__main__":
    run_command(main)
