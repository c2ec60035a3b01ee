"""The trained networks that measures look through: their files, where those are looked for, and their hashes."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ldm.checkpoint import load_weights
from ldm.released import MEASURES, File, how_to_get, released
from ldm.util import MissingPartError, UserError

BLOCK = 1 << 20
_IN_NAME = re.compile(r"-([0-9a-f]{8})\.pth$")  # torch's rule: the first digits of a file's hash are in its name


@dataclass(frozen=True)
class Network:
    """A network by its name in the table of released weights.

    Attributes:
        entry: of ``ldm.released``.
        ignore: beginnings of keys that no measure uses.
    """

    entry: str
    ignore: tuple[str, ...]

    @property
    def file(self) -> File:
        found = released(self.entry)
        assert found is not None, self.entry
        return found.files[0]

    @property
    def sha256(self) -> str:
        """Of the published file, as much of it as is known; empty: nothing is."""
        in_name = _IN_NAME.search(self.file.saved_as)
        return self.file.sha256 or (in_name[1] if in_name else "")


NETWORKS = {
    "alexnet": Network("lpips-alex", ("classifier.",)),
    "vgg16": Network("lpips-vgg", ("classifier.",)),
    "vgg19": Network("cfsd-vgg19", ("classifier.",)),
    "art_inception": Network("art-inception", ("AuxLogits", "fc")),
    "inception_2015": Network("fid-inception", ("fc.", "AuxLogits")),
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
    file, places = network.file.saved_as, places_of(folder)
    path = next((place / file for place in places if (place / file).is_file()), None)
    if path is None:
        raise MissingPartError(f"there is no '{places[0] / file}'; {how_to_get(MEASURES / file)}")
    digest = file_hash(path)
    is_released = digest.startswith(network.sha256) if network.sha256 else None
    if is_released is False and not any_weights:
        raise UserError(
            f"'{path}' is not the file of that name that is published: its sha256 begins with {digest[:8]}, "
            f"not {network.sha256[:8]}; numbers of other weights do not compare (--any_weights takes them all the same)"
        )
    return Weights(path, digest, is_released)


def places_of(folder: str | os.PathLike[str] | None) -> Sequence[Path]:
    """Where weights are looked for, in this order."""
    cache = Path(os.environ.get("TORCH_HOME") or Path("~/.cache/torch").expanduser())
    own = MEASURES if folder is None else Path(folder)
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
