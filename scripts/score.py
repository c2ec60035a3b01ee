"""Score pictures against their prompts.

    python -m scripts.score outputs/txt2img-samples/samples
    python -m scripts.score FOLDER --prompts prompts.txt
    python -m scripts.score FOLDER --prompts prompts.txt --json out.json

The prompts are captions of the rendered world in English, Korean or Chinese: one a line in the order of the file names,
or, without --prompts, those that the PNG files carry themselves.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ldm.checkpoint import read_metadata
from ldm.modules.scorer import AttributeScorer
from ldm.pictures.images import image_to_tensor, list_images, load_image, read_parameters
from ldm.texts import read_lines
from ldm.util import UserError, atomic_write, parse_json, run_command
from ldm.world.attributes import Attributes
from ldm.world.captions import parse
from ldm.world.scoring import Judgement, Row, as_json, compare, labels, mistakes, table

WEIGHTS = Path(__file__).resolve().parent.parent / "models" / "ldm" / "tiny" / "scorer.safetensors"


def load_scorer(path: Path = WEIGHTS) -> AttributeScorer:
    """The trained scorer.

    Raises:
        UserError: no such file, or one whose classes are not this world's.
    """
    known = parse_json(read_metadata(path).get("labels", "{}"), f"what '{path}' says of its labels")
    if known != {name: list(values) for name, values in labels().items()}:
        raise UserError(f"'{path}' was trained on another world; train it anew with python -m scripts.train_scorer")
    return AttributeScorer({name: len(values) for name, values in labels().items()}, ckpt_path=path).float().eval()


def see(model: AttributeScorer, pictures: Tensor) -> list[Judgement]:
    """What the scorer sees on each of [B, 3, H, W] pictures in [-1, 1]: attribute -> (value, probability)."""
    model.eval()
    judged = model.judge(pictures)
    names = labels()
    return [
        {name: (names[name][int(value[i])], float(probability[i])) for name, (value, probability) in judged.items()}
        for i in range(len(pictures))
    ]


def score_pictures(
    pictures: Sequence[Tensor], prompts: Sequence[str], model: AttributeScorer | None = None
) -> tuple[list[Row], list[Judgement], list[Attributes]]:
    """Score [3, H, W] tensors in [-1, 1] against as many prompts.

    Raises:
        UserError: a prompt that is no caption of the world, or another number of prompts than pictures.
    """
    if len(pictures) != len(prompts) or not pictures:
        raise UserError(f"{len(pictures)} pictures need as many prompts, got {len(prompts)}")
    asked = [parse(prompt) for prompt in prompts]
    scorer = load_scorer() if model is None else model
    seen = [judgement for picture in pictures for judgement in see(scorer, picture[None])]
    return compare(asked, seen), seen, asked


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="pictures, taken in natural order (2.png before 10.png)")
    parser.add_argument("--prompts", type=Path, help="text file, one prompt a line")
    parser.add_argument("--ckpt", type=Path, default=WEIGHTS, help="the scorer's weights")
    parser.add_argument("--json", type=Path, help="write the table, every judgement and every mistake here")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args()
    files = list_images(options.folder)
    prompts = prompts_of(files, options.prompts)
    if len(prompts) != len(files):
        raise UserError(f"'{options.folder}' holds {len(files)} pictures, but there are {len(prompts)} prompts")
    pictures = [image_to_tensor(load_image(path)) for path in files]
    rows, seen, asked = score_pictures(pictures, prompts, load_scorer(options.ckpt))
    print(table(rows))
    if options.json:
        names = [path.name for path in files]
        report = {
            "scores": as_json(rows),
            "mistakes": mistakes(names, asked, seen),
            "pictures": [
                {"picture": n, "prompt": p, "seen": {k: [v, round(q, 4)] for k, (v, q) in s.items()}}
                for n, p, s in zip(names, prompts, seen, strict=True)
            ],
        }
        with atomic_write(options.json) as path:
            path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
