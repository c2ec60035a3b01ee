"""Ways of restyling beside each other and beside naive ones, by measures that need no trained network.

    python -m benchmarks.restyle_modes                                        # 8 photographs by 8 paintings, 64 pairs
    python -m benchmarks.restyle_modes --cnt photos --sty paintings --size 256 --ways StyleID fast

Squares out of the middle, every content with every style. Of each way: how often the network is asked for a pair, and
the mean of each measure over all pairs with its 95 % interval (bootstrap over pairs; see docs/measures.md). ``fast`` is
StyleID with --fast, and what follows it is --fast with one thing more, so that it is to be compared with that. Rows are
added to ``pairs.csv`` in ``--out`` way by way; one that is there already is not made again. ``sheet.png`` shows pairs.
"""

from __future__ import annotations

import argparse
import csv
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ldm.metrics.appearance import measures
from ldm.metrics.histogram import HISTOGRAM
from ldm.metrics.intervals import bootstrap
from ldm.pictures.images import centre_crop, image_to_tensor, load_image, make_grid, save_image, tensor_to_image
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.inversion.invert import Inversion, invert_with_features, unet_of
from ldm.workflows.measure.baselines import Pictures, histograms, latents, reinhard
from ldm.workflows.models import open_model
from ldm.workflows.restyle.layers import changed_layers
from ldm.workflows.restyle.pairs import pictures_at
from ldm.workflows.restyle.recipe import Recipe
from ldm.workflows.restyle.start import beginning
from ldm.workflows.restyle.steps import sampled_timesteps, way_of
from ldm.workflows.restyle.stylise import stylise
from ldm.world.photos import photo_path, photos

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = ("astronaut", "coffee", "motorcycle_left", "chelsea", "rocket", "camera", "retina", "ihc")
PAINTINGS = (
    "heldout/hiroshige_inokashira", "heldout/hokusai_fan", "heldout/renoir_girls_at_the_piano",
    "heldout/van_gogh_auvers", "train/bruegel_harvesters", "train/hokusai_great_wave",
    "train/kandinsky_composition_viii", "train/leonardo_mona_lisa",
)  # fmt: skip
NAIVE = {
    "content": lambda pictures: pictures.content,
    "style": lambda pictures: pictures.style,
    "reinhard": reinhard,
    "histogram": histograms,
}
WAYS: dict[str, dict[str, Any]] = {
    "StyleID": {},
    "fast": {"fast": True},
    "fast, gamma cosine": {"fast": True, "gamma_schedule": "cosine"},
    "fast, adaptive 1": {"fast": True, "adaptive": 1.0},
    "fast, share 0.5": {"fast": True, "share": 0.5},
    "fast, low_frequencies 0.7": {"fast": True, "low_frequencies": 0.7},
    "fast, distill 1": {"fast": True, "distill": 1},
    "fixed_point": {"inversion": "fixed_point"},
    "bdia": {"inversion": "bdia"},
    "edict": {"inversion": "edict"},
    "20 steps": {"ddim_inv_steps": 20, "save_feat_steps": 20},
}
MEASURES = ("colour", "texture", "histogram", "edges", "ssim")
SHOWN = 6  # pairs on the sheet


@dataclass
class Maker:
    """A model, contents and styles [N, 3, S, S], and results; pictures are inverted once for each way to invert.

    Attributes:
        calls: how many rows the network was asked for so far.
    """

    model: Any
    contents: Tensor
    styles: Tensor
    steps: int
    calls: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.context = self.model.condition([""])
            self.clean = {name: clean_latent(self.model, x) for name, x in (("c", self.contents), ("s", self.styles))}
        unet_of(self.model).register_forward_pre_hook(self._count)
        self.inverted = functools.lru_cache(maxsize=4)(self._invert)

    def _count(self, network: Any, args: tuple[Any, ...]) -> None:
        self.calls += args[0].shape[0]

    def _invert(self, which: str, what: str, fast: bool, inversion: str, steps: int) -> tuple[Inversion, float]:
        """The inversions of all contents or styles, and how many calls one took."""
        recipe = Recipe(fast=fast, inversion=inversion, ddim_inv_steps=steps, save_feat_steps=steps)
        before, schedule = self.calls, self.model.schedule
        found = invert_with_features(
            self.model, self.clean[which], self.context, steps=steps, way=way_of(schedule, recipe),
            sites=changed_layers(self.model).attention, what=what, timesteps=sampled_timesteps(recipe, schedule),
        )  # fmt: skip
        return found, (self.calls - before) / len(self.clean[which])

    @torch.no_grad()
    def results(self, how: dict[str, Any]) -> tuple[list[list[Tensor]], float]:
        """Pictures [3, S, S] by style and content, and how many calls a pair takes that stands alone."""
        steps = {"ddim_inv_steps": self.steps, "save_feat_steps": self.steps}
        recipe = Recipe(**{**steps, **how})
        key = (recipe.fast, recipe.inversion, recipe.ddim_inv_steps)
        content, of_content = self.inverted("c", "q", *key)
        styles, of_style = self.inverted("s", "qkv" if recipe.share else "kv", *key)
        before, made = self.calls, []
        for number in range(len(self.styles)):
            style = styles.picture(number)
            start = beginning(self.model.schedule, content, [style], recipe)
            latent = stylise(self.model, start, content, [style], self.context, recipe)
            made.append([image_to_tensor(tensor_to_image(x)) for x in self.model.decode_first_stage(latent)])
        sampled = (self.calls - before) / (len(self.styles) * len(self.contents))
        return made, of_content + of_style + sampled

    def naive(self, name: str) -> tuple[list[list[Tensor]], float]:
        """Likewise, of a way without the network."""
        way = (lambda pictures: latents(self.model, pictures)) if name == "latents" else NAIVE[name]
        contents, styles = ([tensor_to_image(x) for x in xs] for xs in (self.contents, self.styles))
        return [[image_to_tensor(way(Pictures(c, c, s))) for c in contents] for s in styles], 0


