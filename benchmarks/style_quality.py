"""Distances of restyled pictures to their style and their content, beside simpler ways, and how well masks hold.

    python -m benchmarks.style_quality
    python -m benchmarks.style_quality --cnt photos --sty paintings

Every content with every style. Beside StyleID: the content as it is, what is left of it after inversion and sampling,
AdaIN of the clean latents, and AdaIN of the noise alone (StyleID without its injection); and the style itself, which
says how large distances to the content become. For masks a disc in the middle of each content, and the bundled pair
with masks: how far the result is from the content's reconstruction outside of all masks and inside. A table (CSV),
sheets and a summary go to ``--out``. See ``ldm.metrics.appearance`` for the distances.
"""

from __future__ import annotations

import argparse
import csv
import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.metrics.appearance import CONTENT, STYLE, measures
from ldm.pictures.images import centre_crop, image_to_tensor, make_grid, save_image, tensor_to_image
from ldm.pictures.sizing import Picture, Sizing, look_at, open_mask, sizing_for
from ldm.shipped import SAMPLES
from ldm.util import atomic_write
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.inversion.invert import Inversion, invert_with_features
from ldm.workflows.models import open_model
from ldm.workflows.restyle.layers import changed_layers
from ldm.workflows.restyle.pairs import Pair, pictures_at, read_pairs
from ldm.workflows.restyle.recipe import FREE, Recipe
from ldm.workflows.restyle.start import adain, start_noise
from ldm.workflows.restyle.steps import executed_levels
from ldm.workflows.restyle.stylise import stylise

ROOT = Path(__file__).resolve().parents[1]
OURS = "StyleID"
WAYS = ("content", "reconstruction", "AdaIN of latents", "AdaIN of noise", OURS, "style itself")
LEAK = 2  # latent pixels around a mask that count as neither inside nor outside
DISC = 0.35  # its radius, in parts of the shorter side


@dataclass
class Maker:
    """A model, and pictures made with it; each picture is inverted once."""

    model: Any
    sizing: Sizing
    steps: int

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.context = self.model.condition([""])
        self.levels = executed_levels(self.model.schedule, self.steps)
        self.recipe = Recipe(save_feat_steps=self.steps)
        self.inverted = functools.cache(self._invert)

    def _invert(self, picture: Picture) -> Inversion:
        layers = changed_layers(self.model)
        return invert_with_features(
            self.model, clean_latent(self.model, picture.tensor()), self.context, steps=self.steps,
            sites=layers.attention, detail=layers.residual,
            timesteps=[level.told for level in self.levels], dtype=None,
        )  # fmt: skip

    def sampled(
        self, start: Tensor, content: Inversion, styles: Sequence[Inversion], masks: Tensor | None = None, **how: Any
    ) -> Tensor:
        recipe = replace(self.recipe, **how)
        return self.decoded(stylise(self.model, start, content, styles, self.context, recipe, masks=masks))

    def decoded(self, latents: Tensor) -> Tensor:
        """The picture [3, H, W] as its file would have it."""
        return image_to_tensor(tensor_to_image(self.model.decode_first_stage(latents)[0]))

    def reconstruction(self, picture: Picture) -> Tensor:
        content = self.inverted(picture)
        return self.sampled(content.noise, content, [], without_attn_injection=True)

    def ways(self, content: Picture, style: Picture, reconstruction: Tensor) -> dict[str, Tensor]:
        """A picture [3, H, W] for each of ``WAYS``."""
        of_content, of_style = self.inverted(content), self.inverted(style)
        start = start_noise(of_content.noise, [of_style.noise])
        clean = self.levels[-1]
        made = [
            content.tensor()[0],
            reconstruction,
            self.decoded(adain(of_content.seen(clean), of_style.seen(clean))),
            self.sampled(start, of_content, [of_style], without_attn_injection=True),
            self.sampled(start, of_content, [of_style]),
            image_to_tensor(centre_crop(style.image(), content.size[1], content.size[0])),
        ]
        return dict(zip(WAYS, made, strict=True))

    def masked(self, content: Picture, styles: Sequence[Picture], masks: Tensor) -> Tensor:
        of_content, of_styles = self.inverted(content), [self.inverted(style) for style in styles]
        start = start_noise(of_content.noise, [style.noise for style in of_styles], masks)
        return self.sampled(start, of_content, of_styles, masks, outside=FREE)  # kept, there would be nothing to see


