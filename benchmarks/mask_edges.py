"""What a masked restyling does outside its mask, at the mask's edge, and inside: kept (the default) and free.

    python -m benchmarks.mask_edges                                     # ten bundled photographs with ten paintings
    python -m benchmarks.mask_edges --cnt photos --sty paintings --longest 256 --steps 50

Each content with one style, in turn; its mask is proposed from the marks below, or from a box over its middle. Outside
is the largest difference to the content beyond the feather, of 255, and the mean; inside the mean difference. The seam
is the mean change from pixel to pixel along the mask's edge, as a share of that elsewhere in the same picture;
``seam_content`` is that of the content, because masks follow outlines. ``edge_change`` is how many times the content's
own change at the same pixels it is, and ``inside_change`` the same away from the edge, where there is nothing but
style: a seam would change more along the edge than inside. A table (CSV) and a sheet at full size go to ``--out``;
results that are there already are not made again.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.bundled import painting, photograph
from ldm.arguments import Parser
from ldm.metrics.intervals import bootstrap
from ldm.pictures.images import image_to_tensor, load_image, make_grid, save_image
from ldm.pictures.mask_proposals import Marks, Point, propose
from ldm.pictures.masks import write_mask
from ldm.pictures.sizing import Sizing
from ldm.util import atomic_write
from ldm.workflows.restyle.outside import opacity
from ldm.workflows.restyle.pairs import pictures_at
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import FREE, KEEP
from ldm.workflows.restyle.styleid import styleid
from ldm.workflows.studio import Studio, open_studio

BOX = (0.2, 0.15, 0.8, 0.95)  # left, top, right, bottom of the box from which masks are proposed
# of the bundled photographs, in parts of width and height
MARKS = {
    "astronaut": Marks(
        inside=((0.4, 0.07), (0.33, 0.15), (0.52, 0.12), (0.4, 0.2), (0.4, 0.42), (0.3, 0.45), (0.5, 0.5), (0.12, 0.6),
                (0.7, 0.62), (0.65, 0.65), (0.35, 0.7), (0.45, 0.7), (0.2, 0.75),
                (0.52, 0.8), (0.8, 0.8), (0.7, 0.85), (0.1, 0.9), (0.57, 0.9), (0.32, 0.97)),
        outside=((0.22, 0.05), (0.3, 0.03), (0.1, 0.1), (0.7, 0.1), (0.9, 0.1), (0.23, 0.16), (0.27, 0.2), (0.8, 0.2),
                 (0.22, 0.27), (0.05, 0.3), (0.65, 0.3), (0.68, 0.5), (0.75, 0.5), (0.73, 0.58), (0.9, 0.6)),
    ),
    "coffee": Marks(
        box=(0.1, 0.05, 0.95, 0.98),
        inside=((0.47, 0.14), (0.4, 0.15), (0.5, 0.17), (0.36, 0.2), (0.42, 0.2), (0.45, 0.25), (0.52, 0.25),
                (0.35, 0.3), (0.6, 0.3), (0.5, 0.35), (0.4, 0.4), (0.6, 0.45)),
        outside=((0.8, 0.2), (0.12, 0.3), (0.75, 0.3)),
    ),
    "motorcycle_left": Marks(box=(0.1, 0.15, 0.95, 0.95), inside=((0.5, 0.6),)),
    "chelsea": Marks(box=(0.1, 0, 0.98, 0.98), inside=((0.5, 0.4),)),
    "rocket": Marks(
        box=(0.44, 0.25, 0.56, 0.95), inside=((0.505, 0.45), (0.505, 0.6)),
        outside=((0.505, 0.3), (0.47, 0.5), (0.535, 0.5)),
    ),
    "camera": Marks(
        inside=((0.46, 0.22), (0.4, 0.32), (0.52, 0.33), (0.42, 0.45), (0.3, 0.5), (0.45, 0.55), (0.12, 0.6),
                (0.25, 0.75), (0.24, 0.92), (0.1, 0.95)),
        outside=((0.1, 0.2), (0.7, 0.2), (0.8, 0.3), (0.05, 0.4), (0.9, 0.4), (0.65, 0.6), (0.5, 0.75), (0.8, 0.8),
                 (0.55, 0.9)),
    ),
    "retina": Marks(box=(0.02, 0.02, 0.98, 0.98), inside=((0.5, 0.5),)),
    "cell": Marks(
        inside=((0.77, 0.51), (0.72, 0.57), (0.77, 0.57), (0.82, 0.57), (0.77, 0.63)),
        outside=((0.77, 0.44), (0.3, 0.5), (0.65, 0.57), (0.9, 0.57), (0.77, 0.7)),
    ),
    "coins": Marks(box=(0.02, 0.7, 0.22, 0.97)),
    "ihc": Marks(
        inside=((0.55, 0.75), (0.68, 0.82), (0.58, 0.88), (0.62, 0.95)),
        outside=((0.2, 0.2), (0.7, 0.3), (0.5, 0.6), (0.8, 0.7), (0.1, 0.8), (0.42, 0.8), (0.9, 0.9)),
    ),
}  # fmt: skip
PAINTINGS = (
    "hokusai_fan", "van_gogh_auvers", "kandinsky_composition_viii", "renoir_girls_at_the_piano", "hokusai_great_wave",
    "hiroshige_inokashira", "bruegel_harvesters", "leonardo_mona_lisa", "cassatt_summertime", "arcimboldo_spring",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]


def change(picture: Tensor) -> Tensor:
    """How much a picture [3, H, W] changes from pixel to pixel at each place, in levels of 255: [H, W]."""
    x, y = (picture.diff(dim=dim).abs().amax(dim=0) * 127.5 for dim in (2, 1))
    return torch.maximum(F.pad(x, (0, 1)), F.pad(y, (0, 0, 0, 1)))


def measured(result: Tensor, content: Tensor, mask: Tensor, feather: float) -> dict[str, float]:
    """All numbers of one result [3, H, W] with its mask [H, W]."""
    seen = opacity(mask[None], feather)
    difference = (result - content).abs() * 127.5
    outside, inside = seen == 0, mask >= 0.5
    inner = -F.max_pool2d(-(mask >= 0.5).float()[None, None], 3, 1, 1)[0, 0]
    edge = (seen > 0) & ((inner < 1) | (seen < 1))  # the last pixels inside, and the feather
    found = {
        "outside_max": float(difference[:, outside].max()) if outside.any() else 0.0,
        "outside_mean": float(difference[:, outside].mean()) if outside.any() else 0.0,
        "inside": float(difference[:, inside].mean()),
        "inside_edge": float(difference[:, inside & (inner < 1)].mean()),
    }
    made, plain = change(result), change(content)
    for name, steps in (("seam", made), ("seam_content", plain)):
        found[name] = float(steps[edge].mean() / steps[~edge].mean())
    for name, where in (("edge_change", edge), ("inside_change", (seen > 0) & ~edge)):
        found[name] = float(made[where].mean() / plain[where].mean())
    return found


def in_pixels(marks: Marks, width: int, height: int) -> Marks:
    """Marks that are given in parts of a picture's width and height."""

    def points(parts: Sequence[Point]) -> tuple[Point, ...]:
        return tuple((x * width, y * height) for x, y in parts)

    left, top, right, bottom = marks.box or (0.0, 0.0, 1.0, 1.0)
    box = (round(left * width), round(top * height), round(right * width), round(bottom * height))
    return Marks(box if marks.box else None, points(marks.inside), points(marks.outside))


