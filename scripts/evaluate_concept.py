"""How well a learned word shows what it was learned from: a table (printed and CSV) and a sheet of pictures.

    python -m scripts.evaluate_concept --references pictures/ --embedding_path embeddings.pt --init_word star
    python -m scripts.evaluate_concept --references pictures/ --embedding_path latest:NAME --prompt "a small {} on blue"
    python -m scripts.evaluate_concept --references pictures/ --generated outputs/samples --clip path/to/clip

Pictures are made from prompts with the word, unless --generated has some (whose prompts are read from the files).
--init_word makes as many with an ordinary word, for comparison. The judge is CLIP where --clip gives its weights, a
folder or a hub id; otherwise the small model's scorer, which knows the rendered world only.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/evaluate_concept.py

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ldm.arguments import Parser
from ldm.checkpoint import read_embeddings
from ldm.metrics.likeness import ClipJudge, Judge, ScorerJudge, among_themselves
from ldm.pictures.images import image_to_tensor, load_folder, make_grid, read_parameters, save_image
from ldm.pictures.numbered import free_path
from ldm.texts import read_lines
from ldm.util import UserError, atomic_write, run_command, temporary_folder
from ldm.workflows.txt2img import Made, Txt2ImgOptions, txt2img
from ldm.workflows.watch import Watch
from scripts.score import load_scorer

PROMPTS = (
    "a {} on a blue background", "a {} on a white background", "a small {} on a green background",
    "a large {} on a yellow background", "a {} on a black background", "a picture of a {} on a pink background",
    "a large {} on a cyan background", "a small {} on a purple background",
)  # fmt: skip
CLIP_PROMPTS = ("a photo of a {}", "a painting of a {}", "a {} on a table", "a {} on the beach")
COLUMNS = 8
Pictures = list[Image.Image]
Set = tuple[Pictures, list[str], str]  # pictures, the prompt of each, the word in them


@dataclass(frozen=True)
class Row:
    """One measure of one set of pictures."""

    pictures: str
    measure: str
    mean: float
    deviation: float
    count: int


def rows_of(name: str, measures: dict[str, Tensor]) -> list[Row]:
    """Mean and standard deviation over the pictures that a measure says something about."""
    rows = []
    for measure, values in measures.items():
        known = values[~values.isnan()]
        mean, spread = (float(known.mean()), float(known.std(correction=0))) if len(known) else (math.nan, math.nan)
        rows.append(Row(name, measure, mean, spread, len(known)))
    return rows


def stacked(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures as [B, 3, H, W] in [-1, 1], all of the first one's size."""
    size = pictures[0].size
    alike = [p if p.size == size else p.resize(size, Image.Resampling.LANCZOS) for p in pictures]
    return torch.stack([image_to_tensor(picture) for picture in alike])


def generate(options: argparse.Namespace, templates: Sequence[str], word: str, learned: bool) -> Set:
    """``--n_samples`` pictures of each prompt, the prompt of each, and the word."""
    prompts = [template.replace("{}", word) for template in templates for _ in range(options.n_samples)]
    with temporary_folder() as folder, tqdm(total=len(prompts), desc=f"pictures of '{word}'", unit="picture") as bar:
        listing = folder / "prompts.txt"
        listing.write_text("\n".join(prompts), encoding="utf-8")
        pictures = txt2img(
            Txt2ImgOptions(
                from_file=str(listing), ckpt=options.ckpt, config=options.config, n_samples=options.n_samples,
                seed=options.seed, steps=options.steps, device=options.device,
                embedding_path=options.embedding_path if learned else None,
                skip_save=True, skip_grid=True,
            ),
            watch=Watch[Made](on_result=lambda made: bar.update()),
        )  # fmt: skip
    return pictures, prompts, word


def announce(options: argparse.Namespace, prompts: int, words: Sequence[str]) -> None:
    """Say how many pictures are to be made: with a large model, or on a slow processor, they take long."""
    each = " and ".join(f"'{word}'" for word in words)
    count, samples = len(words) * prompts * options.n_samples, options.n_samples
    print(f"making {count} pictures: {prompts} prompts with {each}, --n_samples {samples} of each", flush=True)


def evaluate(judge: Judge, references: Pictures, sets: dict[str, Set]) -> list[Row]:
    """All rows: the references among themselves, then each set of (pictures, prompts, word)."""
    truth = stacked(references)
    rows = rows_of("references", {"image to image": among_themselves(judge, truth)})
    for name, (pictures, prompts, word) in sets.items():
        rows += rows_of(name, judge.measures(truth, stacked(pictures), prompts, word))
    return rows