def judged(maker: Maker, made: Sequence[Sequence[Tensor]]) -> list[dict[str, Any]]:
    """A row of measures for each pair."""
    rows = []
    for s, of_style in enumerate(made):
        for c, picture in enumerate(of_style):
            found = measures(picture, maker.contents[c], maker.styles[s])
            colours = HISTOGRAM((picture[None] + 1) / 2, (maker.styles[s][None] + 1) / 2)
            rows.append({"content": c, "style": s, **found, "histogram": colours})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means with intervals, a line a way."""
    lines = ["| | calls | " + " | ".join(MEASURES) + " |", "|---" * (len(MEASURES) + 2) + "|"]
    for way in dict.fromkeys(row["way"] for row in rows):
        some = [row for row in rows if row["way"] == way]
        cells = []
        for name in MEASURES:
            values = torch.tensor([float(row[name]) for row in some])
            low, high = bootstrap(values)
            cells.append(f"{values.mean():.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"| {way} | {float(some[0]['calls']):g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def squares(paths: Sequence[Path], size: int) -> Tensor:
    """The middles of pictures, [N, 3, size, size] in [-1, 1]."""
    return torch.stack([image_to_tensor(centre_crop(load_image(path), size, size)) for path in paths])


def show(maker: Maker, results: dict[str, list[list[Tensor]]], out: Path) -> None:
    """A sheet of some pairs: a row each, the content, the style, then what each way made."""
    images, labels = list[Image.Image](), list[str]()
    for number in range(SHOWN):
        c, s = number % len(maker.contents), number % len(maker.styles)
        made = [way[s][c] for way in results.values()]
        images += [tensor_to_image(x) for x in (maker.contents[c], maker.styles[s], *made)]
        labels += ["content", "style", *results]
    save_image(make_grid(images, 2 + len(results), labels), out)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cnt", help="a picture or a folder (8 photographs of scikit-image)")
    parser.add_argument("--sty", help="a picture or a folder (8 bundled paintings)")
    parser.add_argument("--size", type=int, default=64, help="side of the squares in pixels")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--ways", nargs="+", choices=[*NAIVE, "latents", *WAYS], default=[*NAIVE, "latents", *WAYS])
    parser.add_argument("--ckpt", help="another model than the small one")
    parser.add_argument("--config", "--model_config", dest="model_config")
    parser.add_argument("--outdir", "--out", dest="out", type=Path, default=ROOT / "outputs" / "restyle_modes")
    options = parser.parse_args(arguments)
    bundled = {photo.name: photo_path(photo) for photo in photos()}
    contents = [bundled[name] for name in PHOTOGRAPHS] if options.cnt is None else pictures_at(options.cnt, "content")
    paintings = [ROOT / "examples" / "paintings" / f"{name}.jpg" for name in PAINTINGS]
    styles = paintings if options.sty is None else pictures_at(options.sty, "style")
    model, _ = open_model(options.ckpt, options.model_config)
    maker = Maker(model, squares(contents, options.size), squares(styles, options.size), options.steps)
    path = options.out / "pairs.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(path.open(newline=""))) if path.is_file() else []
    results: dict[str, list[list[Tensor]]] = {}
    for way in options.ways:
        if way in {row["way"] for row in rows}:
            continue
        made, calls = maker.results(WAYS[way]) if way in WAYS else maker.naive(way)
        results[way] = made
        new = [{"way": way, "calls": calls, **row} for row in judged(maker, made)]
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(new[0]))
            if not rows:
                writer.writeheader()
            writer.writerows(new)
        rows += new
        print(f"{way}: {len(new)} pairs", flush=True)
    if results:
        show(maker, results, options.out / "sheet.png")
    print(table(rows))


if __name__ == "__main__":
    main()
