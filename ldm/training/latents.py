"""What cannot change is computed once: the autoencoder's view of every training picture.

For data sets whose picture is the same at every visit (no random crops or flips): a picture is encoded when the run
first comes to it, the posterior's moments are kept in half precision, and batches hold ``moments`` instead of the
picture. Text and numbers of an item are kept too; a data set whose captions change from visit to visit gives them in a
method ``labels(index) -> dict``, asked at each visit.

Loader processes read what is not known yet; the process that trains encodes it, keeps it, and finishes the batch.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ldm.finite import broken_weight
from ldm.training.latent_files import PLAIN, Latents, ingredients, is_made_from, read_latents, write_latents
from ldm.training.sampling import Position, SeededItems
from ldm.util import ConfigError, UserError

log = logging.getLogger(__name__)

MAKES = "data.params.cache_latents"
FIRST_WRITE = 1000  # items in the file for the first time; then again whenever they have doubled, and at the end


class Posterior(Protocol):
    """What a KL autoencoder's encoder gives."""

    parameters: Tensor


@runtime_checkable
class LatentModel(Protocol):
    """A model that trains on an autoencoder's latents; it has a ``first_stage_model`` and a ``first_stage_key`` too."""

    def encode_first_stage(self, x: Tensor) -> Any:
        """Pictures [B, 3, H, W] in [-1, 1] -> the posterior over their latents."""
        ...


@runtime_checkable
class Labelled(Protocol):
    """A data set whose items have something that changes from visit to visit, besides the picture."""

    def labels(self, index: int) -> dict[str, Any]:
        """What the item has besides the picture, without reading the picture."""
        ...