def disc(size: tuple[int, int]) -> Tensor:
    """A mask [1, H, W]: 1 in a disc in the middle."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) - height / 2, torch.arange(width) - width / 2, indexing="ij")
    return ((x**2 + y**2).sqrt() < DISC * min(size)).float()[None]


def held(result: Tensor, reconstruction: Tensor, masks: Tensor, factor: int) -> dict[str, float | None]:
    """Mean difference to the reconstruction, in levels of 8 bits: outside of all masks, near their edges, inside.

    None for a part that has no pixels.
    """
    covered = masks.amax(dim=0)[None, None]
    reach = 2 * LEAK * factor + 1
    wide = F.max_pool2d(covered, reach, 1, reach // 2)[0, 0] > 0
    core = -F.max_pool2d(-covered, reach, 1, reach // 2)[0, 0] > 0.5
    difference = (result - reconstruction).abs().mean(dim=0) * 127.5
    parts = {"outside": ~wide, "near": wide & ~core, "inside": core}
    return {name: float(difference[where].mean()) if where.any() else None for name, where in parts.items()}


def compare(maker: Maker, contents: Sequence[Picture], styles: Sequence[Picture]) -> tuple[list[Any], list[Any]]:
    """(rows of distances, the pictures of the sheet with labels) of every content with every style."""
    rows: list[dict[str, Any]] = []
    sheet: list[tuple[Tensor, str]] = []
    for content in contents:
        back = maker.reconstruction(content)
        for style in styles:
            made = maker.ways(content, style, back)
            for way, picture in made.items():
                distances = measures(picture, content.tensor()[0], style.tensor()[0])
                rows.append({"content": content.path.stem, "style": style.path.stem, "way": way, **distances})
            sheet += [(picture, way) for way, picture in made.items()]
            print(f"{content.path.stem} x {style.path.stem}", flush=True)
    return rows, sheet


def compare_masks(
    maker: Maker, contents: Sequence[Picture], styles: Sequence[Picture], pairs: Sequence[Pair]
) -> tuple[list[Any], list[Any]]:
    """(rows of differences, pictures with labels): a disc with every pair, and pairs that have masks of their own."""
    jobs = [(content, [style], disc(content.size), "disc") for content in contents for style in styles]
    for pair in (pair for pair in pairs if pair.masks):
        content = look_at(pair.content, maker.sizing)
        masks = torch.stack([open_mask(path, content, False) for path in pair.masks])
        jobs.append((content, [look_at(path, maker.sizing) for path in pair.styles], masks, "drawn"))
    rows: list[dict[str, Any]] = []
    sheet: list[tuple[Tensor, str]] = []
    for content, its, masks, kind in jobs:
        back, result = maker.reconstruction(content), maker.masked(content, its, masks)
        found = held(result, back, masks, maker.sizing.factor)
        names = "+".join(style.path.stem for style in its)
        rows.append({"content": content.path.stem, "style": names, "masks": kind, **found})
        shown = 2 * masks.amax(dim=0).expand(3, -1, -1) - 1
        sheet += [(content.tensor()[0], content.path.stem), (shown, "masks"), (back, "reconstruction")]
        said = ", ".join(f"{part} {value:.1f}" for part, value in found.items() if value is not None)
        sheet.append((result, f"{names}: {said}"))
        print(f"{content.path.stem} with {names} under masks", flush=True)
    return rows, sheet


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Means over all pairs, as a Markdown table, and in how many pairs StyleID is nearer to the style than each."""
    names = [*STYLE, *CONTENT]
    lines = ["| | " + " | ".join([f"to style: {n}" for n in STYLE] + [f"to content: {n}" for n in CONTENT]) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for way in WAYS:
        means = [fmean(row[name] for row in rows if row["way"] == way) for name in names]
        lines.append(f"| {way} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    by_way = {way: [row for row in rows if row["way"] == way] for way in WAYS}
    for way in WAYS[:-1]:
        if way == OURS:
            continue
        pairs = list(zip(by_way[OURS], by_way[way], strict=True))
        won = [f"{name} {sum(a[name] < b[name] for a, b in pairs)} of {len(pairs)}" for name in names]
        lines.append(f"{OURS} nearer than '{way}': " + ", ".join(won))
    return "\n".join(lines)


def summary_of_masks(rows: Sequence[dict[str, Any]]) -> str:
    lines = []
    for kind in dict.fromkeys(row["masks"] for row in rows):
        some = [row for row in rows if row["masks"] == kind]
        parts = {name: [row[name] for row in some if row[name] is not None] for name in ("outside", "near", "inside")}
        said = ", ".join(f"{name} {fmean(v):.2f} ({min(v):.2f} to {max(v):.2f})" for name, v in parts.items() if v)
        lines.append(f"masks ({kind}), {len(some)} results, difference of 255: {said}")
    return "\n".join(lines)


def write(rows: Sequence[dict[str, Any]], sheet: Sequence[tuple[Tensor, str]], columns: int, path: Path) -> None:
    """``path`` with .csv: the table; with .png: the pictures."""
    with atomic_write(path.with_suffix(".csv")) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    images: list[Image.Image] = [tensor_to_image(picture) for picture, _ in sheet]
    save_image(make_grid(images, columns, [label for _, label in sheet]), path.with_suffix(".png"))


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cnt", default=str(SAMPLES / "cnt"), help="a picture or a folder")
    parser.add_argument("--sty", default=str(SAMPLES / "sty"), help="a picture or a folder")
    parser.add_argument("--limit", type=int, default=100, help="of contents and of styles, each")
    parser.add_argument("--ckpt", help="another model than the small one")
    parser.add_argument("--config", "--model_config", dest="model_config")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--longest", type=int, default=256, help="pixels of the longer side")
    parser.add_argument("--no_masks", action="store_true")
    parser.add_argument("--outdir", "--out", dest="out", type=Path, default=ROOT / "outputs" / "style_quality")
    options = parser.parse_args(arguments)
    model, _ = open_model(options.ckpt, options.model_config)
    maker = Maker(model, sizing_for(model, None, None, False, options.longest), options.steps)
    contents, styles = (
        [look_at(path, maker.sizing) for path in pictures_at(place, what)[: options.limit]]
        for place, what in ((options.cnt, "content"), (options.sty, "style"))
    )
    rows, sheet = compare(maker, contents, styles)
    write(rows, sheet, len(WAYS), options.out / "pairs")
    print(summary(rows))
    if not options.no_masks:
        pairs = read_pairs(SAMPLES / "pairs.txt", [], None)
        rows, sheet = compare_masks(maker, contents, styles, pairs)
        write(rows, sheet, 4, options.out / "masks")
        print(summary_of_masks(rows))


if __name__ == "__main__":
    main()
