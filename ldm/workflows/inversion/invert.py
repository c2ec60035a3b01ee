"""A latent to its noise by DDIM inversion, keeping what a later run needs: latents on the way, or features."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldm.checkpoint import save_state_dict
from ldm.control import CacheError, FeatureStore, Joined, Save, SaveResidual, Sites, Source, attention_mode
from ldm.control.features import open_cache
from ldm.control.seam import Mode
from ldm.models.diffusion.loop import Snapshot
from ldm.models.diffusion.samplers.ddim import inversion_levels, invert
from ldm.util import UserError

KIND = "inversion latents"
NOISE = "noise"


@dataclass(frozen=True)
class Inversion:
    """What the inversion of a batch of pictures left.

    Attributes:
        visited: the latents [B, C, h, w] that the network saw, by timestep, ascending; the first is the clean one.
        noise: where the inversion ended [B, C, h, w].
        store: features of the chosen sites, a source for modes; None: none were kept, they are to be computed again.
    """

    visited: Mapping[int, Tensor]
    noise: Tensor
    store: Source | None = None

    @property
    def timesteps(self) -> list[int]:
        """The timesteps at which the network was asked, ascending."""
        return list(self.visited)

    def seen(self, timestep: int) -> Tensor:
        """The latent that the network saw at a timestep; features of that timestep are those of this latent.

        Raises:
            UserError: the inversion did not visit it.
        """
        if timestep not in self.visited:
            raise UserError(f"the inversion in {len(self.visited)} steps did not visit timestep {timestep}")
        return self.visited[timestep]

    def after(self, timestep: int) -> Tensor:
        """The latent after the step at a timestep.

        Raises:
            UserError: the inversion did not visit it.
        """
        self.seen(timestep)
        later = self.timesteps[self.timesteps.index(timestep) + 1 :]
        return self.visited[later[0]] if later else self.noise

    def without_features(self) -> Inversion:
        """The same latents; what uses them computes features again, beside its own batch."""
        return Inversion(self.visited, self.noise)

    def picture(self, index: int) -> Inversion:
        """One picture of the batch, as a batch of one."""
        one = slice(index, index + 1)
        store = self.store.picture(index) if isinstance(self.store, FeatureStore) else None
        if self.store is not None and store is None:
            raise UserError("only an inversion with a store of its own can be taken apart")
        return Inversion({t: latent[one] for t, latent in self.visited.items()}, self.noise[one], store)

    @staticmethod
    def join(inversions: Sequence[Inversion]) -> Inversion:
        """Several inversions, of latents of one size, as one batch; features are not copied.

        Raises:
            UserError: they differ in size or steps, or some have features and others not.
        """
        first = inversions[0]
        if any(i.noise.shape[1:] != first.noise.shape[1:] or i.timesteps != first.timesteps for i in inversions):
            raise UserError("inversions of other sizes or numbers of steps cannot be one batch")
        stores = [i.store for i in inversions if i.store is not None]
        if len(stores) not in (0, len(inversions)):
            raise UserError("inversions with and without features cannot be one batch")
        visited = {t: torch.cat([i.visited[t] for i in inversions]) for t in first.visited}
        noise = torch.cat([i.noise for i in inversions])
        return Inversion(visited, noise, Joined(stores) if stores else None)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write the latents (not the features) as safetensors, with ``metadata`` as text fields.

        Raises:
            UserError: a full disk or an unwritable folder; an older file survives.
        """
        tensors = {str(t): latent for t, latent in self.visited.items()} | {NOISE: self.noise}
        save_state_dict(tensors, path, {**{k: str(v) for k, v in (metadata or {}).items()}, "kind": KIND})

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
        tensors, _ = open_cache(path, KIND, expect)
        latents = {name: tensor.clone().to(device) for name, tensor in tensors.items()}
        if NOISE not in latents or not all(name.isdecimal() for name in latents if name != NOISE):
            raise CacheError(f"'{path}' holds no {KIND}")
        noise = latents.pop(NOISE)
        return cls({t: latents[str(t)] for t in sorted(map(int, latents))}, noise)


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
    timesteps: Collection[int] | None = None,
    dtype: torch.dtype | None = torch.float16,
    device: torch.device | str | None = None,
    callback: Callable[[Snapshot], None] | None = None,
    progress: bool = False,
) -> Inversion:
    """Invert latents [B, C, h, w] under one context [1, N, D], and keep features of what the network did.

    Args:
        sites, what: attention to keep ("q" of a content, "kv" of a style, "qkv"); None keeps none.
        detail: residual sites to keep.
        timesteps: keep features only at these, for example those that ``executed_timesteps`` gives.
        dtype, device: what features are kept in, and where; None as they come.
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
    visits = [level.t for level in inversion_levels(model.schedule, steps)][:-1]
    following = dict(itertools.pairwise(visits))
    visited = {visits[0]: latents.float()}

    def keep(step: Snapshot) -> None:
        if step.t in following:
            visited[following[step.t]] = step.x
        if callback is not None:
            callback(step)

    with attention_mode(unet_of(model), modes):
        noise = invert(model, latents, context, steps=steps, callback=keep, progress=progress)
    return Inversion(visited, noise, store if modes else None)
