"""How much restyled films flicker: with --steady and --keep_flat, frame by frame, and with keys of other frames.

    python -m benchmarks.film_flicker                     # 4 rendered films of 6 frames by 4 paintings, in some minutes
    python -m benchmarks.film_flicker --films 8 --frames 8 --size 128

Films are of the rendered world, where it is known which pixels never show the thing that moves. Of each way: the mean
difference between neighbouring frames, 0 to 255, over pixels of the background that are farther than ``APART`` from
the thing in every frame; and over the thing itself, where each frame is moved back by the known course first. Beside
them what the film and what the autoencoder alone give, and two measures of ``ldm.metrics.appearance`` that would tell
if less flicker were less style or less content: colours from the style, edges from the content. All ways have --fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import maximum_filter
from torch import Tensor

from benchmarks.bundled import painting
from ldm.arguments import Parser
from ldm.control import Sites, attention_mode, sites
from ldm.control.seam import Call
from ldm.metrics.appearance import measures
from ldm.pictures.film import Film as Frames
from ldm.pictures.film import write_film
from ldm.pictures.flat import keep_flat
from ldm.pictures.images import centre_crop, image_to_tensor, load_image, make_grid, tensor_to_image
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.inversion.invert import Inversion, invert_with_features, unet_of
from ldm.workflows.models import open_model
from ldm.workflows.restyle.layers import changed_layers
from ldm.workflows.restyle.recipe import Recipe
from ldm.workflows.restyle.start import beginning
from ldm.workflows.restyle.steady import Steady
from ldm.workflows.restyle.steps import sampled_timesteps, way_of
from ldm.workflows.restyle.stylise import stylise
from ldm.world.film import Film, FilmWorld, paint_film, silhouettes

ROOT = Path(__file__).resolve().parents[1]
PAINTINGS = ("van_gogh_auvers", "renoir_girls_at_the_piano", "hokusai_fan", "hiroshige_inokashira")
BY_FRAME, SHARED, STEADY = "frame by frame", "keys and values of the first frame and the one before", "--steady 1"
FLAT = ", --keep_flat 1"
WAYS = ("the film", "its autoencoder", BY_FRAME, BY_FRAME + FLAT, SHARED, STEADY, STEADY + FLAT)
MOTION = (60, 200)  # films that move, and not so far that no background is left
APART = 4  # pixels
SEED = 5
RECIPE = Recipe(fast=True)
PATTERNS = ("dotted", "plain", "striped", "checked")  # of which little is left in any way of restyling


def other_frames(q: Tensor, k: Tensor, v: Tensor, *, call: Call, scale: float | None = None) -> Tensor:
    """A mode: each row looks at its own keys, those of the first row and those of the row before."""
    keys, values = (torch.cat([x, x[:1].expand_as(x), torch.cat([x[:1], x[:-1]])], dim=2) for x in (k, v))
    return call.inner(q, keys, values, scale=scale)


@dataclass
class Maker:
    """A model that restyles frames [T, 3, S, S] in [-1, 1] in several ways."""

    model: Any

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.context = self.model.condition([""])
        self.layers = changed_layers(self.model).attention
        everywhere = sites(unet_of(self.model), "*", kind="self")
        self.others = Sites(tuple(name for name in everywhere if name not in self.layers.names))

    def inverted(self, pictures: Tensor, what: str) -> Inversion:
        schedule = self.model.schedule
        return invert_with_features(
            self.model, clean_latent(self.model, pictures), self.context, sites=self.layers, what=what,
            timesteps=sampled_timesteps(RECIPE, schedule), way=way_of(schedule, RECIPE),
        )  # fmt: skip

    @torch.no_grad()
    def films(self, frames: Tensor, style: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The frames [T, 3, S, S] of each way."""
        content, its = self.inverted(frames, "q"), self.inverted(style[None], "kv")
        start = beginning(self.model.schedule, content, [its], RECIPE)
        yield "the film", frames
        yield "its autoencoder", self.model.decode_first_stage(content.clean)
        for way in (BY_FRAME, SHARED, STEADY):
            portion = Steady(1.0).portion(content.clean) if way == STEADY else None
            with attention_mode(unet_of(self.model), {self.others: other_frames} if way == SHARED else {}):
                latents = stylise(self.model, start, content, [its], self.context, RECIPE,
                                  before=[portion] if portion else [])  # fmt: skip
            made = self.model.decode_first_stage(portion.arrived(latents) if portion else latents)
            yield way, made
            if way != SHARED:
                yield way + FLAT, kept_flat(made, frames)