def write_table(rows: Sequence[Row], path: Path) -> None:
    """The table as CSV, and for people."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["pictures", "measure", "mean", "deviation", "count"])
        writer.writerows([r.pictures, r.measure, f"{r.mean:.4f}", f"{r.deviation:.4f}", r.count] for r in rows)
    print(f"{'pictures':<24}{'measure':<18}{'mean':>8}{'deviation':>11}{'count':>7}")
    for r in rows:
        print(f"{r.pictures:<24}{r.measure:<18}{r.mean:>8.3f}{r.deviation:>11.3f}{r.count:>7}")


def write_sheet(references: Pictures, sets: dict[str, Set], path: Path) -> None:
    """References first, then each set, with what each picture is underneath."""
    pictures, texts = list(references), ["reference"] * len(references)
    for found, prompts, _ in sets.values():
        blank = -len(pictures) % COLUMNS
        pictures += [Image.new("RGB", references[0].size, "white")] * blank + found
        texts += [""] * blank + prompts
    save_image(make_grid(pictures, COLUMNS, labels=texts), path)


def word_of(options: argparse.Namespace) -> str:
    """The placeholder: the one that was named, or the only one of the files.

    Raises:
        UserError: there are several, or none is named for pictures that exist already.
    """
    if options.placeholder_string:
        return str(options.placeholder_string)
    if not options.embedding_path:
        return "*"
    words = [name for file in read_embeddings(options.embedding_path).values() for name in file.vectors]
    if len(words) > 1:
        raise UserError(f"the files hold several words ({', '.join(words)}): say which with --placeholder_string")
    return words[0]


def templates_of(options: argparse.Namespace) -> Sequence[str]:
    """Prompts with {} in the place of the word.

    Raises:
        UserError: one has no place for the word.
    """
    found = options.prompt or (CLIP_PROMPTS if options.clip else PROMPTS)
    wrong = next((text for text in found if "{}" not in text), None)
    if wrong is not None:
        raise UserError(f"the prompt '{wrong}' has no place for the word: write {{}} where it belongs")
    return found


def prompts_of(files: Sequence[Path], listing: Path | None) -> list[str]:
    """One prompt for each picture, from a text file or from the pictures' own parameters.

    Raises:
        UserError: no such file, or a picture that carries no prompt.
    """
    if listing is not None:
        return read_lines(listing, "prompt file")
    return [_prompt_inside(path) for path in files]


def _prompt_inside(path: Path) -> str:
    parameters: Any = read_parameters(path)
    prompt = parameters.get("prompt") if isinstance(parameters, dict) else parameters
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(f"'{path}' carries no prompt in its 'parameters' text: give the prompts with --prompts")
    return prompt.strip().split("\n")[0]


def parse() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--references", type=Path, required=True, help="the pictures that the word was learned from")
    add("--embedding_path", nargs="+", metavar="FILE[=NAME]", help="files of learned words")
    add("--generated", type=Path, help="a folder of pictures to judge, in place of making some")
    add("--prompts", type=Path, help="with --generated: one prompt a line, where the pictures carry none")
    add("--placeholder_string", help="the word, where the files hold several ('*' without files)")
    add("--init_word", help="an ordinary word to compare with")
    add("--prompt", nargs="+", help="prompts with {} in the place of the word")
    add("--n_samples", type=int, default=4, help="pictures of each prompt (4)")
    add("--steps", type=int, help="sampling steps")
    add("--seed", type=int, default=42)
    add("--ckpt", help="the model (the small one)")
    add("--config", help="its YAML")
    add("--clip", help="a CLIP model as transformers saves it: a folder or a hub id")
    add("--device")
    add("--outdir", type=Path, default=Path("outputs/concept"), help="for table.csv and sheet.png (outputs/concept)")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if (options.generated is None) == (options.embedding_path is None):
        raise UserError("give either --embedding_path, to make pictures with a word, or --generated, a folder of some")
    word, templates = word_of(options), templates_of(options)
    references = [image for _, image in load_folder(options.references)]
    words = [*([] if options.generated else [word]), *([options.init_word] if options.init_word else [])]
    if words:
        announce(options, len(templates), words)
    judge: Judge = ClipJudge(options.clip) if options.clip else ScorerJudge(load_scorer())
    if options.generated is not None:
        found = load_folder(options.generated)
        prompts = prompts_of([path for path, _ in found], options.prompts)
        if len(prompts) != len(found):
            raise UserError(f"'{options.generated}' holds {len(found)} pictures, but there are {len(prompts)} prompts")
        sets = {"generated": ([image for _, image in found], prompts, word)}
    else:
        sets = {f"learned '{word}'": generate(options, templates, word, learned=True)}
    if options.init_word:
        sets[f"word '{options.init_word}'"] = generate(options, templates, options.init_word, learned=False)
    outdir = free_path(options.outdir, lambda folder: not (folder / "table.csv").exists())
    write_table(evaluate(judge, references, sets), outdir / "table.csv")
    write_sheet(references, sets, outdir / "sheet.png")
    print(f"{outdir}: table.csv and sheet.png")


if __name__ == "__main__":
    run_command(main)
