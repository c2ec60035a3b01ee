"""Models of the transformers library out of folders on this disk; nothing that a folder names is run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.checkpoint.reading import read_state_dict
from ldm.util import MissingPartError, UserError

PICKLES = "pytorch_model*.bin"


def read_transformers(folder: str | os.PathLike[str], kinds: tuple[str, ...], what: str) -> Any:
    """A model in float32 and evaluation mode; its weights are safetensors, or pickles that are opened safely.

    Args:
        kinds: automatic classes of transformers, such as ``AutoModelForCausalLM``; the first that has the model.
        what: its kind in words, such as "causal language model".

    Raises:
        UserError: no folder, no such model in it, or weights that are not whole.
        MissingPartError: it needs a package that is not installed.
    """
    import transformers  # imported here: it takes seconds

    place = Path(folder)
    if not (place / "config.json").is_file():
        needed = "a folder of transformers is needed, with config.json and weights"
        raise UserError(f"there is no {what} in '{folder}': {needed}")
    with _readable(place, what), quiet_transformers():
        config = transformers.AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        cls = _class_of(config, kinds)
        given: dict[str, Any] = {"config": config, "dtype": torch.float32, "output_loading_info": True}
        if any(place.glob("*.safetensors")):
            model, found = cls.from_pretrained(place, local_files_only=True, use_safetensors=True, **given)
        else:
            model, found = cls.from_pretrained(None, state_dict=_pickled(place), **given)
    missing = sorted(found["missing_keys"])
    if missing:
        raise UserError(f"the {what} in '{folder}' is not whole: it lacks {len(missing)} weights, such as {missing[0]}")
    return model.eval()


def read_preparation(folder: str | os.PathLike[str], kind: str, what: str) -> Any:
    """What prepares a model's inputs: ``AutoTokenizer``, ``AutoProcessor`` or another automatic class of transformers.

    Raises:
        UserError: the folder has none.
        MissingPartError: it needs a package that is not installed.
    """
    import transformers

    with _readable(Path(folder), what), quiet_transformers():
        return getattr(transformers, kind).from_pretrained(folder, local_files_only=True, trust_remote_code=False)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no reports of unused heads while a model is read."""
    from transformers.utils import logging as their_log

    level, bars = their_log.get_verbosity(), their_log.is_progress_bar_enabled()
    their_log.set_verbosity_error()
    their_log.disable_progress_bar()
    try:
        yield
    finally:
        their_log.set_verbosity(level)
        if bars:
            their_log.enable_progress_bar()


def _class_of(config: Any, kinds: tuple[str, ...]) -> Any:
    """The class of a model, without building its weights.

    Raises:
        ValueError: no kind has it.
    """
    import transformers

    problem: ValueError | None = None
    for kind in kinds:
        try:
            with torch.device("meta"):
                return type(getattr(transformers, kind).from_config(config, trust_remote_code=False))
        except ValueError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _pickled(folder: Path) -> dict[str, Tensor]:
    paths = sorted(folder.glob(PICKLES))
    if not paths:
        raise UserError(f"there are no weights in '{folder}': model.safetensors or pytorch_model.bin would be right")
    return {key: value for path in paths for key, value in read_state_dict(path).items()}


@contextlib.contextmanager
def _readable(folder: Path, what: str) -> Iterator[None]:
    """What transformers says of a folder that it cannot read, as one sentence."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise MissingPartError(f"the {what} in '{folder}' needs a package: {' '.join(str(error).split())}") from error
    except Exception as error:  # of many kinds, whatever is wrong in a file
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot read a {what} in '{folder}': {reason or type(error).__name__}") from error
