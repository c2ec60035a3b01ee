"""Files of a model on the Hugging Face hub: from the local cache when they are there, else from the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ldm.util import UserError


def hub_folder(repo: str, choices: Sequence[Sequence[str]], advice: str) -> Path:
    """The cached folder that holds every file of the first of ``choices`` that can be had.

    Args:
        repo: a hub id, such as "openai/clip-vit-large-patch14".
        choices: sets of file names, the preferred one first; the cache is asked for all of them before the network.
        advice: what the user should do when nothing can be had; ends the error's sentence.

    Raises:
        UserError: no such model, none of the files, or no network.
    """
    from huggingface_hub import hf_hub_download  # imported here: local files do not need it
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    for cached in (True, False):
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
    return UserError(f"'{repo}' is no local file or folder and cannot be had from the hub; {advice}")
