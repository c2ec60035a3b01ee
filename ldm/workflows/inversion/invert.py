"""A latent to its noise by DDIM inversion, keeping what a later run needs: latents on the way, or features."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ldm.control import CacheError, FeatureSource, FeatureStore, Joined, Save, SaveResidual, Sites, attention_mode
from ldm.control.files import LEVELS, level_names, levels_field, open_cache, read_levels, save_cache
from ldm.control.seam import Mode
from ldm.models.diffusion.loop import Level, Snapshot
from ldm.models.diffusion.samplers.fixed_point import invert
from ldm.modules.diffusionmodules.levels import index_among
from ldm.util import UserError

KIND = "inversion latents"
NOISE = "noise"


@dataclass(frozen=True)
class Inversion:
    """What the inversion of a batch of pictures left.

    Attributes:
        visited: the latents [B, C, h, w] that the network saw, by index of the level, upwards; the first is the clean
            one.
        told: what the network was told at each index.
        noise: where the inversion ended [B, C, h, w].
        store: features of the chosen sites, a source for modes; None: none were kept, they are to be computed again.
    """

    visited: Mapping[int, Tensor]
    told: Mapping[int, float]
    noise: Tensor
    store: FeatureSource | None = None

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
        visited = {level: latent[one] for level, latent in self.visited.items()}
        return Inversion(visited, self.told, self.noise[one], store)

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
        noise = torch.cat([i.noise for i in inversions])
        return Inversion(visited, first.told, noise, Joined(stores) if stores else None)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write the latents (not the features) as safetensors, named by timesteps, with ``metadata`` as text fields.

        Raises:
            UserError: a full disk or an unwritable folder; an older file survives.
        """
        names = level_names(self.told)
        tensors = {names[index]: latent for index, latent in self.visited.items()} | {NOISE: self.noise}
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
        levels = read_levels(latents, metadata, path, otherwise=lambda timesteps: range(len(timesteps))[::-1])
        upwards = sorted(levels, key=lambda name: -levels[name][0])
        visited = {levels[name][0]: latents[name] for name in upwards}
        return cls(visited, {levels[name][0]: levels[name][1] for name in upwards}, noise)


def unet_of(model: Any) -> nn.Module:
    """The UNet of a latent diffusion model."""
    return model.model.diffusion_model


@torch.no_grad()
def invert_with_features(
    model: Any,
    latents: Tensor,
    context: Any,
    *,
    steps: int = 50,
    sites: Sites | None = None,
    what: str | Sequence[str] = "qkv",
    detail: Sites | None = None,
    timesteps: Collection[float] | None = None,
    dtype: torch.dtype | None = torch.float16,
    device: torch.device | str | None = None,
    rounds: int = 0,
    callback: Callable[[Snapshot], None] | None = None,
    progress: bool = False,
) -> Inversion:
    """Invert latents [B, C, h, w] under one context [1, N, D], and keep features of what the network did.

    Args:
        sites, what: attention to keep ("q" of a content, "kv" of a style, "qkv"); None keeps none.
        detail: residual sites to keep.
        timesteps: keep features only at these, for example those that ``executed_timesteps`` gives.
        dtype, device: what features are kept in, and where; None as they come.
        rounds: of the iteration that makes each step one that sampling undoes; 0: DDIM's inversion as it is.
        callback: gets a ``Snapshot`` after each step.

    Raises:
        UserError: the number of steps does not fit the schedule.
    """
    store = FeatureStore(dtype, device)
    modes: dict[Sites, Mode] = {}
    if sites is not None:
        modes[sites] = Save(store, what, timesteps)
    if detail is not None:
        modes[detail] = SaveResidual(store, timesteps)
    visits = model.schedule.upwards(steps)[:-1]
    following = {level.index: later.index for level, later in itertools.pairwise(visits)}
    visited = {visits[0].index: latents.float()}

    def keep(step: Snapshot) -> None:
        if step.level.index in following:
            visited[following[step.level.index]] = step.x
        if callback is not None:
            callback(step)

    with attention_mode(unet_of(model), modes):
        noise = invert(model, latents, context, steps=steps, rounds=rounds, callback=keep, progress=progress)
    return Inversion(visited, {level.index: level.told for level in visits}, noise, store if modes else None)
