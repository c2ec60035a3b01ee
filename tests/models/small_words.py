"""A latent diffusion model with random weights that can learn words."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ldm.util import instantiate_from_config
from tests.workflows.small_model import CONFIG, WORDS

VOCABULARY = [*WORDS, "*", "@", "t", "##oy"]


def small_node(folder: Path, **params: Any) -> dict[str, Any]:
    """The ``model:`` node, with its vocabulary written into ``folder``."""
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    node = copy.deepcopy(CONFIG["model"])
    node["params"]["cond_stage_config"]["params"] |= {
        "tokenizer": str(folder / "vocab.txt"), "vocab_size": len(VOCABULARY),
    }  # fmt: skip
    node["params"] |= {"first_stage_key": "image", "cond_stage_trainable": True, "monitor": None, **params}
    return node


def small_model(folder: Path, **params: Any) -> Any:
    """The model; no layer is left at zero, so that everything has a gradient."""
    torch.manual_seed(0)
    model = instantiate_from_config(small_node(folder, **params))
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model
