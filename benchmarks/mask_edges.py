"""What a masked restyling does outside its mask, at the mask's edge, and inside: kept (the default) and free.

    python -m benchmarks.mask_edges
    python -m benchmarks.mask_edges --cnt photos --sty paintings --longest 256 --steps 50

Each content with one style, in turn; its mask lies beside it, or is proposed from a box over its middle. Outside is the
largest difference to the content beyond the feather, of 255, and the mean. The seam is the mean change from pixel to
pixel along the mask's edge, as a share of that elsewhere in the same picture: that of the content is given beside it,
because masks follow edges. Inside is the mean difference to the content. A table (CSV) and a sheet go to ``--out``.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.pictures.images import image_to_tensor, load_image, make_grid, save_image
from ldm.pictures.mask_proposals import Marks, propose
from ldm.pictures.masks import write_mask
from ldm.pictures.sizing import Sizing
from ldm.shipped import SAMPLES
from ldm.util import atomic_write
from ldm.workflows.restyle.outside import opacity
from ldm.workflows.restyle.pairs import pictures_at
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import FREE, KEEP
from ldm.workflows.restyle.styleid import styleid
from ldm.workflows.studio import Studio, open_studio

BOX = (0.2, 0.15, 0.8, 0.95)  # left, top, right, bottom of the box from which masks are proposed
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
    edge = (seen > 0) & (inner < 1)  # from the last pixels inside to the end of the feather
    found = {
        "outside_max": float(difference[:, outside].max()) if outside.any() else 0.0,
        "outside_mean": float(difference[:, outside].mean()) if outside.any() else 0.0,
        "inside": float(difference[:, inside].mean()),
        "inside_edge": float(difference[:, inside & (inner < 1)].mean()),
    }
    for name, picture in (("seam", result), ("seam_content", content)):
        steps = change(picture)
        found[name] = float(steps[edge].mean() / steps[~edge].mean())
    return found


def mask_for(content: Path, image: Image.Image, out: Path) -> Path:
    """A mask of what is in the middle, at the content's used size."""
    width, height = image.size
    left, top, right, bottom = BOX
    box = (round(left * width), round(top * height), round(right * width), round(bottom * height))
    path = out / "masks" / f"{content.stem}_mask.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(propose(image, Marks(box=box)), path)
    return path


def compare(studio: Studio, options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[Image.Image], list[str]]:
    """(rows, pictures of the sheet, their labels)."""
    contents, styles = pictures_at(options.cnt, "content")[: options.limit], pictures_at(options.sty, "style")
    sizing = Sizing(int(studio.model.first_stage_model.factor), options.longest)
    rows, images, labels = [], [], []
    for number, content in enumerate(contents):
        style, image = styles[number % len(styles)], sizing(load_image(content))
        mask = mask_for(content, image, options.out)
        how = StyleIDOptions(
            cnt=str(content), sty=str(style), masks=[str(mask)], longest=options.longest, no_sheet=True,
            ddim_inv_steps=options.steps, save_feat_steps=options.steps, progress=False,
            precomputed=str(options.out / "inversions"), feather=options.feather,
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
    names = [name for name in rows[0] if name not in ("content", "style", "outside")]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for outside in (FREE, KEEP):
        some = [row for row in rows if row["outside"] == outside]
        means = [fmean(row[name] for row in some) for name in names]
        lines.append(f"| {outside} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cnt", default=str(SAMPLES / "cnt"), help="a picture or a folder")
    parser.add_argument("--sty", default=str(SAMPLES / "sty"), help="a picture or a folder")
    parser.add_argument("--limit", type=int, default=10, help="of contents")
    parser.add_argument("--ckpt", help="another model than the small one")
    parser.add_argument("--model_config")
    parser.add_argument("--steps", type=int, default=50)
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
