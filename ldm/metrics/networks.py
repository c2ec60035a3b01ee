"""The trained networks that measures look through: their files, where those are looked for, and their hashes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ldm.checkpoint import load_weights
from ldm.shipped import here_or_shipped
from ldm.util import MissingPartError, UserError

FOLDER = "models/measures"
BLOCK = 1 << 20


@dataclass(frozen=True)
class Network:
    """A file of weights that a measure stands or falls with.

    Attributes:
        file: its name, as its maker publishes it.
        url: where that is.
        sha256: of the file, as much of it as its maker says; empty: nobody says it.
        ignore: beginnings of keys that no measure uses.
    """

    file: str
    url: str
    sha256: str = ""
    ignore: tuple[str, ...] = ()


_TORCH = "https://download.pytorch.org/models/"
_CLASSIFIER = ("classifier.",)
NETWORKS = {
    "alexnet": Network("alexnet-owt-7be5be79.pth", f"{_TORCH}alexnet-owt-7be5be79.pth", "7be5be79", _CLASSIFIER),
    "vgg16": Network("vgg16-397923af.pth", f"{_TORCH}vgg16-397923af.pth", "397923af", _CLASSIFIER),
    "vgg19": Network("vgg19-dcbb9e9d.pth", f"{_TORCH}vgg19-dcbb9e9d.pth", "dcbb9e9d", _CLASSIFIER),
    "art_inception": Network(
        "art_inception.pth",
        "https://huggingface.co/matthias-wright/art_inception/resolve/main/art_inception.pth",
        ignore=("AuxLogits", "fc"),
    ),
    "inception_2015": Network(
        "pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "6726825d",
        ("fc.", "AuxLogits"),
    ),
}


@dataclass(frozen=True)
class Weights:
    """A file that was found; ``released`` when its hash is that of the published one, None where nobody says that."""

    path: Path
    sha256: str
    released: bool | None


def find_weights(name: str, folder: str | os.PathLike[str] | None = None, any_weights: bool = False) -> Weights:
    """The file of a network, in a folder (``models/measures``), torch's cache, or where art-fid keeps its own.

    Args:
        name: a key of ``NETWORKS``.
        any_weights: take a file of that name whatever its hash is.

    Raises:
        MissingPartError: it is in none of these places.
        UserError: its hash is not that of the published file.
    """
    network = NETWORKS[name]
    places = places_of(folder)
    path = next((place / network.file for place in places if (place / network.file).is_file()), None)
    if path is None:
        raise MissingPartError(f"there is no '{network.file}' in '{places[0]}'; it is published at {network.url}")
    digest = file_hash(path)
    released = digest.startswith(network.sha256) if network.sha256 else None
    if released is False and not any_weights:
        raise UserError(
            f"'{path}' is not the file of that name that is published: its sha256 begins with {digest[:8]}, "
            f"not {network.sha256}; numbers of other weights do not compare (--any_weights takes them all the same)"
        )
    return Weights(path, digest, released)


def places_of(folder: str | os.PathLike[str] | None) -> Sequence[Path]:
    """Where weights are looked for, in this order."""
    cache = Path(os.environ.get("TORCH_HOME") or Path("~/.cache/torch").expanduser())
    own = here_or_shipped(FOLDER) if folder is None else Path(folder)
    return own, cache / "hub" / "checkpoints", Path(tempfile.gettempdir()) / "art_fid"


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def load_network(module: nn.Module, name: str, weights: Weights) -> None:
    """Put a network's weights into a module, ready to look at pictures.

    Raises:
        UserError: the file holds other weights.
    """
    load_weights(module, weights.path, ignore=NETWORKS[name].ignore, strict=True)
    module.eval().requires_grad_(False)
