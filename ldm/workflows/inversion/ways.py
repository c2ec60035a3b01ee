"""Ways to take a picture to noise, each with the steps of sampling that go with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ldm.models.diffusion.loop import Level, StepRule, beginning
from ldm.models.diffusion.samplers.bdia import Bdia, BdiaInversion
from ldm.models.diffusion.samplers.ddim import DDIM
from ldm.models.diffusion.samplers.edict import Edict, EdictInversion, doubled
from ldm.models.diffusion.samplers.fixed_point import FixedPoint
from ldm.models.diffusion.samplers.sparse import SparseDDIM
from ldm.workflows.inversion.inverted import Inversion

ROUNDS = 3  # that are enough for models that were not trained to be inverted


@dataclass(frozen=True)
class Way:
    """DDIM both ways, as the reference has it.

    Attributes:
        exact: sampling leads to the very latent that was inverted: it stops at the level where that was taken to be.
        label: what tells files of this way from the reference's.
    """

    exact: ClassVar[bool] = False
    label: ClassVar[str] = ""

    def up(self) -> StepRule:
        """The steps of the inversion, whose state begins with ``begin``."""
        return FixedPoint(0)

    def begin(self, latents: Tensor) -> Tensor:
        """The state [B, C or 2C, h, w] from which latents [B, C, h, w] are inverted."""
        return latents.float()

    def down(self, first: Level, upwards: Sequence[Level], eta: float) -> StepRule:
        """The steps of sampling from ``first`` on, after an inversion that went along ``upwards``."""
        return DDIM(eta)

    def asks(self, levels: Sequence[Level]) -> list[Level]:
        """Those of some levels at which sampling asks the network."""
        return list(levels)

    def state(self, inversion: Inversion, level: Level) -> Tensor:
        """What sampling has at a level [B, C or 2C, h, w] if nothing but the inversion is undone."""
        return inversion.seen(level)

    def start(self, inversion: Inversion, first: Level, end: Level) -> Tensor:
        """Where sampling begins, at ``first``, of an inversion that ended at ``end``.

        The reference's is the end of the inversion, a stride or two beyond the first level that is sampled, as if it
        were there: it has too little signal, so that the mean of a picture shrinks. Others begin with ``state``.
        Where latents grow with their noise (levels of sigma), that end is scaled to what they are at the first level.
        """
        return beginning(inversion.noise, first, of=end)


@dataclass(frozen=True)
class Refined(Way):
    """Steps upwards that are solved by iteration, so that DDIM's steps undo them.

    Attributes:
        rounds: how often each is tried; 0 is DDIM's inversion, sampled from the level where sampling begins.
    """

    rounds: int = ROUNDS

    @property
    def label(self) -> str:  # type: ignore[override]
        return f"_{self.rounds}_mixed"

    def up(self) -> StepRule:
        return FixedPoint(self.rounds)

    def start(self, inversion: Inversion, first: Level, end: Level) -> Tensor:
        return self.state(inversion, first)


@dataclass(frozen=True)
class Coupled(Way):
    """EDICT: two latents that are asked for in turn; twice the calls, in sampling too."""

    exact: ClassVar[bool] = True
    label: ClassVar[str] = "_edict"

    def up(self) -> StepRule:
        return EdictInversion()

    def begin(self, latents: Tensor) -> Tensor:
        return doubled(latents.float())

    def down(self, first: Level, upwards: Sequence[Level], eta: float) -> StepRule:
        return Edict()

    def state(self, inversion: Inversion, level: Level) -> Tensor:
        return torch.cat([inversion.seen(level), inversion.partner(level)], dim=1)

    def start(self, inversion: Inversion, first: Level, end: Level) -> Tensor:
        return self.state(inversion, first)


@dataclass(frozen=True)
class Bidirectional(Way):
    """BDIA: steps from the last two latents; as many calls as DDIM's."""

    exact: ClassVar[bool] = True
    label: ClassVar[str] = "_bdia"

    def up(self) -> StepRule:
        return BdiaInversion()

    def down(self, first: Level, upwards: Sequence[Level], eta: float) -> StepRule:
        return Bdia(upwards[[level.index for level in upwards].index(first.index) + 1])

    def state(self, inversion: Inversion, level: Level) -> Tensor:
        return torch.cat([inversion.seen(level), inversion.after(level)], dim=1)

    def start(self, inversion: Inversion, first: Level, end: Level) -> Tensor:
        return self.state(inversion, first)


@dataclass(frozen=True)
class Sparse(Way):
    """The reference's walk, on which the network is asked at some levels; see ``SparseDDIM``."""

    asked: frozenset[int]

    @property
    def label(self) -> str:  # type: ignore[override]
        return f"_{len(self.asked)}_asked"

    def up(self) -> StepRule:
        return SparseDDIM(asked=self.asked)

    def down(self, first: Level, upwards: Sequence[Level], eta: float) -> StepRule:
        return SparseDDIM(eta, self.asked)

    def asks(self, levels: Sequence[Level]) -> list[Level]:
        return [level for level in levels if level.index in self.asked]


WAYS: Mapping[str, type[Way]] = {"ddim": Way, "fixed_point": Refined, "edict": Coupled, "bdia": Bidirectional}
