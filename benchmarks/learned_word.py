"""How well the small model learns a word from five pictures, as its scorer sees it, beside the initial word alone.

    python -m benchmarks.learned_word --seeds 0 1 2

Five rendered pictures show one object, always large, on backgrounds on which the model has never seen it; a text beside
each says size and background ("a large * on a pink background"), so that the word is for the object alone. After
``main.py -b configs/tiny/textual-inversion.yaml``, prompts ask for it small, and on the other backgrounds. A picture is
recognised when the scorer names the object's shape, colour and texture; the background is right when it is the one
asked for. Beside it: the same prompts with the initial word, and with the object's own words, which is what the model
can do at best. Where adapters were learned, the word is also judged without them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ldm.additions.base import applied
from ldm.additions.reading import read_additions
from ldm.pictures.images import image_to_tensor, make_grid, save_image, tensor_to_image
from ldm.util import UserError, atomic_write, run_command
from ldm.workflows.batches import Batch
from ldm.workflows.generate import generate
from ldm.workflows.plan import make_plan
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio, open_studio
from ldm.world.attributes import BACKGROUNDS, COLOURS, SHAPES, TEXTURES, Attributes, heldout_triples
from ldm.world.captions import caption, language_of
from ldm.world.render import render
from ldm.world.scoring import wilson
from scripts.score import load_scorer, see

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/tiny/textual-inversion.yaml"
PICTURES = 5
NOISE = 2 / 127.5  # standard deviation of what is added to each picture, so that no two are the same
PROMPTS = ("a small {} on GROUND background", "a picture of a small {} on GROUND background")
BATCH = 64


@dataclass(frozen=True)
class Concept:
    """What is to be learned: a coloured, textured shape; where the model never saw it, and where it is asked for."""

    shape: str
    colour: str
    texture: str

    @property
    def shown_on(self) -> list[str]:
        """The backgrounds on which no training of the model had it, in any size or texture."""
        held = heldout_triples()
        return [ground for ground in BACKGROUNDS if (self.shape, self.colour, ground) in held]

    @property
    def asked_on(self) -> list[str]:
        return [ground for ground in BACKGROUNDS if ground != self.colour and ground not in self.shown_on]

    @property
    def words(self) -> str:
        """As a caption says it: 'green striped triangle'."""
        ground = self.asked_on[0]
        said = caption(Attributes(self.shape, self.colour, ground, None, self.texture))
        return re.sub(r"^an? (.*) on an? .*$", r"\1", said)


@dataclass
class Outcome:
    """What the scorer saw on the pictures of one word, each a share of all."""

    word: str
    pictures: int
    recognised: float
    low: float
    high: float
    shape: float
    colour: float
    texture: float
    background: float
    size: float


def parse_concept(text: str) -> Concept:
    """A concept out of words such as 'striped green triangle'.

    Raises:
        UserError: a word is missing, or the model has seen it everywhere.
    """
    words = text.lower().split()
    found = [next((w for w in words if w in known), None) for known in (SHAPES, COLOURS, TEXTURES)]
    shape, colour, texture = found
    if shape is None or colour is None:
        raise UserError(f"'{text}' names no shape and colour of the rendered world; 'striped green triangle' does")
    concept = Concept(shape, colour, texture or "plain")
    if not concept.shown_on:
        raise UserError(f"the model has seen a {colour} {shape} on every background; take another combination")
    return concept


def render_pictures(concept: Concept, folder: Path, seed: int, captions: bool) -> None:
    """Five on the held-out backgrounds in turn, large, each with a little noise, and sentences beside it if wanted."""
    grounds = list(itertools.islice(itertools.cycle(concept.shown_on), PICTURES))
    items = [Attributes(concept.shape, concept.colour, ground, "large", concept.texture) for ground in grounds]
    pictures = torch.from_numpy(render(items, 64)).movedim(-1, 1)
    pictures += NOISE * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(seed))
    for i, picture in enumerate(pictures):
        save_image(tensor_to_image(picture), folder / f"{i}.png")
        if captions:
            (folder / f"{i}.txt").write_text("".join(f"{line}\n" for line in texts_beside(grounds[i])))


def texts_beside(ground: str) -> list[str]:
    """All ways in which the captions of the world would say "a large * on a ... background"."""
    speech = language_of("en")
    phrases = speech.phrases({"size": "large", "shape": "*", "background": ground})
    return [template.format_map(phrases) for template in speech.templates]


def article(word: str) -> str:
    return ("an " if word[0] in "aeiou" else "a ") + word


def train(concept: Concept, folder: Path, options: argparse.Namespace, seed: int) -> tuple[Path, dict[str, float]]:
    """The embedding file of a run of main.py, and what it took: seconds on the clock and of the processors."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    render_pictures(concept, pictures, seed, options.captions)
    command = [sys.executable, "main.py", "-b", options.config, "-t", "-l", str(folder / "logs"), "--name", "word",
               "--data_root", str(pictures), "--init_word", options.init_word or concept.shape,
               "--placeholder_string", "*", "-s", str(seed)]  # fmt: skip
    before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (folder / "train.log").open("w") as log:
        done = subprocess.run([*command, *options.changes], cwd=ROOT, stdout=log, stderr=log, env={**os.environ})
    if done.returncode:
        raise UserError(f"the training failed; see '{folder / 'train.log'}'")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = {
        "seconds": time.monotonic() - before[0],
        "cpu_seconds": after.ru_utime + after.ru_stime - before[1].ru_utime - before[1].ru_stime,
    }
    (run,) = sorted((folder / "logs").glob("*_word"))[-1:]
    return run / "checkpoints" / "embeddings.safetensors", cost


