"""Score pictures of scenes by a small classifier that was trained on true renders.

    python -m scripts.score outputs/asked/samples --scenes outputs/asked/scenes.jsonl
    python -m scripts.score FOLDER --scenes FILE --json out.json
    python -m scripts.score FOLDER --scenes FILE --ckpt outputs/scorer.safetensors

The scenes, one a line in the order of the file names, are what `scripts.scene_prompts` writes. `scripts.judge` judges
the same pictures by classical measures, which have learned nothing. The classifier names colours of shapes, but not an
object's own: whether a picture has the shades of what is seen on it (*shade*) is measured; *all, shades* asks for both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from ldm.arguments import Parser
from ldm.checkpoint import read_metadata
from ldm.modules.scorer import AttributeScorer
from ldm.pictures.images import image_to_tensor, list_images, load_image
from ldm.util import UserError, atomic_write, parse_json, run_command
from ldm.world.labels import classes
from ldm.world.scene_files import read_scenes
from ldm.world.scoring import Judgement, as_json, mistakes, rows_of, shade_rows, table, values_of
from ldm.world.shades import has_its_shades

WEIGHTS = Path(__file__).resolve().parent.parent / "models" / "ldm" / "tiny" / "scorer.safetensors"
SIZE = 128  # pixels, in which shades are looked at


def new_scorer(weights: Path | None = None) -> AttributeScorer:
    """A scorer of this world, without training where there are no weights."""
    return AttributeScorer({name: len(values) for name, values in classes().items()}, ckpt_path=weights)


def load_scorer(path: Path = WEIGHTS) -> AttributeScorer:
    """The trained scorer.

    Raises:
        UserError: no such file, or one whose classes are not this world's.
    """
    known = parse_json(read_metadata(path).get("labels", "{}"), f"what '{path}' says of its labels")
    if known != {name: list(values) for name, values in classes().items()}:
        raise UserError(f"'{path}' was trained on another world; train it anew with python -m scripts.train_scorer")
    return new_scorer(path).float().eval()


def see(model: AttributeScorer, pictures: Tensor) -> list[Judgement]:
    """What the scorer sees on each of [B, 3, H, W] pictures in [-1, 1]: what it tells apart -> (value, probability)."""
    model.eval()
    judged, names = model.judge(pictures), classes()
    return [
        {name: (names[name][int(value[i])], float(probability[i])) for name, (value, probability) in judged.items()}
        for i in range(len(pictures))
    ]


def see_each(model: AttributeScorer, pictures: Sequence[Tensor]) -> list[Judgement]:
    """As ``see`` for [3, H, W] pictures that may be of several sizes."""
    return [judgement for picture in pictures for judgement in see(model, picture[None])]


def have_shades(pictures: Sequence[Tensor], seen: Sequence[Judgement]) -> list[bool]:
    """Whether each of [3, H, W] pictures in [-1, 1], looked at in one size, has the shades of what is seen on it."""
    scaled = [F.interpolate(one[None], (SIZE, SIZE), mode="bilinear", antialias=True)[0] for one in pictures]
    return [
        has_its_shades(one.permute(1, 2, 0).numpy(), values_of(labels))
        for one, labels in zip(scaled, seen, strict=True)
    ]


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, help="pictures, taken in natural order (2.png before 10.png)")
    parser.add_argument("--scenes", type=Path, required=True, help="what was asked for, one scene a line")
    parser.add_argument("--ckpt", type=Path, default=WEIGHTS, help="the scorer's weights")
    parser.add_argument("--json", type=Path, help="write the table, every judgement and every mistake here")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args()
    files, scenes = list_images(options.folder), read_scenes(options.scenes)
    if len(scenes) != len(files):
        raise UserError(f"'{options.folder}' holds {len(files)} pictures, but there are {len(scenes)} scenes")
    pictures = [image_to_tensor(load_image(path)) for path in files]
    seen = see_each(load_scorer(options.ckpt), pictures)
    shades = have_shades(pictures, seen)
    rows = [*rows_of(scenes, seen), *shade_rows(scenes, seen, shades)]
    print(table(rows))
    if options.json:
        names = [path.name for path in files]
        report = {
            "scores": as_json(rows),
            "mistakes": mistakes(names, scenes, seen),
            "pictures": [
                {"picture": n, "seen": {k: [v, round(q, 4)] for k, (v, q) in s.items()}, "shade": shade}
                for n, s, shade in zip(names, seen, shades, strict=True)
            ],
        }
        with atomic_write(options.json) as path:
            path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
