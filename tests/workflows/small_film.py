"""A small film model with random weights, which sees its first frame moved, as files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from ldm.checkpoint import save_state_dict
from ldm.util import instantiate_from_config
from tests.workflows.small_model import CONFIG, WORDS

NUMBERS = 8  # how wide fps and the like are told
FRAMES = 3


def write_small_film_model(folder: Path) -> Path:
    """Write model.safetensors, config.yaml and vocab.txt; returns the path of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    document: dict[str, Any] = copy.deepcopy(CONFIG)
    params = document["model"]["params"]
    document["model"]["target"] = "ldm.models.diffusion.ddpm.LatentVideoDiffusion"
    params.pop("conditioning_key")
    params |= {"first_stage_key": "frames", "concat_keys": ["first", "moved"], "frames": FRAMES}
    params["number_width"] = NUMBERS
    params["unet_config"]["target"] = "ldm.modules.diffusionmodules.video_model.VideoUNet"
    params["unet_config"]["params"] |= {"in_channels": 12, "num_classes": "sequential", "adm_in_channels": 3 * NUMBERS}
    OmegaConf.save(OmegaConf.create(document), folder / "config.yaml")
    params["cond_stage_config"]["params"]["tokenizer"] = str(folder / "vocab.txt")
    torch.manual_seed(0)
    model = instantiate_from_config(document["model"])
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    save_state_dict(model.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors"
