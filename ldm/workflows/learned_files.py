"""What training runs have left that a person can use: which runs, what to ask for, and files for other programs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ldm.checkpoint import read_embeddings, write_embedding
from ldm.checkpoint.embeddings import OF_LAYERS, PER_TIMESTEP, read_about
from ldm.checkpoint.lora import read_lora
from ldm.runs import LOGS, runs
from ldm.util import UserError, atomic_write, read_yaml
from ldm.workflows.lora_spelling import respell

EMBEDDINGS, LORA, DIFFERENCE = "embeddings", "lora", "difference"
CHECKPOINT = "checkpoints/last.ckpt"
TRAIN = "data.params.train.params"


@dataclass(frozen=True)
class Format:
    """A format of files: of which of a run's files, its suffix, and who reads it."""

    file: str
    suffix: str
    readers: str


OWN = "safetensors"  # the format for words that other programs do not know
FORMATS = {
    "safetensors": Format(EMBEDDINGS, ".safetensors", "diffusers, ComfyUI, web UI"),
    "a1111": Format(EMBEDDINGS, ".pt", "web UI"),
    "a1111-png": Format(EMBEDDINGS, ".png", "web UI"),
    "diffusers": Format(EMBEDDINGS, ".bin", "diffusers"),
    "compvis": Format(EMBEDDINGS, ".pt", "CompVis"),
    "kohya": Format(LORA, ".safetensors", "kohya, web UI, ComfyUI"),
    "peft": Format(LORA, ".safetensors", "PEFT, diffusers"),
    "lycoris": Format(DIFFERENCE, ".safetensors", "LyCORIS: web UI, ComfyUI"),
}


def learned_runs(logdir: str | Path = LOGS) -> list[Path]:
    """The runs that have left something of a few pictures, or can go on, the newest first."""
    return [run for run in runs(Path(logdir)) if additions_of(run) or (run / CHECKPOINT).is_file()]


def additions_of(run: Path) -> dict[str, Path]:
    """The files that a run has learned, by what they are."""
    paths = {name: run / "checkpoints" / f"{name}.safetensors" for name in (EMBEDDINGS, LORA, DIFFERENCE)}
    return {name: path for name, path in paths.items() if path.is_file()}


def options_of(run: Path) -> dict[str, Any]:
    """What a request for pictures says to have what a run has learned.

    Raises:
        UserError: it has left nothing yet.
    """
    found = additions_of(run)
    if not found:
        raise UserError(f"'{run.name}' has left nothing yet that a picture could be made with")
    loras = [str(found[name]) for name in (LORA, DIFFERENCE) if name in found]
    return {"embedding_path": [str(found[EMBEDDINGS])] if EMBEDDINGS in found else None, "lora": loras or None}


def prompt_of(run: Path) -> str:
    """The first sentence that a run has learned its pictures by; empty where its configuration does not say."""
    saved = sorted((run / "configs").glob("*-project.yaml"))
    if not saved:
        return ""
    try:
        params: Any = OmegaConf.select(read_yaml(saved[-1], False), TRAIN)
    except UserError:
        return ""
    if not isinstance(params, Mapping):
        return ""
    templates: Any = params.get("templates")
    first = templates[0] if OmegaConf.is_list(templates) else "a photo of {}"
    return str(first).format(params.get("placeholder_token", "*"))


def formats_of(run: Path) -> list[str]:
    """The names of the formats that a run's files can be had in; of words that other programs do not know, ``OWN``."""
    found = [name for name, format in FORMATS.items() if format.file in additions_of(run)]
    return [name for name in found if name == OWN or FORMATS[name].file != EMBEDDINGS or not only_here(run)]


def readers_of(run: Path, name: str) -> str:
    """Who reads a run's files in a format."""
    return "txt2img.py" if name == OWN and only_here(run) else FORMATS[name].readers


def only_here(run: Path) -> bool:
    """Whether a run's words are of a kind that other programs do not know."""
    return read_about(additions_of(run)[EMBEDDINGS]).get("kind") in (*OF_LAYERS, PER_TIMESTEP)


def write_for_others(run: Path, name: str, folder: Path) -> Path:
    """What a run has learned, as a file for another program.

    Raises:
        UserError: there is no such format, the run has left no such file, or the format has no place for what is in it.
    """
    if name not in FORMATS:
        raise UserError(f"there is no format '{name}'; there are: {', '.join(FORMATS)}")
    format, found = FORMATS[name], additions_of(run)
    if format.file not in found:
        raise UserError(f"'{run.name}' has left no {format.file}.safetensors")
    source, target = found[format.file], folder / f"{run.name}-{name}{format.suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    if format.file == EMBEDDINGS and not (name == OWN and only_here(run)):
        (words,) = read_embeddings([str(source)]).values()
        write_embedding(target, words, name)
    elif format.file == LORA:
        respell(read_lora(str(source)), target, name)
    else:
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)
    return target