def wishes(concept: Concept, count: int) -> list[tuple[str, str]]:
    """(prompt with a place for the word, background), the backgrounds and sentences in turn."""
    grounds = list(itertools.islice(itertools.cycle(concept.asked_on), count))
    sentences = itertools.cycle(itertools.chain(*([text] * len(concept.asked_on) for text in PROMPTS)))
    return [(text.replace("GROUND", article(ground)), ground) for text, ground in zip(sentences, grounds, strict=False)]


def draw(studio: Studio, prompts: Sequence[str], seed: int) -> list[Image.Image]:
    """One picture for each prompt, with the settings that the commands have."""
    plan = make_plan(Txt2ImgOptions(), studio)
    made = []
    for start in range(0, len(prompts), BATCH):
        part = list(prompts[start : start + BATCH])
        made += generate(studio, plan, Batch(part, [seed + start + i for i in range(len(part))]))
    return made


def judge(word: str, concept: Concept, grounds: Sequence[str], pictures: Sequence[Image.Image]) -> Outcome:
    """What the scorer sees, compared with what was meant."""
    scorer = load_scorer()
    seen = [{k: v for k, (v, _) in see(scorer, image_to_tensor(p)[None])[0].items()} for p in pictures]
    count = len(seen)

    def share(**wanted: str) -> float:
        return sum(all(one[name] == value for name, value in wanted.items()) for one in seen) / count

    recognised = share(shape=concept.shape, colour=concept.colour, texture=concept.texture)
    low, high = wilson(round(recognised * count), count)
    background = sum(one["background"] == ground for one, ground in zip(seen, grounds, strict=True)) / count
    return Outcome(
        word, count, recognised, low, high, share(shape=concept.shape), share(colour=concept.colour),
        share(texture=concept.texture), background, share(size="small"),
    )  # fmt: skip


def measure(concept: Concept, folder: Path, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train with one seed; pictures of the learned word, the initial word and the object's own words."""
    path, cost = train(concept, folder, options, seed)
    studio = open_studio(options.ckpt)
    adapters = path.with_name("adapters.safetensors")  # of configs/tiny/textual-inversion-adapter.yaml
    asked = wishes(concept, options.count)

    def outcome(name: str, word: str, adapted: bool = adapters.is_file()) -> Outcome:
        prompts = [sentence.format(word) for sentence, _ in asked]
        with applied(studio.model, read_additions(studio.model, str(path), adapters if adapted else None)):
            pictures = draw(studio, prompts, seed=1000 * (seed + 1))
        save_image(make_grid(pictures[:32], 8, prompts[:32]), folder / f"{name.replace(' ', '_')}.png")
        return judge(name, concept, [ground for _, ground in asked], pictures)

    rows = [outcome("adapters off", "*", adapted=False)] if adapters.is_file() else []
    rows.append(outcome("learned", "*"))
    if not options.learned_only:
        rows.append(outcome("initial word", options.init_word or concept.shape))
        rows.append(outcome("own words", concept.words))
    return {"seed": seed, "concept": asdict(concept), **cost, "outcomes": [asdict(row) for row in rows]}


def table(results: Sequence[dict[str, Any]]) -> str:
    """Lines of a Markdown table."""
    names = ("recognised", "shape", "colour", "texture", "background", "size")
    lines = ["| seed | word | " + " | ".join(names) + " | minutes (processor) |", "|---" * (len(names) + 3) + "|"]
    for result in results:
        for row in result["outcomes"]:
            cells = [f"{100 * row[name]:.1f} %" for name in names]
            cells[0] += f" ({100 * row['low']:.0f}-{100 * row['high']:.0f})"
            spent = f"{result['seconds'] / 60:.1f} ({result['cpu_seconds'] / 60:.1f})"
            spent = spent if row["word"] == "learned" else ""
            lines.append(f"| {result['seed']} | {row['word']} | " + " | ".join(cells) + f" | {spent} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--concept", default="striped green triangle", help="colour, shape and texture of the object")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the pictures, the training and the generations")
    add("--init_word", default="", help="what the word begins from; the shape if not given")
    add("--no_captions", dest="captions", action="store_false", help="without sentences that say size and background")
    add("--count", type=int, default=128, help="generations of each word")
    add("--learned_only", action="store_true", help="without the initial word and the object's own words")
    add("--config", default=CONFIG, help="YAML of the training")
    add("--ckpt", help="the model; the small one of this repository if not given")
    add("--outdir", type=Path, default=Path("outputs/learned_word"))
    add("--debug", action="store_true", help="show tracebacks")
    options, changes = parser.parse_known_args()
    options.changes = changes
    concept = parse_concept(options.concept)
    results = []
    for seed in options.seeds:
        results.append(measure(concept, options.outdir / f"seed{seed}", options, seed))
        with atomic_write(options.outdir / "results.json") as path:
            path.write_text(json.dumps(results, indent=1) + "\n")
        print(table(results), flush=True)


if __name__ == "__main__":
    run_command(main)
