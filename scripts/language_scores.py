"""How well prompts in each language are drawn: the judge's table for the same scenes, side by side.

    python -m scripts.language_scores -n 256 [--json scores.json]
    python -m scripts.language_scores -n 96 --free                # sentences as people write them
    python -m scripts.language_scores -n 96 --aligner outputs/aligner/aligner.safetensors
    python -m scripts.language_scores -n 128 --embedding_path word.safetensors --concept "green striped triangle"

The scenes are held out from the training of the small model and of the aligner; a scene has the same seed in every
language. With a learned word the sentences ask for it, small, on any background. The last columns say how far a
language is behind the first, in points.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ldm.additions.base import applied
from ldm.additions.reading import read_additions
from ldm.arguments import Parser
from ldm.modules.encoders.multilingual import Multilingual
from ldm.pictures.images import image_to_array
from ldm.util import UserError, atomic_write, run_command
from ldm.workflows.batches import Batch
from ldm.workflows.generate import generate
from ldm.workflows.learned_words import files_of
from ldm.workflows.plan import make_plan
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio, open_studio
from ldm.world.scene import COLOURS, GROUNDS, SHAPES, TEXTURES, Scene, Thing
from ldm.world.sentences import language_called, speak
from ldm.world.sentences.voice import Named, Wish
from scripts.judge import report
from scripts.scene_prompts import prompts

BATCH = 16

Asked = tuple[list[str], list[Scene]]  # prompts and what their pictures should show
Summary = dict[str, Any]  # of scripts.judge


def held_out(n: int, language: str, free: bool = False) -> Asked:
    """Prompts about scenes that no training has seen."""
    return prompts(n, seed=1, language=language, free=free)


def about_word(n: int, language: str, word: str, concept: str) -> Asked:
    """Prompts for a learned word, small, on every background in turn.

    Raises:
        UserError: the concept is no coloured shape of the world.
    """
    shape, colour, texture = (next((w for w in concept.split() if w in known), None)
                              for known in (SHAPES, COLOURS, TEXTURES))  # fmt: skip
    if shape is None or colour is None:
        raise UserError(f"'{concept}' names no shape and colour of the world; 'green striped triangle' does")
    thing = Thing(shape, "small", "middle", colour, texture or "plain")
    grounds = [ground for ground in GROUNDS if colour not in ground]
    scenes = [Scene(grounds[i % len(grounds)], (thing,)) for i in range(n)]
    said = Named(Thing(shape, "small"), slot=word)
    return [speak(Wish((said,), scene.ground), language) for scene in scenes], scenes


def scores(studio: Studio, asked: Asked, options: Txt2ImgOptions) -> Summary:
    """What the judge says; the i-th picture has the seed ``options.seed`` + i."""
    texts, scenes = asked
    plan, pictures = make_plan(options, studio), []
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        seeds = [options.seed + start + i for i in range(len(part))]
        pictures += [image_to_array(image) for image in generate(studio, plan, Batch(part, seeds))]
    return report(pictures, scenes)[1]


def table(summaries: dict[str, Summary]) -> str:
    """A line for each thing that is asked for, a column for each language, and how far each is behind the first."""
    first, *others = summaries
    head = f"{'as asked':<12}" + "".join(f"{name:>9}" for name in summaries)
    lines = [head + "".join(f"{first + '-' + name:>9}" for name in others)]
    for row in summaries[first]["shares"]:
        cells = [summary["shares"][row] for summary in summaries.values()]
        shares = [100 * cell["right"] / cell["of"] for cell in cells]
        behind = "".join(f"{shares[0] - share:>9.1f}" for share in shares[1:])
        lines.append(f"{row:<12}" + "".join(f"{share:>8.1f}%" for share in shares) + behind)
    return "\n".join(lines)


def parse_options() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("-n", type=int, default=256, help="pictures in each language")
    parser.add_argument("--seed", type=int, default=42, help="of the first picture")
    parser.add_argument("--languages", nargs="+", default=["en", "ko", "zh"], help="the first is the measure")
    parser.add_argument("--free", action="store_true", help="sentences as people write them")
    parser.add_argument("--aligner", type=Path, help="another aligner than the model's own")
    parser.add_argument("--embedding_path", metavar="FILE", help="a learned word, to be asked for in every language")
    parser.add_argument("--concept", default="green striped triangle", help="what the learned word means")
    parser.add_argument("--ckpt", help="weights (the small model)")
    parser.add_argument("--config", help="the model's YAML")
    parser.add_argument("--steps", type=int, help="sampling steps")
    parser.add_argument("--json", type=Path, help="write the scores here")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args()
    if options.n < 1:
        raise UserError(f"-n must be at least 1, got {options.n}")
    for name in options.languages:
        language_called(name)
    return options


def main() -> None:
    given = parse_options()
    studio = open_studio(given.ckpt, given.config)
    model = studio.model
    if given.aligner is not None:
        if not isinstance(model.cond_stage_model, Multilingual):
            raise UserError("this model's text encoder takes no aligner; its configuration should name one that does")
        model.cond_stage_model.aligner = str(given.aligner)
    additions = read_additions(model, given.embedding_path)
    word = next(iter(files_of(additions)), None)
    options = Txt2ImgOptions(seed=given.seed, steps=given.steps)
    rows = {}
    with applied(model, additions):
        for name in given.languages:
            asked = (
                held_out(given.n, name, given.free) if word is None else about_word(given.n, name, word, given.concept)
            )
            rows[name] = scores(studio, asked, options)
    print(table(rows))
    if given.json is not None:
        with atomic_write(given.json) as path:
            path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
