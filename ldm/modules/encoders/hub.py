"""Files of a model on the Hugging Face hub: from the local cache when they are there, else from the network."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ldm.released import HUB, how_to_get_id, local_copy
from ldm.util import UserError


def hub_host() -> str:
    """The host that the hub's library asks."""
    return urlsplit(os.environ.get("HF_ENDPOINT") or HUB).hostname or ""


def reachable(host: str) -> bool:
    """Whether there is a network on which a host has an address; a proxy knows addresses that this machine does not."""
    if urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def hub_folder(repo: str, choices: Sequence[Sequence[str]], advice: str) -> Path:
    """The folder that holds every file of the first of ``choices`` that can be had.

    It is looked for where ``scripts.download`` puts it, then in the hub's cache, then on the network.

    Args:
        repo: a hub id, such as "openai/clip-vit-large-patch14".
        choices: sets of file names, the preferred one first; the cache is asked for all of them before the network.
        advice: what the user should do when nothing can be had; ends the error's sentence.

    Raises:
        UserError: no such model, none of the files, or no network.
    """
    from huggingface_hub import hf_hub_download  # imported here: local files do not need it
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    for names in choices:
        if (folder := local_copy(repo, names)) is not None:
            return folder
    for cached in (True, False):
        if not cached and not reachable(hub_host()):
            break
        for names in choices:
            try:
                paths = [Path(hf_hub_download(repo, name, local_files_only=cached)) for name in names]
            except LocalEntryNotFoundError as error:
                if not cached:  # no network: the other choices would wait for it as long again
                    raise _unavailable(repo, advice) from error
            except (OSError, HFValidationError):
                continue
            else:
                return paths[0].parent
    raise _unavailable(repo, advice)


def _unavailable(repo: str, advice: str) -> UserError:
    known = how_to_get_id(repo)
    advice = f"{known}, or {advice}" if known else advice
    return UserError(f"'{repo}' is no local file or folder and cannot be had from the hub; {advice}")
