"""What the inversion of a picture leaves: latents on the way, noise, and features; in memory or in a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ldm.control import CacheError, FeatureSource, FeatureStore, Joined
from ldm.control.files import LEVELS, level_names, levels_field, open_cache, read_levels, save_cache
from ldm.models.diffusion.loop import Level
from ldm.modules.diffusionmodules.levels import index_among
from ldm.util import UserError

KIND = "inversion latents"
NOISE = "noise"
PARTNER = "partner/"  # before the level's name, of the second latent of a coupled inversion


@dataclass(frozen=True)
class Inversion:
    """What the inversion of a batch of pictures left.

    Attributes:
        visited: the latents [B, C, h, w] that the network saw, by index of the level, upwards; the first is the clean
            one.
        told: what the network was told at each index.
        noise: where the inversion ended [B, C, h, w].
        store: features of the chosen sites, a source for modes; None: none were kept, they are to be computed again.
        partners: of an inversion that couples two latents (EDICT), the other one at each index.
    """

    visited: Mapping[int, Tensor]
    told: Mapping[int, float]
    noise: Tensor
    store: FeatureSource | None = None
    partners: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def timesteps(self) -> list[float]:
        """What the network was told, upwards."""
        return [self.told[index] for index in self.visited]

    @property
    def clean(self) -> Tensor:
        """The latents [B, C, h, w] that were inverted."""
        return next(iter(self.visited.values()))

    def seen(self, level: Level) -> Tensor:
        """The latent that the network saw at a level; features of that level are those of this latent.

        A level of a walk in other steps is the one that tells the network the same.

        Raises:
            UserError: the inversion did not visit it.
        """
        return self.visited[self._index(level)]

    def partner(self, level: Level) -> Tensor:
        """The other latent at a level, of an inversion that couples two.

        Raises:
            UserError: the inversion did not visit it, or has only one.
        """
        index = self._index(level)
        if index not in self.partners:
            raise UserError("this inversion did not couple two latents: it was made in another way")
        return self.partners[index]

    def after(self, level: Level) -> Tensor:
        """The latent after the step at a level.

        Raises:
            UserError: the inversion did not visit it.
        """
        order = list(self.visited)
        later = order[order.index(self._index(level)) + 1 :]
        return self.visited[later[0]] if later else self.noise

    def _index(self, level: Level) -> int:
        index = index_among(self.told, level.index, level.told)
        if index is None:
            raise UserError(f"the inversion in {len(self.visited)} steps did not visit timestep {level.told:g}")
        return index

    def without_features(self) -> Inversion:
        """The same latents; what uses them computes features again, beside its own batch."""
        return replace(self, store=None)

    def picture(self, index: int) -> Inversion:
        """One picture of the batch, as a batch of one.

        Raises:
            UserError: its features are in a store that cannot be taken apart.
        """
        one = slice(index, index + 1)
        store = self.store.picture(index) if isinstance(self.store, FeatureStore) else None
        if self.store is not None and store is None:
            raise UserError("only an inversion with a store of its own can be taken apart")
        visited, partners = (
            {level: latent[one] for level, latent in latents.items()} for latents in (self.visited, self.partners)
        )
        return Inversion(visited, self.told, self.noise[one], store, partners)

    @staticmethod
    def join(inversions: Sequence[Inversion]) -> Inversion:
        """Several inversions, of latents of one size, as one batch; features are not copied.

        Raises:
            UserError: they differ in size or steps, or some have features and others not.
        """
        first = inversions[0]
        if any(i.noise.shape[1:] != first.noise.shape[1:] or i.told != first.told for i in inversions):
            raise UserError("inversions of other sizes or numbers of steps cannot be one batch")
        stores = [i.store for i in inversions if i.store is not None]
        if len(stores) not in (0, len(inversions)):
            raise UserError("inversions with and without features cannot be one batch")
        visited = {level: torch.cat([i.visited[level] for i in inversions]) for level in first.visited}
        partners = {level: torch.cat([i.partners[level] for i in inversions]) for level in first.partners}
        noise = torch.cat([i.noise for i in inversions])
        return Inversion(visited, first.told, noise, Joined(stores) if stores else None, partners)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write the latents (not the features) as safetensors, named by timesteps, with ``metadata`` as text fields.

        Raises:
            UserError: a full disk or an unwritable folder; an older file survives.
        """
        names = level_names(self.told)
        tensors = {names[index]: latent for index, latent in self.visited.items()} | {NOISE: self.noise}
        tensors |= {PARTNER + names[index]: latent for index, latent in self.partners.items()}
        about = {key: str(value) for key, value in (metadata or {}).items()}
        save_cache(tensors, path, {**about, "kind": KIND, LEVELS: levels_field(names)})

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        expect: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
    ) -> Inversion:
        """What ``save`` wrote.

        Args:
            expect: text fields that the file must have.

        Raises:
            CacheError: the file is missing, truncated, holds something else, or was made of something else.
        """
        tensors, metadata = open_cache(path, KIND, expect)
        latents = {name: tensor.clone().to(device) for name, tensor in tensors.items()}
        if NOISE not in latents:
            raise CacheError(f"'{path}' holds no {KIND}")
        noise = latents.pop(NOISE)
        partners = {name: latents.pop(name) for name in list(latents) if name.startswith(PARTNER)}
        levels = read_levels(latents, metadata, path, otherwise=lambda timesteps: range(len(timesteps))[::-1])
        upwards = sorted(levels, key=lambda name: -levels[name][0])
        visited = {levels[name][0]: latents[name] for name in upwards}
        told = {levels[name][0]: levels[name][1] for name in upwards}
        others = {levels[name][0]: partners[PARTNER + name] for name in upwards if PARTNER + name in partners}
        return cls(visited, told, noise, partners=others)