def mask_for(content: Path, image: Image.Image, out: Path) -> Path:
    """A mask of what is marked, or of what is in the middle, at the content's used size."""
    path = out / "masks" / f"{content.stem}_mask.png"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        marks = MARKS.get(content.stem, Marks(box=BOX))
        write_mask(propose(image, in_pixels(marks, *image.size)), path)
    return path


def compare(studio: Studio, options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[Image.Image], list[str]]:
    """(rows, pictures of the sheet, their labels)."""
    contents = pictures_at(options.cnt, "content") if options.cnt else [photograph(name) for name in MARKS]
    contents = contents[: options.limit]
    styles = pictures_at(options.sty, "style") if options.sty else [painting(name) for name in PAINTINGS]
    sizing = Sizing(int(studio.model.first_stage_model.factor), options.longest)
    rows, images, labels = [], [], []
    for number, content in enumerate(contents):
        style, image = styles[number % len(styles)], sizing(load_image(content))
        mask = mask_for(content, image, options.out)
        how = StyleIDOptions(
            cnt=str(content), sty=str(style), masks=[str(mask)], longest=options.longest, no_sheet=True,
            ddim_inv_steps=options.steps, save_feat_steps=options.steps, progress=False,
            precomputed=str(options.out / "inversions"), feather=options.feather, fast=options.fast,
        )  # fmt: skip
        area = image_to_tensor(load_image(mask))[0] / 2 + 0.5
        row: list[Image.Image] = [image, load_image(mask)]
        for outside in (FREE, KEEP):
            (made,) = styleid(replace(how, outside=outside, output_path=str(options.out / outside)), studio)
            result = load_image(made.path)
            found = measured(image_to_tensor(result), image_to_tensor(image), area, options.feather)
            rows.append({"content": content.stem, "style": style.stem, "outside": outside, **found})
            row.append(result)
        images += row
        labels += [content.stem, "mask", f"{FREE}, {style.stem}", f"{KEEP}, {style.stem}"]
        print(f"{content.stem} with {style.stem}", flush=True)
    return rows, images, labels


def summary(rows: list[dict[str, Any]]) -> str:
    """Means over all contents, with 95 % intervals, for what lies outside left free and kept."""
    names = [name for name in rows[0] if name not in ("content", "style", "outside")]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for outside in (FREE, KEEP):
        cells = []
        for name in names:
            values = torch.tensor([row[name] for row in rows if row["outside"] == outside])
            low, high = bootstrap(values)
            cells.append(f"{values.mean():.2f} [{low:.2f}, {high:.2f}]")
        lines.append(f"| {outside} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--cnt", help="a picture or a folder (ten photographs of scikit-image)")
    parser.add_argument("--sty", help="a picture or a folder (ten bundled paintings)")
    parser.add_argument("--limit", type=int, default=10, help="of contents")
    parser.add_argument("--ckpt", help="another model than the small one")
    parser.add_argument("--model_config")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--fast", action="store_true", help="as run_styleid.py has it")
    parser.add_argument("--longest", type=int, default=256, help="pixels of the longer side")
    parser.add_argument("--feather", type=float, default=StyleIDOptions.feather)
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "mask_edges")
    options = parser.parse_args(arguments)
    rows, images, labels = compare(open_studio(options.ckpt, options.model_config), options)
    with atomic_write(options.out / "masks.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    save_image(make_grid(images, 4, labels), options.out / "masks.png")
    print(summary(rows))


if __name__ == "__main__":
    main()
