"""How well prompts in each language are drawn: the scorer's table for the same combinations, side by side.

    python -m scripts.language_scores -n 256 [--json scores.json]
    python -m scripts.language_scores -n 96 --aligner outputs/aligner/aligner.safetensors
    python -m scripts.language_scores -n 128 --embedding_path word.safetensors --concept "green striped triangle"

The combinations are held out from the training of the small model and of the aligner; a combination has the same seed
and the same kind of sentence in every language. With a learned word the sentences ask for it, small, on any background.
The last columns say how far a language is behind the first, in points.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from ldm.additions.base import applied
from ldm.additions.reading import read_additions
from ldm.modules.encoders.multilingual import Multilingual
from ldm.pictures.images import image_to_tensor
from ldm.util import UserError, atomic_write, run_command
from ldm.workflows.batches import Batch
from ldm.workflows.generate import generate
from ldm.workflows.learned_words import files_of
from ldm.workflows.plan import make_plan
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio, open_studio
from ldm.world.attributes import BACKGROUNDS, Attributes
from ldm.world.captions import language_of, parse
from ldm.world.scoring import Row, as_json, compare
from scripts.score import load_scorer, see
from scripts.world_prompts import prompts

BATCH = 32
TEMPLATES = (0, 1)  # kinds of sentences about a learned word

Asked = list[tuple[str, Attributes]]  # prompts and what their pictures should show


def held_out(n: int, language: str) -> Asked:
    """Prompts about combinations that no training has seen."""
    return [(text, parse(text, language)) for text in prompts("heldout", n, seed=1, language=language)]


def about_word(n: int, language: str, word: str, concept: str) -> Asked:
    """Prompts for a learned word, small, on every background in turn.

    Raises:
        UserError: the concept is none of the rendered world.
    """
    ground = "black" if concept.split()[0] != "black" else "white"
    shown = parse(f"a {concept} on a {ground} background", "en")
    speech = language_of(language)
    grounds = [colour for colour in BACKGROUNDS if colour != shown.colour]
    asked = []
    for i in range(n):
        ground = grounds[i % len(grounds)]
        small, where = speech.forms["size"]["small"][0], speech.forms["colour"][ground][0]
        words = {"size": small, "shape": word, "background": where}
        template = speech.templates[TEMPLATES[i // len(grounds) % len(TEMPLATES)]]
        asked.append((template.format_map(speech.phrases(words)), replace(shown, background=ground, size="small")))
    return asked


def scores(studio: Studio, asked: Asked, options: Txt2ImgOptions) -> list[Row]:
    """A row for each attribute; the i-th picture has the seed ``options.seed`` + i."""
    plan, scorer = make_plan(options, studio), load_scorer()
    seen = []
    for start in range(0, len(asked), BATCH):
        part = [text for text, _ in asked[start : start + BATCH]]
        seeds = [options.seed + start + i for i in range(len(part))]
        for image in generate(studio, plan, Batch(part, seeds)):
            seen += see(scorer, image_to_tensor(image)[None])
    return compare([wish for _, wish in asked], seen)


def table(rows: dict[str, list[Row]]) -> str:
    """A line for each attribute, a column for each language, and how many points a language is behind the first."""
    first, *others = rows
    head = f"{'attribute':<12}" + "".join(f"{name:>9}" for name in rows)
    lines = [head + "".join(f"{first + '-' + name:>9}" for name in others)]
    for row in zip(*rows.values(), strict=True):
        shares = [100 * cell.share for cell in row]
        behind = "".join(f"{shares[0] - share:>9.1f}" for share in shares[1:])
        lines.append(f"{row[0].attribute:<12}" + "".join(f"{share:>8.1f}%" for share in shares) + behind)
    return "\n".join(lines)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=256, help="pictures in each language")
    parser.add_argument("--seed", type=int, default=42, help="of the first picture")
    parser.add_argument("--languages", nargs="+", default=["en", "ko", "zh"], help="the first is the measure")
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
        language_of(name)
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
            asked = held_out(given.n, name) if word is None else about_word(given.n, name, word, given.concept)
            rows[name] = scores(studio, asked, options)
    print(table(rows))
    if given.json is not None:
        with atomic_write(given.json) as path:
            path.write_text(json.dumps({name: as_json(part) for name, part in rows.items()}, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