def kept_flat(made: Tensor, content: Tensor) -> Tensor:
    """Results [T, 3, S, S], smooth where their contents are flat."""
    both = zip(map(tensor_to_image, made), map(tensor_to_image, content), strict=True)
    return torch.stack([image_to_tensor(keep_flat(*one)) for one in both])


def chosen(count: int, frames: int, size: int) -> list[Film]:
    """Films whose thing training never shows before their background, and which move."""
    world = FilmWorld("heldout", frames=frames, size=size, length=1000, seed=SEED)
    moving = [film for film in world.films(range(200)) if MOTION[0] < film.course.motion < MOTION[1]]
    return [film for film in moving if not any(word in film.ground for word in PATTERNS)][:count]


def flicker(frames: Tensor, seen: np.ndarray) -> float:
    """The mean change from frame to frame, 0 to 255, of pixels that show nothing but background in all frames.

    Args:
        seen: how much of each pixel the thing covers, [T, S, S].
    """
    still = torch.from_numpy(maximum_filter(seen.max(axis=0), 2 * APART + 1) <= 0)
    return float((frames[1:] - frames[:-1]).abs().mean(dim=1)[:, still].mean()) * 127.5


def flicker_of_thing(frames: Tensor, film: Film, seen: np.ndarray) -> float:
    """The mean change from frame to frame of the thing, each frame turned, scaled and moved to where it lies alike."""
    poses, side = film.course.poses(len(frames)), max(8, round(0.4 * frames.shape[-1]))
    angle = np.radians(poses.turn)
    cos, sin = np.cos(angle) * poses.side, np.sin(angle) * poses.side
    rows = [[cos, -sin, 2 * poses.x - 1], [sin, cos, 2 * poses.y - 1]]
    matrix = torch.from_numpy(np.stack([np.stack(row, axis=-1) for row in rows], axis=1).astype(np.float32))
    grid = F.affine_grid(matrix, [len(frames), 3, side, side], align_corners=False)
    lying = F.grid_sample(frames, grid, align_corners=False)
    inside = F.grid_sample(torch.from_numpy(seen)[:, None], grid, align_corners=False)[:, 0] > 0.95
    both = inside[1:] & inside[:-1]
    return float((lying[1:] - lying[:-1]).abs().mean(dim=1)[both].mean()) * 127.5


def measured(frames: Tensor, film: Film, content: Tensor, style: Tensor) -> dict[str, float]:
    """What the table has of a film."""
    frames = torch.stack([image_to_tensor(tensor_to_image(frame)) for frame in frames])
    seen = silhouettes(film, len(frames), frames.shape[-1])
    found = [measures(one, of, style) for one, of in zip(frames, content, strict=True)]
    looks = {name: float(np.mean([float(one[name]) for one in found])) for name in ("colour", "edges")}
    return {"background": flicker(frames, seen), "thing": flicker_of_thing(frames, film, seen), **looks}


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Means over films, and in brackets the least and the most."""
    names = list(next(iter(rows.values()))[0])
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for way, found in rows.items():
        values = {name: [one[name] for one in found] for name in names}
        cells = [f"{np.mean(x):.2f} [{min(x):.2f}, {max(x):.2f}]" for x in values.values()]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def beside(films: dict[str, Tensor], fps: float) -> Frames:
    """The film, frame by frame, and as it is with the small model, side by side and twice as large."""
    ways = [films[way] for way in ("the film", BY_FRAME, STEADY + FLAT)]
    rows = [make_grid([tensor_to_image(frame) for frame in frames], 3) for frames in zip(*ways, strict=True)]
    return Frames([row.resize((2 * row.width, 2 * row.height), Image.Resampling.BICUBIC) for row in rows], fps)


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--films", type=int, default=4)
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--size", type=int, default=96, help="of the frames in pixels, a multiple of 16")
    parser.add_argument("--outdir", type=Path, default=ROOT / "outputs" / "film_flicker")
    options = parser.parse_args(arguments)
    options.outdir.mkdir(parents=True, exist_ok=True)
    maker = Maker(open_model()[0])
    rows: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for number, film in enumerate(chosen(options.films, options.frames, options.size)):
        content = torch.from_numpy(paint_film(film, options.frames, options.size)).permute(0, 3, 1, 2).contiguous()
        picture = load_image(painting(PAINTINGS[number % len(PAINTINGS)]))
        style = image_to_tensor(centre_crop(picture, options.size, options.size))
        made: dict[str, Tensor] = {}
        for way, frames in maker.films(content, style):
            made[way] = frames
            rows[way].append(measured(frames, film, content, style))
            print(f"{film.thing.name} before {film.ground}, {way}: {rows[way][-1]}", flush=True)
        write_film(beside(made, film.course.fps), options.outdir / f"{number}.gif")
    print(table(rows))


if __name__ == "__main__":
    main()