@runtime_checkable
class LabelledInBatches(Labelled, Protocol):
    """A labelled data set that is much faster at many items at once."""

    def labels_of(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """``labels`` of each item."""
        ...


@dataclass
class Item:
    """An item on its way to a batch."""

    index: int
    fields: dict[str, Any] | None  # what it holds besides its picture; None: the cache knows
    picture: Tensor | None = None  # [H, W, 3], where the cache does not have it
    name: bytes = b""  # of the picture, which tells it from others


class Unfinished:
    """A batch whose moments are not in it yet: its items, and their pictures in one tensor.

    Between processes a tensor costs a file of its own, whatever its size; so a batch has one, not one an item.
    """

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.fresh = [item for item in items if item.picture is not None]  # in the order of their pictures
        pictures = [item.picture for item in self.fresh if item.picture is not None]
        self.pictures = torch.stack(pictures) if pictures else None
        for item in self.fresh:
            item.picture = None


class CachedItems:
    """The items of a data set with ``moments`` [2C, h, w] in place of their picture, encoded as they are asked for.

    Args:
        data: a map-style data set.
        encode: pictures [B, H, W, 3] in [-1, 1] -> moments [B, 2C, h, w] in half precision, on the CPU.
        image_key: of the picture in an item.
        seed: of the run, for data sets that draw; the first visit's draws are kept.
    """

    def __init__(self, data: Any, encode: Callable[[Tensor], Tensor], image_key: str, seed: int = 23) -> None:
        self.data, self.encode, self.image_key = data, encode, image_key
        self.first_visits = SeededItems(data, Position(seed))
        self.known = torch.zeros(len(data), dtype=torch.bool).share_memory_()  # loader processes look at it
        self.which = torch.full((len(data),), -1, dtype=torch.long)
        self.moments: list[Tensor] = []
        self.rows: dict[bytes, int] = {}  # a picture's name -> its moments
        self.fields: list[dict[str, Any] | None] = [None] * len(data)
        self.keeps_fields = not isinstance(data, Labelled) and self._has_plain_fields()

    def __len__(self) -> int:
        return len(self.known)

    def items(self, position: Position) -> LoadedItems:
        """What a loader reads."""
        return LoadedItems(self, position)

    def finish(self, batch: Unfinished, device: torch.device) -> dict[str, Any]:
        """The batch as a model takes it, on ``device``; what is new in it is encoded and kept."""
        if batch.pictures is not None:
            self._keep(batch.fresh, batch.pictures)
        rows = []
        for item in batch.items:
            fields = self.fields[item.index] if item.fields is None else item.fields
            rows.append({**(fields or {}), "moments": self.moments[int(self.which[item.index])]})
        return pl.utilities.move_data_to_device(default_collate(rows), device)

    def take(self, latents: Latents) -> None:
        """Know what another run has encoded; what is known already stays."""
        if len(latents.which) != len(self) or (self.keeps_fields and latents.fields is None):
            return
        fresh = (latents.which >= 0) & (self.which < 0)
        before = len(self.moments)
        self.moments += latents.moments.unbind(0)
        self.which[fresh] = latents.which[fresh] + before
        if latents.names is not None:
            for row, name in enumerate(latents.names):
                self.rows.setdefault(name.numpy().tobytes(), before + row)
        if self.keeps_fields and latents.fields is not None:
            for index in fresh.nonzero().flatten().tolist():
                self.fields[index] = latents.fields[index]
        self.known |= fresh

    def latents(self) -> Latents:
        """All that is known, for a file."""
        names = torch.zeros(len(self.moments), 16, dtype=torch.uint8)
        for name, row in self.rows.items():
            names[row] = torch.frombuffer(bytearray(name), dtype=torch.uint8)
        return Latents(torch.stack(self.moments), self.which, self.fields if self.keeps_fields else None, names)

    def _keep(self, items: Sequence[Item], pictures: Tensor) -> None:
        """Encode the pictures [N, H, W, 3] of items that are new; a picture of several items is encoded once."""
        fresh: dict[bytes, int] = {}
        for place, item in enumerate(items):
            if item.name not in self.rows and not self.known[item.index]:
                fresh.setdefault(item.name, place)
        if fresh:
            new = pictures[list(fresh.values())]
            # a picture alone is convolved by another kernel, whose last bits differ: it goes twice
            moments = self.encode(new if len(new) > 1 else torch.cat([new, new]))
            for name, one in zip(fresh, moments, strict=False):
                self.rows[name] = len(self.moments)
                self.moments.append(one)
        for item in items:
            if not self.known[item.index]:
                self.which[item.index] = self.rows[item.name]
                self.fields[item.index] = item.fields if self.keeps_fields else None
                self.known[item.index] = True

    def _has_plain_fields(self) -> bool:
        first = self.first_visits[(0, 0)]
        return all(isinstance(value, PLAIN) for key, value in first.items() if key != self.image_key)


class LoadedItems(Dataset):
    """What loader processes read for a cache: fields, and pictures that it does not know."""

    def __init__(self, cache: CachedItems, position: Position) -> None:
        self.known, self.image_key, self.keeps_fields = cache.known, cache.image_key, cache.keeps_fields
        self.first_visits = cache.first_visits
        self.visits = SeededItems(fields_of(cache.data, cache.image_key), position)

    def __len__(self) -> int:
        return len(self.known)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Item]:
        unknown = list(dict.fromkeys(index for index, _ in keys if not self.known[index]))
        read = self.first_visits.__getitems__([(index, 0) for index in unknown]) if unknown else []
        found = dict(zip(unknown, read, strict=True))
        fields = [None] * len(keys) if self.keeps_fields else self.visits.__getitems__(keys)
        items = []
        for (index, _), held in zip(keys, fields, strict=True):
            item = Item(index, held)
            if index in found:
                item.picture = torch.as_tensor(found[index][self.image_key]).float()
                item.name = hashlib.blake2b(item.picture.contiguous().numpy().data, digest_size=16).digest()
                if self.keeps_fields:
                    item.fields = without(found[index], self.image_key)
            items.append(item)
        return items


class Fields(Dataset):
    """What the items of a data set hold besides their picture, as it is at a visit."""

    def __init__(self, data: Any, image_key: str) -> None:
        self.data, self.image_key = data, image_key

    def __getitem__(self, index: int) -> dict[str, Any]:
        if isinstance(self.data, Labelled):
            return self.data.labels(index)
        return without(self.data[index], self.image_key)


