"""What somebody who looks inside chooses: places in a picture, layers, timesteps, heads, words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.control import Call, Sites, sites
from ldm.control.seam import Clock
from ldm.modules.attention import scaled_dot_product_attention
from ldm.pictures.sizing import Picture
from ldm.util import UserError
from ldm.workflows.guide.places import places
from ldm.workflows.inversion.invert import unet_of

MOST_SPOTS = 256
Size = tuple[int, int]


@dataclass(frozen=True)
class Spot:
    """A place in a picture, in pixels of the size at which the model gets it, from the upper left corner."""

    x: float
    y: float

    def cell(self, size: Size, grid: Size) -> int:
        """The position of the feature map ``grid`` (height, width) that this place of a picture lies in."""
        row, column = int(self.y * grid[0] / size[0]), int(self.x * grid[1] / size[1])
        return min(row, grid[0] - 1) * grid[1] + min(column, grid[1] - 1)


def read_spots(texts: Sequence[str], picture: Picture) -> list[Spot]:
    """Places "x,y" in pixels of the picture's upright file, as an image viewer shows them.

    Raises:
        UserError: not two numbers, outside of the picture, or in what is cut off.
    """
    spots = []
    for text in texts:
        try:
            x, y = (float(part) for part in text.split(","))
        except ValueError as error:
            raise UserError(f"'{text}' should be x,y in pixels, such as 120,80") from error
        height, width = picture.original
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(f"the position {text} lies outside of '{picture.path}', which has {width}x{height} pixels")
        spots.append(_scaled(x, y, picture, text))
    return spots


def _scaled(x: float, y: float, picture: Picture, text: str) -> Spot:
    """The same place at the size at which the picture is used, the middle of a pixel in either."""
    (height, width), (used_h, used_w) = picture.original, picture.size
    across, down = used_w / width, used_h / height
    left = top = 0.0
    if picture.sizing.crop is not None:
        across = down = max(across, down)
        left, top = (width * across - used_w) / 2, (height * down - used_h) / 2
    spot = Spot((x + 0.5) * across - left, (y + 0.5) * down - top)
    if not (0 <= spot.x < used_w and 0 <= spot.y < used_h):
        raise UserError(f"the position {text} lies in the part of '{picture.path}' that is cut off")
    return spot


def spots_in(mask: Tensor | None, size: Size, factor: int) -> list[Spot]:
    """The middle of each position of the latent that a mask [H, W] marks by at least a half; all without a mask.

    Raises:
        UserError: there is none.
    """
    grid = (size[0] // factor, size[1] // factor)
    shares = torch.ones(grid) if mask is None else F.interpolate(mask[None, None].float(), size=grid, mode="area")[0, 0]
    marked = (shares >= 0.5).nonzero().tolist()
    if not marked:
        raise UserError("the mask marks no position of the latent by at least a half; a larger one would")
    return [Spot((column + 0.5) * factor, (row + 0.5) * factor) for row, column in marked]


def draw_spots(spots: Sequence[Spot], count: int, seed: int) -> list[Spot]:
    """Some of the places, at random, none twice.

    Raises:
        UserError: there are not so many.
    """
    if not 1 <= count <= len(spots):
        raise UserError(f"of {len(spots)} positions 1 to {len(spots)} can be drawn at random, got {count}")
    chosen = np.random.default_rng(seed).choice(len(spots), size=count, replace=False)
    return [spots[int(index)] for index in sorted(chosen)]


def check_count(spots: Sequence[Spot]) -> list[Spot]:
    """``spots`` as a list.

    Raises:
        UserError: they are more than logits of all keys could be kept for.
    """
    if len(spots) > MOST_SPOTS:
        raise UserError(f"{len(spots)} positions are too many, {MOST_SPOTS} the most: draw some with --random N")
    return list(spots)


def grid_of(latent: Size, tokens: int) -> Size:
    """Height and width of the feature map with so many positions, of a latent (height, width)."""
    return Call("", scaled_dot_product_attention, Clock(size=latent)).grid(tokens)


def cells(spots: Sequence[Spot], size: Size, grid: Size) -> list[int]:
    """The positions of the places, each once."""
    return list(dict.fromkeys(spot.cell(size, grid) for spot in spots))


def choose_layers(model: Any, pattern: str, kind: str, among: Sites | None = None) -> Sites:
    """The layers of a pattern (see ``ldm.control.sites``).

    Raises:
        UserError: there are none, or one is not ``among`` those that a mode changes.
    """
    found = sites(unet_of(model), pattern, kind)
    strange = [name for name in found if among is not None and name not in among.names]
    if strange and among is not None:
        raise UserError(f"attention is not changed at '{strange[0]}', but at {', '.join(among)} (see --attn_layer)")
    return found


def choose_timesteps(text: str | None, available: Sequence[float], count: int) -> list[float]:
    """The timesteps of a comma list; without one ``count`` of those there are, evenly spread; the noisiest first.

    Raises:
        UserError: no numbers, or one that is not visited.
    """
    known = sorted(available, reverse=True)
    if text is None:
        places = np.linspace(0, len(known) - 1, min(count, len(known)))
        return [known[round(place)] for place in places]
    try:
        wanted = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--timesteps takes numbers like 981,501,1, got '{text}'") from error
    for timestep in wanted:
        if timestep not in known:
            near = min(known, key=lambda t: abs(t - timestep))
            raise UserError(f"timestep {timestep:g} is not visited in {len(known)} steps; the nearest is {near:g}")
    return [timestep for timestep in known if timestep in wanted]


def choose_heads(text: str | None, model: Any, layers: Sites) -> list[int] | None:
    """The heads of a comma list; None means all.

    Raises:
        UserError: no numbers, or a layer has no such head.
    """
    if text is None:
        return None
    wanted = _numbers(text, "heads", "0,1")
    for name in layers:
        module: Any = unet_of(model).get_submodule(name)
        count = getattr(module, "heads", None) or module.num_heads
        for head in wanted:
            if head >= count:
                raise UserError(f"there is no head {head} at '{name}', which has {count}, counted from 0")
    return list(dict.fromkeys(wanted))


def _numbers(text: str, what: str, example: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--{what} takes numbers like {example}, got '{text}'")
    return [int(part) for part in parts]


def word_positions(model: Any, prompt: str, word: str) -> list[int]:
    """Where in the context the tokens of a word are, everywhere that it stands in the prompt.

    Raises:
        UserError: the model reads no text, or the prompt does not have the word.
    """
    return [place for occurrence in places(model, prompt, word) for place in occurrence]


def short_layer(name: str) -> str:
    """A layer's name as it fits beside a picture: ``output_blocks.6.1.transformer_blocks.0.attn1`` -> ``output 6``."""
    parts = name.split(".")
    block = parts[0].removesuffix("_blocks").removesuffix("_block")
    inner = f".{parts[4]}" if len(parts) > 5 and parts[4] != "0" else ""
    return f"{block} {parts[1]}{inner}" if parts[0] != "middle_block" else f"{block}{inner}"


def nats(probabilities: Tensor) -> Tensor:
    """Entropy over the last dimension, in nats; between 0 and log of its length."""
    return -torch.special.xlogy(probabilities, probabilities).sum(dim=-1)
