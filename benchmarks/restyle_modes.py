"""Ways of restyling beside each other and beside naive ones, by measures that need no trained network.

    python -m benchmarks.restyle_modes                                        # 8 photographs by 8 paintings, 64 pairs
    python -m benchmarks.restyle_modes --cnt photos --sty paintings --size 256 --ways StyleID fast

Squares out of the middle, every content with every style. Of each way: how often the network is asked for a pair, and
the mean of each measure over all pairs with its 95 % interval (bootstrap over pairs; see docs/measures.md). ``fast`` is
StyleID with --fast, and what follows it is --fast with one thing more, so that the second table compares it with that,
pair by pair, and the others with StyleID. The third says in how many pairs StyleID is nearer than each. Rows are added
to ``pairs.csv`` in ``--out`` as they are made, with their pictures beside; what is there already is not made again.
``sheet.png`` shows pairs.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.bundled import painting, photograph
from ldm.arguments import Parser
from ldm.metrics.appearance import measures
from ldm.metrics.histogram import HISTOGRAM
from ldm.metrics.intervals import bootstrap
from ldm.models.diffusion.noise import ImageNoise
from ldm.pictures.flat import keep_flat
from ldm.pictures.images import centre_crop, image_to_tensor, load_image, make_grid, save_image, tensor_to_image
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.inversion.invert import Inversion, invert_with_features, unet_of
from ldm.workflows.measure.baselines import Pictures, histograms, latents, reinhard
from ldm.workflows.models import open_model
from ldm.workflows.restyle.layers import changed_layers
from ldm.workflows.restyle.pairs import pictures_at
from ldm.workflows.restyle.recipe import Recipe
from ldm.workflows.restyle.setting import away_from
from ldm.workflows.restyle.start import beginning
from ldm.workflows.restyle.steps import sampled_timesteps, way_of
from ldm.workflows.restyle.stylise import stylise

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = ("astronaut", "coffee", "motorcycle_left", "chelsea", "rocket", "camera", "retina", "ihc")
# what they show, in words that the small model has
PAINTINGS = {
    "hiroshige_inokashira": "a house in the snow",
    "hokusai_fan": "a woman",
    "renoir_girls_at_the_piano": "two girls",
    "van_gogh_auvers": "a house in a field",
    "bruegel_harvesters": "people in a field",
    "hokusai_great_wave": "the sea",
    "kandinsky_composition_viii": "circles and triangles",
    "leonardo_mona_lisa": "a woman in front of a mountain",
}
SHOWN = "a painting"  # by any other
NAIVE = {
    "content": lambda pictures: pictures.content,
    "style": lambda pictures: pictures.style,
    "reinhard": reinhard,
    "histogram": histograms,
}
OURS, FAST = "StyleID", "fast"
NEGATIVE = "fast, negative"  # the prompt is what the style shows
WAYS: dict[str, dict[str, Any]] = {
    OURS: {},
    FAST: {"fast": True},
    "fast, gamma cosine": {"fast": True, "gamma_schedule": "cosine"},
    "fast, gamma 0.55": {"fast": True, "gamma": 0.55},
    "fast, adaptive 1": {"fast": True, "adaptive": 1.0},
    "fast, share 0.5": {"fast": True, "share": 0.5},
    "fast, low_frequencies 0.7": {"fast": True, "low_frequencies": 0.7},
    "fast, means": {"fast": True, "adain_deviation": 0.0},
    "fast, flat": {"fast": True, "adain_flat": 0.0},
    "fast, half the deviation": {"fast": True, "adain_deviation": 0.5},
    NEGATIVE: {"fast": True, "negative": SHOWN},
    "fast, distill 1": {"fast": True, "distill": 1},
    "fast, AdaIN alone": {"fast": True, "without_attn_injection": True},
    "gamma cosine": {"gamma_schedule": "cosine"},
    "deviation 0.7": {"adain_deviation": 0.7},
    "deviation 0.5": {"adain_deviation": 0.5},
    "deviation 0.35": {"adain_deviation": 0.35},
    "flat": {"adain_flat": 0.0},
    "settled": {"settle": 4},
    "flat kept": {"keep_flat": 1.0},
    "small model": {"inversion": "fixed_point", "inversion_rounds": 1, "adain_flat": 0.0, "keep_flat": 1.0},
    "one round": {"inversion": "fixed_point", "inversion_rounds": 1},
    "fixed_point": {"inversion": "fixed_point"},
    "bdia": {"inversion": "bdia"},
    "edict": {"inversion": "edict"},
    "20 steps": {"ddim_inv_steps": 20, "save_feat_steps": 20},
}
MEASURES = ("colour", "texture", "histogram", "edges", "ssim")


@dataclass
class Maker:
    """A model, and squares [N, 3, S, S] by name; pictures are inverted once for each way to invert.

    Attributes:
        calls: how many rows the network was asked for so far.
    """

    model: Any
    contents: dict[str, Tensor]
    styles: dict[str, Tensor]
    steps: int
    calls: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.context = self.model.condition([""])
            self.clean = {
                which: clean_latent(self.model, torch.stack([*pictures.values()]))
                for which, pictures in (("c", self.contents), ("s", self.styles))
            }
        unet_of(self.model).register_forward_pre_hook(self._count)
        self.inverted = functools.lru_cache(maxsize=4)(self._invert)

    def _count(self, network: Any, args: tuple[Any, ...]) -> None:
        self.calls += args[0].shape[0]

    def _invert(
        self, which: str, what: str, fast: bool, inversion: str, rounds: int | None, steps: int, negative: str | None
    ) -> tuple[Inversion, float]:
        """The inversions of all contents or styles, and how many calls one took."""
        recipe = Recipe(
            fast=fast, inversion=inversion, inversion_rounds=rounds, ddim_inv_steps=steps, save_feat_steps=steps
        )
        before, schedule = self.calls, self.model.schedule
        found = invert_with_features(
            self.model, self.clean[which], self.context, steps=steps, way=way_of(schedule, recipe),
            sites=changed_layers(self.model).attention, what=what, timesteps=sampled_timesteps(recipe, schedule),
            away=away_from(self.model, negative), scale=Recipe.negative_scale,
        )  # fmt: skip
        return found, (self.calls - before) / len(self.clean[which])

    @torch.no_grad()
    def result(self, way: str, style: str) -> tuple[list[Tensor], float]:
        """All contents in one style, pictures [3, S, S], and how many calls a pair takes that stands alone."""
        if way not in WAYS:
            return self._naive(way, style), 0
        how = {"ddim_inv_steps": self.steps, "save_feat_steps": self.steps} | WAYS[way]
        if way == NEGATIVE:
            how["negative"] = PAINTINGS.get(style, SHOWN)
        recipe, number = Recipe(**how), list(self.styles).index(style)
        key = (recipe.fast, recipe.inversion, recipe.inversion_rounds, recipe.ddim_inv_steps, recipe.negative)
        content, of_content = self.inverted("c", "q", *key)
        styles, of_style = self.inverted("s", "qkv" if recipe.share else "kv", *key)
        before, its = self.calls, styles.picture(number)
        start = beginning(self.model.schedule, content, [its], recipe)
        fresh = ImageNoise([recipe.seed or 0] * len(start))
        latent = stylise(
            self.model, start, content, [its], self.context, recipe, noise=lambda: fresh.draw(start.shape[1:])
        )
        made = [
            image_to_tensor(keep_flat(tensor_to_image(x), tensor_to_image(of), recipe.keep_flat or 0.0))
            for x, of in zip(self.model.decode_first_stage(latent), self.contents.values(), strict=True)
        ]
        return made, of_content + of_style + (self.calls - before) / len(made)

    def _naive(self, way: str, style: str) -> list[Tensor]:
        make = (lambda pictures: latents(self.model, pictures)) if way == "latents" else NAIVE[way]
        its = tensor_to_image(self.styles[style])
        contents = [tensor_to_image(x) for x in self.contents.values()]
        return [image_to_tensor(make(Pictures(c, c, its))) for c in contents]

    def rows(self, way: str, style: str, out: Path) -> Iterator[dict[str, Any]]:
        """Each content in one style: its measures, and its picture in a file."""
        made, calls = self.result(way, style)
        for (name, content), picture in zip(self.contents.items(), made, strict=True):
            save_image(tensor_to_image(picture), picture_of(out, way, name, style))
            colours = HISTOGRAM((picture[None] + 1) / 2, (self.styles[style][None] + 1) / 2)
            found = measures(picture, content, self.styles[style])
            yield {"way": way, "calls": calls, "content": name, "style": style, **found, "histogram": colours}


def picture_of(out: Path, way: str, content: str, style: str) -> Path:
    """Where a result lies."""
    return out / "pictures" / way.replace(", ", "_").replace(" ", "_") / f"{content}_{style}.png"


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, numbers as numbers; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            {name: float(value) if name in (*MEASURES, "calls") else value for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def measured(maker: Maker, ways: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """The rows of all pairs by these ways; those that were not there are made and added to the file."""
    path = out / "pairs.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = read(path)
    known = {(row["way"], row["content"], row["style"]) for row in rows}
    for way in ways:
        for style in maker.styles:
            if all((way, content, style) in known for content in maker.contents):
                continue
            new = list(maker.rows(way, style, out))
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, list(new[0]), extrasaction="ignore")
                if not rows:
                    writer.writeheader()
                writer.writerows(new)
            rows += new
            print(f"{way}: {len(new)} pairs with {style}", flush=True)
    wanted = [row for row in rows if row["way"] in ways]
    return [row for row in wanted if row["content"] in maker.contents and row["style"] in maker.styles]


def by_way(rows: Sequence[dict[str, Any]]) -> dict[str, dict[tuple[str, str], dict[str, Any]]]:
    """The last row of each pair, by way and by (content, style)."""
    found: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["way"], {})[row["content"], row["style"]] = row
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means with intervals, a line a way."""
    lines = ["| | pairs | calls | " + " | ".join(MEASURES) + " |", "|---" * (len(MEASURES) + 3) + "|"]
    for way, pairs in by_way(rows).items():
        cells = []
        for name in MEASURES:
            values = torch.tensor([row[name] for row in pairs.values()])
            low, high = bootstrap(values)
            cells.append(f"{values.mean():.3f} [{low:.3f}, {high:.3f}]")
        calls = next(iter(pairs.values()))["calls"]
        lines.append(f"| {way} | {len(pairs)} | {calls:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(rows: Sequence[dict[str, Any]]) -> str:
    """How far each way's mean is from that of what it varies, in per cent, with intervals over the same pairs."""
    ways = by_way(rows)
    lines = ["| | beside | " + " | ".join(MEASURES) + " |", "|---" * (len(MEASURES) + 2) + "|"]
    for way in WAYS:
        base = FAST if way.startswith(f"{FAST}, ") else OURS
        pairs = ways.get(way, {}).keys() & ways.get(base, {}).keys()
        if way == base or not pairs:
            continue
        cells = []
        for name in MEASURES:
            its, plain = (torch.tensor([ways[which][pair][name] for pair in sorted(pairs)]) for which in (way, base))
            share = 100 * (its - plain) / plain.mean()
            low, high = bootstrap(share)
            cells.append(f"{share.mean():+.1f} [{low:+.1f}, {high:+.1f}]")
        lines.append(f"| {way} | {base} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def wins(rows: Sequence[dict[str, Any]]) -> str:
    """In how many pairs StyleID is nearer than each other way, by each measure."""
    ways = by_way(rows)
    ours = ways.get(OURS, {})
    lines = [f"| {OURS} nearer than | " + " | ".join(MEASURES) + " |", "|---" * (len(MEASURES) + 1) + "|"]
    for way, its in ways.items():
        pairs = ours.keys() & its.keys()
        if way != OURS and pairs:
            counts = [sum(ours[pair][name] < its[pair][name] for pair in pairs) for name in MEASURES]
            lines.append(f"| {way} | " + " | ".join(f"{count} of {len(pairs)}" for count in counts) + " |")
    return "\n".join(lines)


def squares(paths: Sequence[Path], size: int) -> dict[str, Tensor]:
    """The middles of pictures, [3, size, size] in [-1, 1], by name."""
    return {path.stem: image_to_tensor(centre_crop(load_image(path), size, size)) for path in paths}


def show(maker: Maker, ways: Sequence[str], count: int, out: Path) -> None:
    """A sheet of some pairs: a row each, the content, the style, then what each way made whose pictures are there."""
    images, labels = list[Image.Image](), list[str]()
    contents, styles = list(maker.contents), list(maker.styles)
    ways = [way for way in ways if all(picture_of(out, way, c, s).is_file() for c in contents for s in styles)]
    for number in range(min(count, len(contents) * len(styles))):
        content = contents[number % len(contents)]
        style = styles[(number + number // len(contents)) % len(styles)]
        images += [tensor_to_image(x) for x in (maker.contents[content], maker.styles[style])]
        images += [load_image(picture_of(out, way, content, style)) for way in ways]
        labels += ["content", "style", *ways]
    save_image(make_grid(images, 2 + len(ways), labels), out / "sheet.png")


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--cnt", help="a picture or a folder, in place of --photographs")
    parser.add_argument("--sty", help="a picture or a folder, in place of --paintings")
    parser.add_argument("--photographs", nargs="+", default=PHOTOGRAPHS, metavar="NAME", help="of scikit-image")
    parser.add_argument("--paintings", nargs="+", default=PAINTINGS, metavar="NAME", help="of examples/paintings")
    parser.add_argument("--size", type=int, default=64, help="side of the squares in pixels")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--ways", nargs="+", choices=[*NAIVE, "latents", *WAYS], default=[*NAIVE, "latents", *WAYS])
    parser.add_argument("--shown", type=int, default=6, help="pairs on the sheet, 0 for none (%(default)s)")
    parser.add_argument("--ckpt", help="another model than the small one")
    parser.add_argument("--config", "--model_config", dest="model_config")
    parser.add_argument("--outdir", "--out", dest="out", type=Path, default=ROOT / "outputs" / "restyle_modes")
    options = parser.parse_args(arguments)
    contents = pictures_at(options.cnt, "content") if options.cnt else [photograph(x) for x in options.photographs]
    styles = pictures_at(options.sty, "style") if options.sty else [painting(x) for x in options.paintings]
    model, _ = open_model(options.ckpt, options.model_config)
    maker = Maker(model, squares(contents, options.size), squares(styles, options.size), options.steps)
    rows = measured(maker, options.ways, options.out)
    if options.shown > 0:
        show(maker, options.ways, options.shown, options.out)
    print(table(rows), differences(rows), wins(rows), sep="\n\n")


if __name__ == "__main__":
    main()
