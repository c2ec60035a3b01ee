"""What a network computed on the way: features by site, timestep and name, in memory or in a safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.checkpoint import read_metadata, read_state_dict, save_state_dict
from ldm.control.seam import Call
from ldm.util import UserError

NAMES = ("q", "k", "v", "sim", "probs", "residual")
KIND = "attention features"

Key = tuple[str, int, str]


class CacheError(UserError):
    """A cache on disk that cannot be used: damaged, of another kind, or made of something else."""


class FeatureStore:
    """Features [b ...] under the key (site, timestep, name); a source for modes that inject them.

    Shapes: q, k, v [b h n d]; sim (scaled logits) and probs (after softmax) [b h n m]; residual [b c h w].
    """

    def __init__(
        self,
        dtype: torch.dtype | None = torch.float16,  # what features are kept in; None: as they come
        device: torch.device | str | None = None,  # where they are kept; None: where they were computed
    ) -> None:
        self.dtype = dtype
        self.device = device
        self.metadata: dict[str, str] = {}
        self._features: dict[Key, Tensor] = {}

    def put(self, site: str, timestep: int, name: str, feature: Tensor) -> None:
        """Keep a feature; one that was there under the same key is replaced."""
        kept = feature.detach().to(device=self.device, dtype=self.dtype)
        if kept.untyped_storage().nbytes() > kept.nbytes:  # a view would keep all of what it shows a part of
            kept = kept.clone(memory_format=torch.contiguous_format)
        self._features[site, timestep, name] = kept

    def get(self, site: str, timestep: int, name: str) -> Tensor:
        """The feature under a key.

        Raises:
            UserError: it is not there; the message says what is.
        """
        try:
            return self._features[site, timestep, name]
        except KeyError as error:
            raise UserError(self._missing(site, timestep, name)) from error

    def read(self, call: Call, name: str, own: Tensor) -> Tensor:
        """As a source: what was kept for the call's site and timestep."""
        return self.get(call.site, call.timestep, name).to(own.device, own.dtype)

    def picture(self, index: int) -> FeatureStore:
        """The features of one picture of the batch, as a batch of one; not copied."""
        store = FeatureStore(self.dtype, self.device)
        store.metadata = dict(self.metadata)
        store._features = {key: feature[index : index + 1] for key, feature in self._features.items()}
        return store

    def clear(self) -> None:
        self._features.clear()

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
    def timesteps(self) -> list[int]:
        """Timesteps, ascending."""
        return sorted({timestep for _, timestep, _ in self._features})

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

        Besides ``metadata`` (as text) the fields are ``kind``, and ``sites``, ``timesteps`` and ``names`` as JSON.

        Raises:
            UserError: a full disk or an unwritable folder; an older file survives.
        """
        if Path(path).suffix != ".safetensors":
            raise UserError(f"cannot write '{path}': features go into a .safetensors file")
        tensors = {f"{site}/{timestep}/{name}": feature for (site, timestep, name), feature in self._features.items()}
        lists = {"sites": self.sites, "timesteps": self.timesteps, "names": self.names}
        about = {"kind": KIND, **{name: json.dumps(value) for name, value in lists.items()}}
        save_state_dict(tensors, path, {**{k: str(v) for k, v in (metadata or {}).items()}, **about})

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
        for name, tensor in tensors.items():
            site, timestep, feature = _split(name, path)
            store._features[site, timestep, feature] = tensor
        return store

    def _missing(self, site: str, timestep: int, name: str) -> str:
        wanted = f"no {name} of '{site}' at timestep {timestep} was saved"
        if not self._features:
            return f"{wanted}: there are no features at all"
        if name not in self.names:
            return f"{wanted}: the features are {', '.join(self.names)}"
        if site not in self.sites:
            return f"{wanted}: the sites are {', '.join(self.sites)}"
        return f"{wanted}: the timesteps are {_brief(self.timesteps)}"


def open_cache(
    path: str | os.PathLike[str], kind: str, expect: Mapping[str, Any] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and text fields of a cache file of one kind.

    Raises:
        CacheError: the file is missing, truncated, holds something else, or was made of something else.
    """
    try:
        metadata = read_metadata(path)
        if metadata.get("kind") != kind:
            raise CacheError(f"'{path}' holds no {kind}")
        tensors = dict(read_state_dict(path).items())
    except CacheError:
        raise
    except UserError as error:
        raise CacheError(f"the cache cannot be used: {error}") from error
    for field, value in (expect or {}).items():
        if metadata.get(field) != str(value):
            raise CacheError(f"'{path}' was made with {field} {metadata.get(field)}, not {value}")
    return tensors, metadata


def _split(name: str, path: str | os.PathLike[str]) -> Key:
    parts = name.split("/")
    if len(parts) != 3 or not parts[1].isdecimal():
        raise CacheError(f"'{path}' holds '{name}', which is not named site/timestep/name")
    return parts[0], int(parts[1]), parts[2]


def _brief(values: Sequence[int], ends: int = 3) -> str:
    texts = [str(value) for value in values]
    return ", ".join(texts if len(texts) <= 2 * ends else [*texts[:ends], "...", *texts[-ends:]])
