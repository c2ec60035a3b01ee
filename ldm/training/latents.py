"""What cannot change is computed once: the autoencoder's view of every training picture.

For data sets whose picture is the same at every visit (no random crops or flips): the posterior's moments are kept in
half precision and batches hold ``moments`` instead of the picture. Text and numbers of an item are kept too; a data
set whose captions change from visit to visit gives them in a method ``labels(index) -> dict``, asked at each visit.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ldm.checkpoint import CHECKSUM, checksum, is_whole, read_metadata, read_state_dict, save_state_dict
from ldm.training.sampling import Position, SeededItems
from ldm.util import ConfigError, UserError, parse_json

log = logging.getLogger(__name__)

MAKES = "data.params.cache_latents"
PLAIN = (str, int, float, bool, type(None))


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


@dataclass
class Latents:
    """Moments [M,2C,h,w] of M different pictures, the picture of each item [N], and what else the items hold."""

    moments: Tensor
    which: Tensor
    fields: list[dict[str, Any]] | None


class CachedItems(Dataset):
    """The items of a data set with ``moments`` [2C,h,w] in place of their picture."""

    def __init__(self, data: Any, latents: Latents, image_key: str) -> None:
        self.data, self.latents, self.image_key = data, latents, image_key

    def __len__(self) -> int:
        return len(self.latents.which)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self._fields(index), "moments": self.latents.moments[self.latents.which[index]]}

    def _fields(self, index: int) -> dict[str, Any]:
        if isinstance(self.data, Labelled):
            return self.data.labels(index)
        if self.latents.fields is not None:
            return self.latents.fields[index]
        return {key: value for key, value in self.data[index].items() if key != self.image_key}


def cache_latents(
    data: Any, trainer: pl.Trainer, position: Position, batch_size: int, num_workers: int,
    cache_file: str | None = None, precision: str = "fp32",
) -> CachedItems:  # fmt: skip
    """Encode the pictures of a data set, or read ``cache_file`` if it was made from the same data and autoencoder.

    With a file, the first process of a distributed run encodes and the others wait; without, each encodes for itself.

    Raises:
        ConfigError: the model has no KL autoencoder, or ``precision`` is neither fp32 nor bf16.
    """
    model: Any = trainer.lightning_module
    fits = isinstance(model, LatentModel)
    if not fits:
        raise ConfigError(f"{MAKES} needs a latent diffusion model; '{type(model).__name__}' has no first stage")
    if precision not in ("fp32", "bf16"):
        raise ConfigError(f"data.params.cache_precision is '{precision}'; it must be fp32 or bf16")

    def encode() -> Latents:
        loader = DataLoader(
            SeededItems(data, Position(position.seed)), batch_size, sampler=[(i, 0) for i in range(len(data))],
            num_workers=num_workers, collate_fn=list,
        )  # fmt: skip
        batches = tqdm(loader, "encoding the pictures", disable=not trainer.is_global_zero)
        return encode_pictures(batches, model, trainer.strategy.root_device, precision)

    if cache_file is None:
        return CachedItems(data, encode(), model.first_stage_key)
    path, key = Path(cache_file), ingredients(data, model.first_stage_model)
    if trainer.is_global_zero and not is_made_from(path, key):
        write_latents(encode(), path, key)
    trainer.strategy.barrier("latents")
    return CachedItems(data, read_latents(path), model.first_stage_key)


@torch.no_grad()
def encode_pictures(
    batches: Iterator[list[dict[str, Any]]] | Any, model: Any, device: torch.device, precision: str
) -> Latents:
    """Moments of all pictures in batches of items; a picture that was seen before is not encoded again."""
    seen: dict[bytes, int] = {}
    moments: list[Tensor] = []
    which: list[int] = []
    fields: list[dict[str, Any]] = []
    for items in batches:
        fresh: list[Tensor] = []
        for item in items:
            picture = torch.as_tensor(item[model.first_stage_key]).float()
            name = hashlib.blake2b(picture.contiguous().numpy().data, digest_size=16).digest()
            if name not in seen:
                seen[name] = len(seen)
                fresh.append(picture)
            which.append(seen[name])
            fields.append({key: value for key, value in item.items() if key != model.first_stage_key})
        if fresh:
            moments.append(_encode(torch.stack(fresh).movedim(-1, 1).to(device), model, precision))
    plain = all(isinstance(value, PLAIN) for item in fields for value in item.values())
    return Latents(torch.cat(moments), torch.tensor(which), fields if plain else None)


def _encode(pictures: Tensor, model: Any, precision: str) -> Tensor:
    """Moments [B,2C,h,w] in half precision for pictures [B,3,H,W] in [-1,1]."""
    with torch.autocast(pictures.device.type, torch.bfloat16, enabled=precision == "bf16"):
        posterior: Posterior | Tensor = model.encode_first_stage(pictures.contiguous())
    if isinstance(posterior, Tensor):
        raise ConfigError(f"{MAKES} needs a KL autoencoder; this one gives latents without a posterior")
    return posterior.parameters.to("cpu", torch.float16)


def ingredients(data: Any, first_stage: nn.Module) -> str:
    """Changes when the data set's settings or any weight of the autoencoder change."""
    digest = hashlib.blake2b(digest_size=16)
    settings = {key: value for key, value in vars(data).items() if isinstance(value, (*PLAIN, list, tuple))}
    digest.update(f"{type(data).__module__}.{type(data).__qualname__} {len(data)} {sorted(settings.items())}".encode())
    for name, tensor in first_stage.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def is_made_from(path: Path, key: str) -> bool:
    """Whether the file exists, is whole and was made from those ingredients."""
    if not path.is_file():
        return False
    try:
        about = read_metadata(path)
        if about.get("made_from") != key:
            log.warning("'%s' was made from other pictures or another autoencoder: encoding again", path)
            return False
        if is_whole(read_state_dict(path), about):
            return True
    except UserError as error:
        log.warning("%s: encoding again", error)
        return False
    log.warning("the latents in '%s' are not those that were written: encoding again", path)
    return False


def write_latents(latents: Latents, path: Path, key: str) -> None:
    """Write moments and fields into one safetensors file."""
    text = json.dumps(latents.fields, ensure_ascii=False).encode()
    tensors = {
        "moments": latents.moments,
        "which": latents.which,
        "fields": torch.frombuffer(bytearray(text), dtype=torch.uint8),
    }
    save_state_dict(tensors, path, {"made_from": key, CHECKSUM: checksum(tensors)})


def read_latents(path: Path) -> Latents:
    """What :func:`write_latents` wrote; the moments stay mapped to the file.

    Raises:
        UserError: something else is in the file.
    """
    tensors: Mapping[str, Tensor] = read_state_dict(path)
    if not {"moments", "which", "fields"} <= set(tensors):
        raise UserError(f"'{path}' holds no encoded pictures")
    fields = parse_json(tensors["fields"].numpy().tobytes(), f"the list of captions in '{path}'")
    return Latents(tensors["moments"], tensors["which"], fields)
