"""The files of a model: its weights, and the YAML that describes it with the paths in it found."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from ldm.additions.lora.scales import parse_lora
from ldm.checkpoint import diffusers_config
from ldm.released import how_to_get
from ldm.runs import LAST, given_or_latest, is_latest
from ldm.shipped import ROOT, TINY, here_or_shipped
from ldm.util import UserError, find_beside, read_yaml
from ldm.workflows.recognised import recognised

WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"
PARTS = ("tokenizer", "aligner")  # files that a text encoder may name


def find_model(ckpt: str | Path | None, config: str | Path | None) -> tuple[Path, DictConfig]:
    """``(checkpoint, document)`` of the files given, of the configuration beside the checkpoint, or the small model's.

    A diffusers folder describes itself, and released files that are known by their shapes have a configuration here.
    Files that a YAML names for its text encoder are found beside it, in this folder, or among the project's own.

    Raises:
        UserError: a file is missing, no YAML, or a configuration was given without a checkpoint.
    """
    if ckpt is None and config is not None:
        raise UserError(f"--config '{config}' needs the weights that go with it: add --ckpt")
    if ckpt is not None and is_latest(ckpt):
        ckpt, run_config = of_latest_run(ckpt)
        if config is None:
            return ckpt, with_parts(read_yaml(run_config, False), run_config.parent)
    ckpt = TINY / WEIGHTS if ckpt is None else here_or_shipped(ckpt)
    if not ckpt.exists():
        raise UserError(f"there is no checkpoint '{ckpt}'; {how_to_get(ckpt)}")
    if config is None and ckpt.is_dir():
        return ckpt, OmegaConf.create({"model": diffusers_config(ckpt)})
    beside = ckpt.parent / CONFIG
    known = recognised(ckpt) if config is None and not beside.is_file() else None
    if known is not None:
        return ckpt, known
    if config is None and not beside.is_file():
        raise UserError(f"'{ckpt}' needs its configuration: add --config, or put it beside as '{CONFIG}'")
    named = config is not None
    config = beside if config is None else here_or_shipped(config)
    return ckpt, with_parts(read_yaml(config, named), config.parent)


def with_parts(document: DictConfig, folder: Path) -> DictConfig:
    """A document with the paths in it found beside it, in this folder, or among the project's own files."""
    for part in PARTS:
        find_beside(document, f"model.params.cond_stage_config.params.{part}", folder, Path.cwd(), ROOT)
    entries = OmegaConf.select(document, "model.params.conditioner_config.params.emb_models")
    for place in range(len(entries) if isinstance(entries, ListConfig) else 0):
        key = f"model.params.conditioner_config.params.emb_models[{place}].params.tokenizer"
        find_beside(document, key, folder, Path.cwd(), ROOT)
    _find_files(document, folder)
    return document


def _find_files(document: DictConfig, folder: Path) -> None:
    """Make the files under ``inference:`` those beside the YAML, where they are there; a LoRA may have a scale."""
    named = OmegaConf.select(document, "inference.lora")
    if isinstance(named, str | ListConfig):
        texts = [named] if isinstance(named, str) else [str(text) for text in named]
        beside = [str(folder / text) if (folder / parse_lora(text)[0]).exists() else text for text in texts]
        OmegaConf.update(document, "inference.lora", beside)
    find_beside(document, "inference.lora_dir", folder)
    find_beside(document, "inference.corrector", folder)
    find_beside(document, "inference.retoucher", folder)


def of_latest_run(text: str | Path) -> tuple[Path, Path]:
    """The last checkpoint of the newest run that was meant, and the YAML that the run kept of itself.

    Raises:
        UserError: there is no such run.
    """
    ckpt = given_or_latest(text, LAST)
    kept = sorted(ckpt.parent.parent.glob("configs/*-project.yaml"))
    if not kept:
        raise UserError(f"the run '{ckpt.parent.parent}' has kept no configuration: give '{ckpt}' with --config")
    return ckpt, kept[-1]
