"""How a model lies in memory while it trains: channels last, compiled, frozen parts in half precision,
the states of prompts kept."""

from __future__ import annotations

import logging
import os
import shutil

import torch
from omegaconf import DictConfig
from torch import nn

from ldm.additions.learning import to_half
from ldm.util import ConfigError

log = logging.getLogger(__name__)

FROZEN = {"bf16": torch.bfloat16, "fp16": torch.float16}


def change_memory(model: nn.Module, lightning: DictConfig) -> None:
    """``lightning.channels_last`` and ``lightning.compile``: the same numbers, sooner (True, or a submodule's name).

    On a CPU nothing is compiled where there is no compiler.

    Raises:
        ConfigError: there is no such submodule.
    """
    if lightning.get("channels_last"):
        for weight in model.parameters():
            if weight.dim() == 4:  # those of convolutions over frames have five axes, and no such layout
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    wish = lightning.get("compile")
    if wish:
        names = ("model.diffusion_model", "encoder", "decoder") if wish is True else (str(wish),)
        modules = dict(model.named_modules())
        found = [modules[name] for name in names if name in modules]
        if not found:
            raise ConfigError(f"lightning.compile: the model has no submodule {' or '.join(names)}")
        compiler = os.environ.get("CXX", "g++")  # where torch looks for one
        if not torch.cuda.is_available() and shutil.which(compiler) is None:
            log.warning("there is no compiler '%s' here: lightning.compile is left out", compiler)
            return
        log.info("compiling in the first step, which takes minutes; lightning.compile=false goes without")
        for module in found:
            module.compile()


def convert_frozen(model: nn.Module, lightning: DictConfig, device: torch.device) -> None:
    """``lightning.frozen``: bf16 or fp16 for the parts that do not learn at all, the autoencoder aside.

    Half the memory and, where the processor has that precision, about half the time; what learns stays in float32. A
    CPU that has not holds the weights so and computes in float32.

    Raises:
        ConfigError: an unknown precision.
    """
    wish = lightning.get("frozen")
    if not wish or wish == "fp32":
        return
    if wish not in FROZEN:
        raise ConfigError(f"lightning.frozen is '{wish}'; it must be one of {', '.join(FROZEN)}, fp32")
    if not to_half(model, FROZEN[wish], device):
        log.info("this processor does not compute in %s: what is frozen is held in it and computed in float32", wish)


def keep_text_states(model: nn.Module, lightning: DictConfig) -> None:
    """``lightning.cache_text``: each prompt goes through the text encoder once in a run.

    Raises:
        ConfigError: something of the encoder learns, or there is none.
    """
    if not lightning.get("cache_text"):
        return
    keep = getattr(model, "keep_text_states", None)
    if keep is None:
        raise ConfigError("lightning.cache_text is for a model with a text encoder, and this one has none")
    keep()
