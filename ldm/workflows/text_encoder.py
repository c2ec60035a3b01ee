"""A model's text encoder alone: for tools that look at words and need no network beside it."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import OmegaConf

from ldm.checkpoint import diffusers_config, load_weights
from ldm.modules.encoders.base import TextEncoder
from ldm.util import ConfigError, UserError, instantiate_from_config, read_yaml
from ldm.workflows.models import find_files, find_parts

PREFIX = "cond_stage_model."


def open_text_encoder(ckpt: str | Path | None = None, config: str | Path | None = None) -> TextEncoder:
    """The text encoder of a checkpoint (the small model's without one), in eval mode on the CPU.

    Its weights stay mapped from the file: only those that are used are read.

    Raises:
        UserError: a file is missing or does not fit, or the model has no text encoder.
    """
    ckpt, config = find_files(ckpt, config)
    encoder = build_text_encoder(config, ckpt)
    load_weights(encoder, ckpt, prefix=PREFIX)
    return encoder.eval()


def build_text_encoder(config: Path | None, ckpt: Path | None = None) -> TextEncoder:
    """The text encoder that a YAML (or, without one, the diffusers folder ``ckpt``) describes, without weights.

    Raises:
        ConfigError: it describes none.
    """
    if config is None:
        if ckpt is None or not ckpt.is_dir():
            raise ConfigError("a text encoder needs a configuration or a diffusers folder")
        document = OmegaConf.create(dict(diffusers_config(ckpt)))
        document = document if "model" in document else OmegaConf.create({"model": document})
    else:
        document = read_yaml(config)
        find_parts(document, config.parent)
    node = OmegaConf.select(document, "model.params.cond_stage_config")
    if not OmegaConf.is_dict(node):
        raise ConfigError(f"'{config or ckpt}' describes no text encoder (model.params.cond_stage_config)")
    with torch.device("meta"):
        encoder = instantiate_from_config(node)
    if not isinstance(encoder, TextEncoder):
        raise UserError(f"the model of '{config or ckpt}' is conditioned by a {type(encoder).__name__}, not by text")
    return encoder
