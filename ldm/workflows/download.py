"""Released weights from the hub, or from the address where their makers keep them, to where they belong here."""

from __future__ import annotations

import hashlib
import logging
import shutil
import urllib.error
import urllib.request
import zipfile
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from ldm.modules.encoders.hub import hub_host, reachable
from ldm.released import HUB, RELEASED, File, Released, released
from ldm.shipped import here_or_shipped
from ldm.util import UserError, atomic_write, nearest, writable_folder

log = logging.getLogger(__name__)

PIECE = 1 << 20  # bytes at a time
CONFIG = "config.yaml"
REFUSED = (401, 403)


def download(name: str, folder: Path | None = None) -> list[Path]:
    """Get what the table of ``ldm.released`` calls ``name``; what is there already, and whole, stays.

    What was cut off goes on where it stopped. Where the table knows a size or a SHA-256, it is compared. The YAML that
    opens a model is put beside it as ``config.yaml``, where commands find it by themselves.

    Args:
        folder: another place than the table's.

    Raises:
        UserError: an unknown name, no network, a page that asks for consent, a full disk, or a file that is not whole.
    """
    entry = released(name)
    if entry is None:
        raise UserError(f"no released weights are called '{name}'; {nearest(name, [one.name for one in RELEASED])}")
    place = writable_folder(entry.folder if folder is None else folder, "the folder for weights")
    paths = []
    for file in entry.files:
        path = place / file.saved_as
        if path.is_file():
            check(path, file)
            log.info("%s is there already", path)
        else:
            fetch(file, path)
        paths.append(path)
    put_config(entry, place)
    return paths


def put_config(entry: Released, place: Path) -> None:
    """The entry's YAML as ``config.yaml`` beside its weights, unless there is one."""
    if entry.config and not (place / CONFIG).exists():
        with atomic_write(place / CONFIG) as temporary:
            shutil.copyfile(here_or_shipped(entry.config), temporary)


def fetch(file: File, path: Path) -> None:
    """One file to ``path``, checked before it has its name.

    Raises:
        UserError: it cannot be had, or is not what it should be.
    """
    host = urlsplit(file.url).hostname if file.repo is None else hub_host()
    if not reachable(host or ""):
        raise no_network(file, path, f"{host} cannot be reached")
    log.info("%s from %s%s", path, file.page, f" ({file.amount})" if file.amount else "")
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.repo is not None:
        from_hub(file, path)
        return
    part = path.with_name(path.name + ".part")
    from_address(file, path, part)
    if file.member is not None:
        unpack(file, path, part)
    else:
        check(part, file)
        part.replace(path)


def from_hub(file: File, path: Path) -> None:
    """By huggingface_hub, which goes on with what was cut off, and compares what came with what the hub states."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    assert file.repo is not None
    try:
        came = Path(hf_hub_download(file.repo, file.path, local_dir=path.parent))
    except GatedRepoError as error:
        raise UserError(
            f"{file.page} asks for consent: agree there, then say who you are with 'hf auth login' and try again"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"the hub has no {file.repo} (any more), or only for those who 'hf auth login'") from error
    except LocalEntryNotFoundError as error:
        raise no_network(file, path, f"{HUB} cannot be reached") from error
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"'{file.path}' of {file.page} cannot be had: {_short(error)}") from error
    check(came, file)
    came.replace(path)


def from_address(file: File, path: Path, part: Path) -> None:
    """By HTTP into ``part``, going on with what is there.

    Raises:
        UserError: the server refuses, is gone, or breaks off.
    """
    had = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={had}-"} if had else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            goes_on = answer.status == 206
            left = int(answer.headers.get("Content-Length") or 0)
            total = left + (had if goes_on else 0)
            with part.open("ab" if goes_on else "wb") as out, tqdm(
                total=total or None, initial=had if goes_on else 0, unit="B", unit_scale=True, desc=path.name
            ) as bar:
                while piece := answer.read(PIECE):
                    out.write(piece)
                    bar.update(len(piece))
    except urllib.error.HTTPError as error:
        if error.code == 416 and had:  # nothing is missing any more
            return
        why = "it asks who you are" if error.code in REFUSED else f"{error.code} {error.reason}"
        raise UserError(f"{file.url} does not give the file ({why}); {by_hand(file, path)}") from error
    except (OSError, HTTPException) as error:
        raise no_network(file, path, f"{file.url} broke off ({_short(error)})") from error
    if total and part.stat().st_size < total:
        raise UserError(f"{file.url} broke off after {part.stat().st_size} of {total} bytes; the same command goes on")


def unpack(file: File, path: Path, archive: Path) -> None:
    """One member of a zip to ``path``; the zip goes.

    Raises:
        UserError: it is no zip, or holds no such member.
    """
    try:
        with zipfile.ZipFile(archive) as zipped, zipped.open(str(file.member)) as inside, atomic_write(path) as made:
            copy_to(made, inside)
    except (zipfile.BadZipFile, KeyError) as error:
        archive.unlink()
        raise UserError(f"{file.url} is no zip with '{file.member}' ({_short(error)}); it was removed") from error
    archive.unlink()


def copy_to(path: Path, stream: IO[bytes]) -> None:
    with path.open("wb") as out:
        shutil.copyfileobj(stream, out, PIECE)


def check(path: Path, file: File) -> None:
    """Compare a file with what the table knows of it.

    Raises:
        UserError: another size, or another SHA-256.
    """
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        raise UserError(f"'{path}' has {size} bytes, {file.page} has {file.size}: remove it and get it again")
    if file.sha256 is None:
        return
    with path.open("rb") as stream, tqdm(total=size, unit="B", unit_scale=True, desc="checking", leave=False) as bar:
        digest = hashlib.sha256()
        while piece := stream.read(PIECE):
            digest.update(piece)
            bar.update(len(piece))
    if digest.hexdigest() != file.sha256:
        raise UserError(f"'{path}' is not the file of {file.page} (its SHA-256 differs): remove it and get it again")


def no_network(file: File, path: Path, why: str) -> UserError:
    return UserError(f"{why}; {by_hand(file, path)}")


def by_hand(file: File, path: Path) -> str:
    """What to do without a network here."""
    what = file.saved_as if file.member is None else f"{file.member} out of {Path(file.path).name}"
    return f"get {what} from {file.page} on a machine with a network, and put it here as '{path}'"


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
