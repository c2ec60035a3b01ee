"""What each way of personalising teaches the small model, from five pictures of a concept that its world lacks.

    python -m benchmarks.personalise --concept flower --methods word lora pivotal dreambooth --seeds 0
    python -m benchmarks.personalise --concept disc --methods lora --seeds 0 1 2 --count 40 --others 512

The pictures show the concept in two sizes before five backgrounds; a text beside each says both ("a large * on a
beach"), so that the concept alone is left to be learned. After ``main.py`` with the method's YAML, prompts ask for it
before ten other backgrounds. A classical judge (``benchmarks.concept_judge``) says whether the concept is the nearest
of all that could stand there, how much of its silhouette is met, and whether the background is the one asked for.
*Others* are prompts that have nothing to do with it, judged by ``ldm.world.judge`` with and without what was learned.
A training whose files are there is not run again. Changes of the YAMLs (``lightning.trainer.max_steps=50``) may follow.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.concept_judge import judge_concept
from benchmarks.concepts import CONCEPTS, picture_of, sentence, wishes, write_pictures
from ldm.additions.base import applied
from ldm.additions.reading import read_additions
from ldm.pictures.images import image_to_array, make_grid, save_image
from ldm.util import UserError, atomic_write, run_command
from ldm.workflows.batches import batches
from ldm.workflows.generate import generate
from ldm.workflows.plan import make_plan
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio, open_studio
from ldm.world.judge import judge
from ldm.world.scoring import wilson
from scripts.scene_prompts import prompts

ROOT = Path(__file__).resolve().parents[1]
BATCH = 8
SHEET = 5  # pictures in a row of the sheet
CLASS_PICTURES = 48
DRAWN = "drawn.png"  # what was drawn for the concept, ten a row
OTHERS_SEED, CLASS_SEED = 7, 8  # of the prompts


@dataclass(frozen=True)
class Method:
    """A way to learn: its YAML, the word that calls the concept, the files that it leaves, changes of the YAML."""

    config: str
    word: str
    files: tuple[str, ...]
    changes: tuple[str, ...] = ()

    @property
    def has_class(self) -> bool:
        """Whether it learns beside pictures of other things (prior preservation)."""
        return "dreambooth" in self.config and not self.changes


METHODS = {
    "word": Method("configs/tiny/textual-inversion.yaml", "*", ("embeddings",)),
    "lora": Method("configs/tiny/lora.yaml", "sks", ("lora",)),
    "pivotal": Method("configs/tiny/pivotal.yaml", "*", ("embeddings", "lora")),
    "dreambooth": Method("configs/tiny/dreambooth.yaml", "sks", ("difference",)),
    "dreambooth-alone": Method("configs/tiny/dreambooth.yaml", "sks", ("difference",), ("data.params.reg=null",)),
}


@dataclass(frozen=True)
class Cost:
    """What a training took: seconds on the clock and of the processors, and the bytes of its files."""

    seconds: float
    cpu_seconds: float
    size: int


@dataclass(frozen=True)
class Outcome:
    """What the judges saw, each a count or a mean over ``pictures``; of ``others`` prompts without the concept."""

    concept: str
    method: str
    seed: int
    pictures: int
    recognised: int
    ground: int
    overlap: float
    others: int
    others_right: int
    others_before: int
    cost: Cost


def train(concept: str, name: str, folder: Path, seed: int, class_folder: Path, changes: Sequence[str]) -> Cost:
    """Run ``main.py`` for a method; what is there already stays.

    Raises:
        UserError: the training fails.
    """
    note = folder / "cost.json"
    if note.is_file():
        return Cost(**json.loads(note.read_text()))
    method, pictures = METHODS[name], folder / "pictures"
    write_pictures(concept, method.word, pictures, seed)
    command = [sys.executable, "main.py", "-b", method.config, "-t", "-l", str(folder / "logs"), "--name", "run",
               "--data_root", str(pictures), "-s", str(seed)]  # fmt: skip
    command += ["--init_word", CONCEPTS[concept].like] if "embeddings" in method.files else []
    command += ["--scale_lr", "false"] if name != "word" else []
    command += ["--reg_data_root", str(class_folder)] if method.has_class else []
    before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (folder / "train.log").open("w") as log:
        done = subprocess.run([*command, *method.changes, *changes], cwd=ROOT, stdout=log, stderr=log, env=os.environ)
    if done.returncode:
        raise UserError(f"the training failed; see '{folder / 'train.log'}'")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = Cost(
        seconds=time.monotonic() - before[0],
        cpu_seconds=after.ru_utime + after.ru_stime - before[1].ru_utime - before[1].ru_stime,
        size=sum(path.stat().st_size for path in files_of(name, folder).values()),
    )
    with atomic_write(note) as path:
        path.write_text(json.dumps(asdict(cost)) + "\n")
    return cost


def files_of(name: str, folder: Path) -> dict[str, Path]:
    """The files that the newest run in a folder has left, by kind."""
    run = max((folder / "logs").glob("*_run"))
    return {kind: run / "checkpoints" / f"{kind}.safetensors" for kind in METHODS[name].files}


def draw(studio: Studio, texts: Sequence[str], seed: int) -> list[Image.Image]:
    """One picture for each prompt, with the settings that the commands have."""
    plan = make_plan(Txt2ImgOptions(), studio)
    return [image for batch in batches(texts, BATCH, 1, seed) for image in generate(studio, plan, batch)]


def make_class_pictures(studio: Studio, folder: Path) -> None:
    """Pictures that the model draws for sentences of its world, with the sentences, if there are none."""
    if (folder / "captions.jsonl").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    texts, _ = prompts(CLASS_PICTURES, split="train", seed=CLASS_SEED, free=True)
    for number, image in enumerate(draw(studio, texts, CLASS_SEED)):
        save_image(image, folder / f"{number:02}.png")
    lines = [json.dumps({"file": f"{number:02}.png", "caption": text}) for number, text in enumerate(texts)]
    with atomic_write(folder / "captions.jsonl") as path:
        path.write_text("\n".join(lines) + "\n")


def count_others(studio: Studio, count: int) -> int:
    """How many pictures of prompts of the world, held out from its training, are right."""
    if not count:
        return 0
    texts, scenes = prompts(count, seed=OTHERS_SEED)
    pictures = draw(studio, texts, seed=0)
    return sum(judge(image_to_array(p), s).right for p, s in zip(pictures, scenes, strict=True))


def measure(studio: Studio, options: argparse.Namespace, name: str, seed: int, others_before: int) -> Outcome:
    """Train with one method and one seed, draw, and judge."""
    folder = options.outdir / options.concept / name / f"seed{seed}"
    class_folder = options.outdir / "class"
    if METHODS[name].has_class:
        make_class_pictures(studio, class_folder)
    cost = train(options.concept, name, folder, seed, class_folder, options.changes)
    files = {kind: str(path) for kind, path in files_of(name, folder).items()}
    loras = [files[kind] for kind in ("lora", "difference") if kind in files]
    asked = wishes(options.concept, options.count)
    with applied(studio.model, read_additions(studio.model, files.get("embeddings"), lora=loras)):
        pictures = draw(studio, [sentence(one, METHODS[name].word) for one in asked], 1000 * (seed + 1))
        others_right = count_others(studio, options.others)
    save_image(make_grid(pictures, 10), folder / DRAWN)
    found = [judge_concept(image_to_array(p), one) for p, one in zip(pictures, asked, strict=True)]
    with atomic_write(folder / "findings.json") as path:
        path.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    return Outcome(
        options.concept, name, seed, len(found), sum(one.concept for one in found), sum(one.ground for one in found),
        float(np.mean([one.overlap for one in found])), options.others, others_right, others_before, cost,
    )  # fmt: skip


def table(outcomes: Sequence[Outcome]) -> str:
    """Lines of a Markdown table."""
    names = ("concept", "method", "seed", "recognised", "background", "silhouette", "others before, after", "processor",
             "file")  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for o in outcomes:
        low, high = wilson(o.recognised, o.pictures)
        interval = f"({100 * low:.0f}-{100 * high:.0f} %)"
        lines.append(
            f"| {o.concept} | {o.method} | {o.seed} | {o.recognised} of {o.pictures} {interval} "
            f"| {o.ground} of {o.pictures} | {o.overlap:.2f} | {o.others_before}, {o.others_right} of {o.others} "
            f"| {o.cost.cpu_seconds:.0f} s | {o.cost.size / 1000:.0f} kB |"
        )
    return "\n".join(lines)


def write_sheet(folder: Path, concept: str, methods: Sequence[str], seed: int, count: int) -> None:
    """``sheet.png``: five true pictures, and under them what each method drew."""
    truth = [Image.fromarray(((picture_of(one) + 1) * 127.5).round().astype(np.uint8))
             for one in wishes(concept, min(count, SHEET))]  # fmt: skip
    row = make_grid(truth, SHEET)
    rows = [row]
    for name in methods:
        with Image.open(folder / name / f"seed{seed}" / DRAWN, formats=["PNG"]) as drawn:
            rows.append(drawn.crop((0, 0, *row.size)))
    save_image(make_grid(rows, 1, [f"{concept}, as it is", *methods]), folder / "sheet.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--concept", choices=list(CONCEPTS), default="flower")
    add("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    add("--seeds", type=int, nargs="+", default=[0], help="of the sentences, the training and the pictures")
    add("--count", type=int, default=20, help="pictures of the concept for each method and seed")
    add("--others", type=int, default=64, help="prompts without it; 0 for none")
    add("--outdir", type=Path, default=Path("outputs/personalise"))
    add("--debug", action="store_true", help="show the traceback of an error")
    options, changes = parser.parse_known_args()
    options.changes = changes
    if options.count < 1 or options.others < 0:
        raise UserError(f"--count must be at least 1 and --others at least 0, got {options.count} and {options.others}")
    studio = open_studio(None)
    before, outcomes = count_others(studio, options.others), []
    for seed in options.seeds:
        for name in options.methods:
            outcomes.append(measure(studio, options, name, seed, before))
            print(table(outcomes), flush=True)
    write_sheet(options.outdir / options.concept, options.concept, options.methods, options.seeds[0], options.count)
    with atomic_write(options.outdir / options.concept / "results.json") as path:
        path.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
