"""What each way of personalising teaches the small model, from a few pictures of what its world lacks.

    python -m benchmarks.personalise --concept flower --methods word lora pivotal dreambooth --seeds 0
    python -m benchmarks.personalise --concept disc --methods lora --seeds 0 1 2 --count 40 --others 512
    python -m benchmarks.personalise --concept sepia --methods lora --seeds 0

Five pictures show a concept in two sizes before five backgrounds; a text beside each says both ("a large * on a
beach"), so that the concept alone is left to be learned. After ``main.py`` with the method's YAML, prompts ask for it
before ten other backgrounds. A classical judge (``benchmarks.concept_judge``) says whether the concept is the nearest
of all that could stand there, how much of its silhouette is met, and whether the background is the one asked for.
Three pictures show a manner ("a large cat on a yellow background in sks style"), and prompts ask for other things
before other backgrounds in it; ``benchmarks.manner_judge`` says whether manner, thing and background are there.
*Others* are prompts that have nothing to do with it (``benchmarks.others``), with and without what was learned: right
by ``ldm.world.judge``, by that but for colours, and by the scorer that ships; *plain* are those whose nearest manner is
the world's own. What was said of each is in ``others.json`` beside the training. A training whose files are there is
not run again. Changes of the YAMLs (``lightning.trainer.max_steps=50``) may follow.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import others
from benchmarks.others import Count
from benchmarks.subjects import SUBJECTS, kind_of
from ldm.additions.base import applied
from ldm.additions.reading import read_additions
from ldm.arguments import Parser
from ldm.pictures.images import image_to_array, make_grid, save_image
from ldm.util import UserError, atomic_write, run_command
from ldm.workflows.batches import batches
from ldm.workflows.generate import generate
from ldm.workflows.plan import make_plan
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio, open_studio
from ldm.world.scoring import wilson
from scripts.scene_prompts import prompts

Array = NDArray[np.float32]

ROOT = Path(__file__).resolve().parents[1]
BATCH = 8
NOISE_SCALE = 1.0  # what the figures of docs/personalise.md are of; commands have that of the model's YAML
SHEET = 5  # pictures in a row of the sheet
CLASS_PICTURES = 48
DRAWN = "drawn.png"  # what was drawn for the concept, ten a row
CLASS_SEED = 8  # of the prompts


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


KEEPING = (  # the LoRA is to change nothing of other pictures of the world, with their prompt and without, for guidance
    "model.params.reg_weight=12", "model.params.reg_target=base", "data.params.cache_latents=false",
    "data.params.reg={target: ldm.world.scenes.SceneWorld, params: {size: 128, length: 4000, figures: 0.0}}",
    "data.params.reg.params.caption_dropout=0.15",
    "model.params.lora_config.params.text_layers=none", "model.params.lora_config.params.conv_rank=8",
    "lightning.trainer.max_steps=300", "model.params.scheduler_config.params.cycle_lengths=[300]",
)  # fmt: skip
METHODS = {
    "word": Method("configs/tiny/textual-inversion.yaml", "*", ("embeddings",)),
    "word-ordinary": Method("configs/tiny/textual-inversion-ordinary.yaml", "*", ("embeddings",)),
    "lora": Method("configs/tiny/lora.yaml", "sks", ("lora",)),
    "lora-kept": Method("configs/tiny/lora.yaml", "sks", ("lora",), KEEPING),
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
    """What the judges saw on ``pictures``, and on those of other prompts before and after the training.

    ``counts`` are of pictures and ``means`` over them, by the names of the table's columns.
    """

    concept: str
    method: str
    seed: int
    pictures: int
    counts: dict[str, int]
    means: dict[str, float]
    before: Count
    after: Count
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
    kind_of(concept).write_pictures(concept, method.word, pictures, seed)
    command = [sys.executable, "main.py", "-b", method.config, "-t", "-l", str(folder / "logs"), "--name", "run",
               "--data_root", str(pictures), "-s", str(seed)]  # fmt: skip
    command += ["--init_word", kind_of(concept).like(concept)] if "embeddings" in method.files else []
    command += ["--scale_lr", "false"] if not name.startswith("word") else []
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


def draw(
    studio: Studio, texts: Sequence[str], seed: int, noise_scale: float = NOISE_SCALE, settle: int = 0
) -> list[Image.Image]:
    """One picture for each prompt, with the settings that the commands have, but for the start noise and settling."""
    plan = make_plan(Txt2ImgOptions(noise_scale=noise_scale, settle=settle), studio)
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


def judged_before(studio: Studio, options: argparse.Namespace) -> Count:
    """What the others are with nothing learned; a folder of results has them judged once."""
    how = f"{options.noise_scale:g}" + (f"-{options.settle}" if options.settle else "")
    note = options.outdir / f"others-{options.others}-{how}.json"
    if not note.is_file():
        others.write(judged_others(studio, options), note)
    return Count.of(others.read(note))


def judged_others(studio: Studio, options: argparse.Namespace) -> list[others.Other]:
    """The verdicts on other prompts, with what is applied to the model."""
    return others.judged(
        lambda texts, seed: draw(studio, texts, seed, options.noise_scale, options.settle), options.others
    )


def measure(studio: Studio, options: argparse.Namespace, name: str, seed: int, before: Count) -> Outcome:
    """Train with one method and one seed, draw, and judge."""
    folder = options.outdir / options.concept / name / f"seed{seed}"
    class_folder = options.outdir / "class"
    if METHODS[name].has_class:
        make_class_pictures(studio, class_folder)
    cost = train(options.concept, name, folder, seed, class_folder, options.changes)
    files = {kind: str(path) for kind, path in files_of(name, folder).items()}
    loras = [files[kind] for kind in ("lora", "difference") if kind in files]
    kind = kind_of(options.concept)
    asked = kind.wishes(options.concept, options.count)
    with applied(studio.model, read_additions(studio.model, files.get("embeddings"), lora=loras)):
        texts = [kind.sentence(one, METHODS[name].word) for one in asked]
        pictures = draw(studio, texts, 1000 * (seed + 1), options.noise_scale, options.settle)
        rest = judged_others(studio, options)
    others.write(rest, folder / "others.json")
    save_image(make_grid(pictures, 10), folder / DRAWN)
    found = [kind.judge(image_to_array(p), one) for p, one in zip(pictures, asked, strict=True)]
    with atomic_write(folder / "findings.json") as path:
        path.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    counts, means = summed([one.noted for one in found])
    return Outcome(options.concept, name, seed, len(found), counts, means, before, Count.of(rest), cost)


def summed(noted: Sequence[Mapping[str, bool | float]]) -> tuple[dict[str, int], dict[str, float]]:
    """Of many pictures: how often each thing that is so or not so is, and the means of what is measured."""
    columns = {name: [one[name] for one in noted] for name in noted[0]}
    counts = {name: sum(map(int, values)) for name, values in columns.items() if isinstance(values[0], bool)}
    return counts, {name: float(np.mean(values)) for name, values in columns.items() if name not in counts}


def table(outcomes: Sequence[Outcome]) -> str:
    """Lines of a Markdown table."""
    first = outcomes[0]
    names = ("concept", "method", "seed", *first.counts, *first.means, "others before, after", "but for colours",
             "by the scorer", "others plain", "processor", "file")  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for o in outcomes:
        cells = [o.concept, o.method, str(o.seed), *(share(count, o.pictures) for count in o.counts.values())]
        cells += [f"{mean:.2f}" for mean in o.means.values()]
        cells += [f"{getattr(o.before, name)}, {getattr(o.after, name)} of {o.after.pictures}"
                  for name in ("right", "drawn", "named")]  # fmt: skip
        cells += [f"{o.after.plain} of {o.after.pictures}"]
        cells += [f"{o.cost.cpu_seconds:.0f} s", f"{o.cost.size / 1000:.0f} kB"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def share(count: int, of: int) -> str:
    """A count with its 95 % interval."""
    low, high = wilson(count, of)
    return f"{count} of {of} ({100 * low:.0f}-{100 * high:.0f} %)"


def write_sheet(folder: Path, concept: str, methods: Sequence[str], seed: int, count: int) -> None:
    """``sheet.png``: five true pictures, and under them what each method drew."""
    kind = kind_of(concept)
    truth = [Image.fromarray(((kind.picture_of(one) + 1) * 127.5).round().astype(np.uint8))
             for one in kind.wishes(concept, min(count, SHEET))]  # fmt: skip
    row = make_grid(truth, SHEET)
    rows = [row]
    for name in methods:
        with Image.open(folder / name / f"seed{seed}" / DRAWN, formats=["PNG"]) as drawn:
            rows.append(drawn.crop((0, 0, *row.size)))
    save_image(make_grid(rows, 1, [f"{concept}, as it is", *methods]), folder / "sheet.png")


def main() -> None:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--concept", choices=list(SUBJECTS), default="flower")
    add("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    add("--seeds", type=int, nargs="+", default=[0], help="of the sentences, the training and the pictures")
    add("--count", type=int, default=20, help="pictures of the concept for each method and seed")
    add("--others", type=int, default=64, help="prompts without it; 0 for none")
    add("--noise_scale", type=float, default=NOISE_SCALE, help="of the pictures that are judged (%(default)s)")
    add("--settle", type=int, default=0, help="noises over which they settle (%(default)s)")
    add("--outdir", type=Path, default=Path("outputs/personalise"))
    add("--debug", action="store_true", help="show the traceback of an error")
    options, changes = parser.parse_known_args()
    options.changes = changes
    if options.count < 1 or options.others < 0:
        raise UserError(f"--count must be at least 1 and --others at least 0, got {options.count} and {options.others}")
    studio = open_studio(None)
    before, outcomes = judged_before(studio, options), []
    for seed in options.seeds:
        for name in options.methods:
            outcomes.append(measure(studio, options, name, seed, before))
            print(table(outcomes), flush=True)
    write_sheet(options.outdir / options.concept, options.concept, options.methods, options.seeds[0], options.count)
    with atomic_write(options.outdir / options.concept / "results.json") as path:
        path.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
