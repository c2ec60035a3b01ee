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
from ldm.checkpoint.transformers_trust import check_named
from ldm.checkpoint.unfilled import without_values
from ldm.util import MissingPartError, UserError, parse_json_object

WEIGHTS = "model.safetensors"
PICKLES = "pytorch_model*.bin"
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def read_transformers(folder: str | os.PathLike[str], kinds: tuple[str, ...], what: str) -> Any:
    """A model in float32 and evaluation mode; its weights are safetensors, or pickles that are opened safely.

    Of what the folder says of generating only the ids of tokens are kept.

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
        check_named(place)
        config = transformers.AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        config._attn_implementation = config._experts_implementation = None  # with those of its parts: may be kernels
        cls = _class_of(config, kinds)
        given: dict[str, Any] = {"config": config, "dtype": torch.float32, "output_loading_info": True}
        model, found = cls.from_pretrained(None, state_dict=_weights(place), **given)
        _keep_token_ids(place, model)
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
        check_named(Path(folder))
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
            with without_values():
                return type(getattr(transformers, kind).from_config(config, trust_remote_code=False))
        except ValueError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _weights(folder: Path) -> dict[str, Tensor]:
    """All of them by our own reader: transformers opens what an index names, pickles too, and applies adapters."""
    index = folder / f"{WEIGHTS}.index.json"
    if (folder / WEIGHTS).is_file():
        paths = [folder / WEIGHTS]
    elif index.is_file():
        paths = [folder / name for name in _parts(index)]
    else:
        paths = sorted(folder.glob(PICKLES))
    if not paths:
        raise UserError(f"there are no weights in '{folder}': {WEIGHTS} or pytorch_model.bin would be right")
    return {key: value for path in paths for key, value in read_state_dict(path).items()}


def _parts(index: Path) -> list[str]:
    """The files beside an index that it names."""
    named = parse_json_object(index.read_bytes(), f"'{index}'").get("weight_map")
    names = set(named.values()) if isinstance(named, dict) else set()
    wrong = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if wrong:
        raise UserError(f"'{index}' names '{wrong[0]}', which is no safetensors file beside it")
    return sorted(names)


def _keep_token_ids(folder: Path, model: Any) -> None:
    """Take from a model and its parts what else they say of generating: of time, of strings to stop at, of outputs."""
    from transformers import GenerationConfig

    path = folder / "generation_config.json"
    said = parse_json_object(path.read_bytes(), f"'{path}'") if path.is_file() else {}
    for part in model.modules():
        own = getattr(part, "generation_config", None)
        if own is not None:
            ids = {key: getattr(own, key) for key in TOKEN_IDS}
            ids |= {key: said[key] for key in TOKEN_IDS if part is model and said.get(key) is not None}
            part.generation_config = GenerationConfig(**ids)


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
