"""What a network computed on the way: features by site, level and name, in memory or in a safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.control.files import LEVELS, CacheError, brief, level_names, levels_field, open_cache, read_levels, save_cache
from ldm.control.seam import Call
from ldm.modules.diffusionmodules.levels import index_among
from ldm.util import UserError

NAMES = ("q", "k", "v", "sim", "probs", "residual")
KIND = "attention features"

Key = tuple[str, int, str]


class FeatureStore:
    """Features [b ...] under the key (site, index of the level, name); a source for modes that inject them.

    What the network was told at each index is in ``told``. Features that were kept outside of a walk have the timestep
    for an index. Shapes: q, k, v [b h n d]; sim (scaled logits) and probs (after softmax) [b h n m]; residual
    [b c h w].
    """

    def __init__(
        self,
        dtype: torch.dtype | None = torch.float16,  # what features are kept in; None: as they come
        device: torch.device | str | None = None,  # where they are kept; None: where they were computed
    ) -> None:
        self.dtype = dtype
        self.device = device
        self.metadata: dict[str, str] = {}
        self.told: dict[int, float] = {}
        self._features: dict[Key, Tensor] = {}

    def put(self, site: str, index: int, name: str, feature: Tensor, told: float | None = None) -> None:
        """Keep a feature of a level, at which the network was ``told`` a number (None: the index).

        One that was there under the same key is replaced.
        """
        kept = feature.detach().to(device=self.device, dtype=self.dtype)
        if kept.untyped_storage().nbytes() > kept.nbytes:  # a view would keep all of what it shows a part of
            kept = kept.clone(memory_format=torch.contiguous_format)
        self._features[site, index, name] = kept
        self.told[index] = index if told is None else told

    def get(self, site: str, index: int, name: str) -> Tensor:
        """The feature under a key.

        Raises:
            UserError: it is not there; the message says what is.
        """
        try:
            return self._features[site, index, name]
        except KeyError as error:
            raise UserError(self._missing(site, self.told.get(index, index), name)) from error

    def at(self, site: str, timestep: float, name: str) -> Tensor:
        """The feature of the one level at which the network was told ``timestep``.

        Raises:
            UserError: it is not there, or there are several such levels.
        """
        index = index_among(self.told, None, timestep)
        if index is None:
            raise UserError(self._missing(site, timestep, name))
        return self.get(site, index, name)

    def read(self, call: Call, name: str, own: Tensor) -> Tensor:
        """As a source: what was kept for the call's site and level.

        Features of a walk in other steps, or of single calls, are those of the level that tells the same.

        Raises:
            UserError: nothing was kept there.
        """
        index = index_among(self.told, call.index, call.timestep)
        if index is None:
            raise UserError(self._missing(call.site, call.timestep, name))
        return self.get(call.site, index, name).to(own.device, own.dtype)

    def picture(self, index: int) -> FeatureStore:
        """The features of one picture of the batch, as a batch of one; not copied."""
        store = FeatureStore(self.dtype, self.device)
        store.metadata, store.told = dict(self.metadata), dict(self.told)
        store._features = {key: feature[index : index + 1] for key, feature in self._features.items()}
        return store

    def clear(self) -> None:
        self._features.clear()
        self.told.clear()

    def keys(self) -> Iterator[Key]:
        return iter(self._features)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._features)

    def __contains__(self, key: Key) -> bool:
        return key in self._features

    def __len__(self) -> int:
        return len(self._features)

    @property
    def sites(self) -> list[str]:
        """Names of the sites, in the order in which they came."""
        return list(dict.fromkeys(site for site, _, _ in self._features))

    @property
    def timesteps(self) -> list[float]:
        """What the network was told, ascending."""
        return sorted(set(self.told.values()))

    @property
    def names(self) -> list[str]:
        """Which of ``NAMES`` there are."""
        kept = {name for _, _, name in self._features}
        return [name for name in NAMES if name in kept]

    @property
    def nbytes(self) -> int:
        """Size of all features, in bytes."""
        return sum(feature.nbytes for feature in self._features.values())

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write a safetensors file: tensors ``site/timestep/name``, and text fields that say what is in it.

        Besides ``metadata`` (as text) the fields are ``kind``, and ``sites``, ``timesteps`` and ``names`` as JSON, and
        ``levels``: the index of each timestep's level (where several tell the network the same, see ``level_names``).

        Raises:
            UserError: a full disk or an unwritable folder; an older file survives.
        """
        if Path(path).suffix != ".safetensors":
            raise UserError(f"cannot write '{path}': features go into a .safetensors file")
        levels = level_names(self.told)
        tensors = {f"{site}/{levels[index]}/{name}": feature for (site, index, name), feature in self._features.items()}
        lists = {"sites": self.sites, "timesteps": self.timesteps, "names": self.names}
        about = {"kind": KIND, LEVELS: levels_field(levels)}
        about |= {name: json.dumps(value) for name, value in lists.items()}
        save_cache(tensors, path, {**{k: str(v) for k, v in (metadata or {}).items()}, **about})

    @classmethod
    def load(cls, path: str | os.PathLike[str], expect: Mapping[str, Any] | None = None) -> FeatureStore:
        """Features of a file, mapped into memory and read from the disk when they are used.

        Args:
            expect: text fields that the file must have, for example what the features depend on.

        Raises:
            CacheError: the file is missing, truncated, holds something else, or was made of something else.
        """
        tensors, metadata = open_cache(path, KIND, expect)
        store = cls(dtype=None)
        store.metadata = metadata
        parts = {name: _split(name, path) for name in tensors}
        levels = read_levels({level for _, level, _ in parts.values()}, metadata, path)
        for name, tensor in tensors.items():
            site, level, feature = parts[name]
            index, told = levels[level]
            store._features[site, index, feature] = tensor
            store.told[index] = told
        return store

    def _missing(self, site: str, timestep: float, name: str) -> str:
        wanted = f"no {name} of '{site}' at timestep {timestep:g} was saved"
        if not self._features:
            return f"{wanted}: there are no features at all"
        if name not in self.names:
            return f"{wanted}: the features are {', '.join(self.names)}"
        if site not in self.sites:
            return f"{wanted}: the sites are {', '.join(self.sites)}"
        return f"{wanted}: the timesteps are {brief(self.timesteps)}"


def _split(name: str, path: str | os.PathLike[str]) -> tuple[str, str, str]:
    parts = name.split("/")
    if len(parts) != 3:
        raise CacheError(f"'{path}' holds '{name}', which is not named site/timestep/name")
    return parts[0], parts[1], parts[2]
