"""Where queries look, as maps: attention written out, with a gradient."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.control.registry import register
from ldm.control.seam import Call
from ldm.control.softmax import logits
from ldm.util import UserError


class AttentionMaps:
    """Probabilities [b h n m] under (site, index of the level), with the height and width that n positions have.

    ``told`` has what the network was told at each index.
    """

    def __init__(self) -> None:
        self.probs: dict[tuple[str, int], Tensor] = {}
        self.told: dict[int, float] = {}
        self.grids: dict[str, tuple[int, int]] = {}

    def clear(self) -> None:
        self.probs.clear()
        self.told.clear()

    def heat(
        self,
        keys: int | Sequence[int],  # positions of the words
        size: tuple[int, int] | None = None,  # None: that of the largest map
        sites: Collection[str] | None = None,
        timesteps: Collection[float] | None = None,
    ) -> Tensor:
        """How much each place looks at some keys together, [b, H, W]: mean over heads, sites and levels.

        Raises:
            UserError: nothing was observed there, or there is no such key.
        """
        wanted = [
            (site, probs)
            for (site, index), probs in self.probs.items()
            if (sites is None or site in sites) and (timesteps is None or self.told[index] in timesteps)
        ]
        if not wanted:
            raise UserError("no attention was observed at these sites and timesteps")
        size = size or max(self.grids[site] for site, _ in wanted)
        keys = [keys] if isinstance(keys, int) else list(keys)
        maps = [_one_map(probs, keys, self.grids[site], size, site) for site, probs in wanted]
        return torch.stack(maps).mean(dim=0)


def _one_map(probs: Tensor, keys: list[int], grid: tuple[int, int], size: tuple[int, int], site: str) -> Tensor:
    count = probs.shape[-1]
    wrong = next((key for key in keys if not 0 <= key < count), None)
    if wrong is not None:
        raise UserError(f"there is no key {wrong} at '{site}', which has {count}, counted from 0")
    seen = probs[..., keys].sum(dim=-1).mean(dim=1).unflatten(-1, grid)
    return F.interpolate(seen[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


@register("observe")
class Observe:
    """Attention with an explicit softmax, whose probabilities are kept with their graph.

    It computes attention itself, so it should be the outermost mode of a site. Under gradient checkpointing (training)
    kept maps lose their graph.
    """

    def __init__(self, maps: AttentionMaps, timesteps: Collection[float] | None = None) -> None:
        self.maps = maps
        self.timesteps = None if timesteps is None else frozenset(timesteps)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, call: Call, scale: float | None = None) -> Tensor:
        if self.timesteps is not None and call.timestep not in self.timesteps:
            return call.inner(q, k, v, scale=scale)
        probs = logits(q, k, scale).softmax(dim=-1)
        self.maps.probs[call.site, call.index] = probs
        self.maps.told[call.index] = call.timestep
        self.maps.grids[call.site] = call.grid(q.shape[2])
        return probs.to(v.dtype) @ v
