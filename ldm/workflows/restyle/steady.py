"""What keeps a restyled film steady: where its content stays as it is from frame to frame, so does the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.control.shares import check_share
from ldm.models.diffusion.loop import Level

WHAT = "--steady, how far what does not move stays as it was,"
STEADY = 1.0  # of a film, where nothing is said
STILL = 0.4  # of a latent's deviation: a cell that changes by more moves
REACH = 1  # cells around one that moves that move with it: what is painted around a thing must not stay behind it

CLEAN, STATE = "clean", "state/"  # names of the tensors that the next frame needs

ARRIVED = -1  # in place of an index


@dataclass
class Steady:
    """Carries a film's restyling from frame to frame, one after the other, in portions of any number of frames.

    A cell of the latent whose content is the one of the frame before takes over that frame's latent at every step. Left
    to themselves all cells change with every movement anywhere, since the network looks at all of a picture, and what
    stands still flickers.

    Attributes:
        share: how far it goes, 0 to 1.
        clean: the content's latent [1, C, h, w] of the last frame so far.
        states: that frame's latents on its way, by the index of their level, and where they arrived.
    """

    share: float
    clean: Tensor | None = None
    states: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UserError for a share outside of [0, 1]."""
        check_share(WHAT, self.share)

    def portion(self, clean: Tensor) -> Portion:
        """The next frames, whose contents have these latents [B, C, h, w]."""
        clean = clean.float()
        before = clean[:1] if self.clean is None else self.clean.to(clean)
        same = self.share * sameness(clean, torch.cat([before, clean[:-1]]))
        if self.clean is None:
            same[0] = 0
        self.clean = clean[-1:].clone()
        return Portion(self, same)

    def tensors(self) -> dict[str, Tensor]:
        """What the next portion needs, by name."""
        of_content = {} if self.clean is None else {CLEAN: self.clean}
        return of_content | {f"{STATE}{index}": state for index, state in self.states.items()}

    @classmethod
    def of(cls, share: float, tensors: Mapping[str, Tensor]) -> Steady:
        """As it was when ``tensors`` were taken of it."""
        states = {int(name.removeprefix(STATE)): x for name, x in tensors.items() if name.startswith(STATE)}
        return cls(share, tensors.get(CLEAN), states)


@dataclass
class Portion:
    """Frames that are made together.

    Attributes:
        same: how far each cell of a frame takes over the result of the frame before, [B, 1, h, w].
    """

    film: Steady
    same: Tensor

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """Before each step: latents [B, C, h, w] that stay where their contents stay."""
        return self._held(x, level.index)

    def arrived(self, x: Tensor) -> Tensor:
        """The same after the last step."""
        return self._held(x, ARRIVED)

    def _held(self, x: Tensor, index: int) -> Tensor:
        before = self.film.states.get(index, x[0]).to(x)
        rows: list[Tensor] = []
        for row, same in zip(x, self.same.to(x), strict=True):
            before = torch.lerp(row, before, same)
            rows.append(before)
        self.film.states[index] = before
        return torch.stack(rows)


def sameness(here: Tensor, before: Tensor) -> Tensor:
    """1 in the cells [B, 1, h, w] where two latents [B, C, h, w] and what lies around are alike, falling to 0."""
    change = (here - before).square().mean(dim=1, keepdim=True).sqrt()
    deviation = before.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
    around = F.max_pool2d(change / deviation, 2 * REACH + 1, 1, REACH)
    return torch.exp(-((around / STILL) ** 2))
