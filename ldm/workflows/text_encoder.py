"""A model's text encoder alone: for tools that look at words and need no network beside it."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from ldm.building.kinds import MODULE
from ldm.checkpoint import load_weights
from ldm.checkpoint.unfilled import without_values
from ldm.modules.encoders.base import TextEncoder
from ldm.util import ConfigError, UserError, instantiate_from_config
from ldm.workflows.files import find_model

PREFIX = "cond_stage_model."


def open_text_encoder(ckpt: str | Path | None = None, config: str | Path | None = None) -> TextEncoder:
    """The text encoder of a checkpoint (the small model's without one), in eval mode on the CPU.

    Its weights stay mapped from the file: only those that are used are read.

    Raises:
        UserError: a file is missing or does not fit, or the model has no text encoder.
    """
    ckpt, document = find_model(ckpt, config)
    node = OmegaConf.select(document, "model.params.cond_stage_config")
    if not OmegaConf.is_dict(node):
        raise ConfigError(f"the model of '{ckpt}' has no text encoder (model.params.cond_stage_config)")
    with without_values():
        encoder = instantiate_from_config(node, MODULE)
    if not isinstance(encoder, TextEncoder):
        raise UserError(f"the model of '{ckpt}' is conditioned by a {type(encoder).__name__}, not by text")
    load_weights(encoder, ckpt, prefix=PREFIX)
    return encoder.eval()