class FieldsInBatches(Fields):
    """The same, of a whole batch at once."""

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        return self.data.labels_of(indices)


def fields_of(data: Any, image_key: str) -> Fields:
    """What the items of a data set hold besides their picture, one by one or in batches, as the data set can."""
    return FieldsInBatches(data, image_key) if isinstance(data, LabelledInBatches) else Fields(data, image_key)


class LatentFile:
    """A cache's file: what earlier runs have encoded is in it, and what this one does gets there from time to time.

    Each process of a distributed run has a file of its own, and begins with what all of them hold.
    """

    def __init__(self, cache: CachedItems, path: Path, key: str, rank: int = 0) -> None:
        self.cache, self.key = cache, key
        self.path = path if rank == 0 else path.with_name(f"{path.stem}.{rank}{path.suffix}")
        for file in (path, *sorted(path.parent.glob(f"{path.stem}.[0-9]*{path.suffix}"))):
            if is_made_from(file, key):
                cache.take(read_latents(file))
        self.written = int(cache.known.sum())

    def write_if_due(self) -> None:
        """Write it where much has come since it was written."""
        if self.written == len(self.cache):
            return
        count = int(self.cache.known.sum())
        if count == len(self.cache) or count >= max(FIRST_WRITE, 2 * self.written):
            self.write()

    def write(self) -> None:
        """Write what is new in the cache, if anything is; a disk that is full costs the file, not the run."""
        count = int(self.cache.known.sum())
        if count == self.written:
            return
        self.written = count
        try:
            write_latents(self.cache.latents(), self.path, self.key)
        except UserError as error:
            log.warning("encoded pictures are not kept for later runs: %s", error)


def cache_latents(data: Any, trainer: pl.Trainer, seed: int, precision: str = "fp32") -> CachedItems:
    """A cache of the latents of a data set under the model that trains.

    Raises:
        ConfigError: the model has no KL autoencoder, or ``precision`` is neither fp32 nor bf16.
    """
    model: Any = trainer.lightning_module
    fits = isinstance(model, LatentModel)
    if not fits:
        raise ConfigError(f"{MAKES} needs a latent diffusion model; '{type(model).__name__}' has no first stage")
    if precision not in ("fp32", "bf16"):
        raise ConfigError(f"data.params.cache_precision is '{precision}'; it must be fp32 or bf16")
    device = trainer.strategy.root_device

    def encode(pictures: Tensor) -> Tensor:
        return encode_pictures(pictures.to(device), model, precision)

    return CachedItems(data, encode, model.first_stage_key, seed)


@torch.no_grad()
def encode_pictures(pictures: Tensor, model: Any, precision: str) -> Tensor:
    """Moments [B, 2C, h, w] in half precision, on the CPU, for pictures [B, H, W, 3] in [-1, 1].

    Raises:
        ConfigError: the model's autoencoder gives no posterior.
        UserError: it gives NaN or infinity.
    """
    with torch.autocast(pictures.device.type, torch.bfloat16, enabled=precision == "bf16"):
        posterior: Posterior | Tensor = model.encode_first_stage(pictures.movedim(-1, 1).contiguous())
    if isinstance(posterior, Tensor):
        raise ConfigError(f"{MAKES} needs a KL autoencoder; this one gives latents without a posterior")
    moments = posterior.parameters.to("cpu", torch.float16)
    if not bool(moments.isfinite().all()):
        weight = broken_weight(model.first_stage_model)
        reason = f"its weight '{weight}' is damaged" if weight else "one of the pictures holds such values"
        raise UserError(f"the autoencoder gives latents that are not finite (NaN or inf): {reason}")
    return moments


def latent_file(cache: CachedItems, path: str | Path, trainer: pl.Trainer) -> LatentFile:
    """The file of a cache, with what is in it read."""
    model: Any = trainer.lightning_module
    return LatentFile(cache, Path(path), ingredients(cache.data, model.first_stage_model), trainer.global_rank)


def without(item: dict[str, Any], image_key: str) -> dict[str, Any]:
    """An item without its picture."""
    return {key: value for key, value in item.items() if key != image_key}
