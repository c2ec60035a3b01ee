"""A latent diffusion model with random weights, as files: small enough to make pictures in a moment."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from ldm.checkpoint import save_state_dict
from ldm.util import instantiate_from_config

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "circle", "square", "on", "background"]

CONFIG: dict[str, Any] = {
    "model": {
        "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
        "params": {
            "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000, "image_size": 8, "channels": 4,
            "cond_stage_key": "caption", "conditioning_key": "crossattn", "scale_factor": 0.18, "use_ema": False,
            "unet_config": {
                "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
                "params": {
                    "image_size": 8, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": 1,
                    "attention_resolutions": [1], "channel_mult": [1], "num_heads": 2, "context_dim": 16,
                    "use_spatial_transformer": True, "transformer_depth": 1, "legacy": False,
                },
            },
            "first_stage_config": {
                "target": "ldm.models.autoencoder.AutoencoderKL",
                "params": {
                    "embed_dim": 4,
                    "lossconfig": {"target": "torch.nn.Identity"},
                    "ddconfig": {
                        "double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
                        "ch_mult": [1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
                    },
                },
            },
            "cond_stage_config": {
                "target": "ldm.modules.encoders.modules.BERTEmbedder",
                "params": {
                    "n_embed": 16, "n_layer": 1, "vocab_size": len(WORDS), "max_seq_len": 8, "tokenizer": "vocab.txt",
                },
            },
        },
    },
    "inference": {"height": 32, "width": 32, "steps": 4, "guidance_scale": 3.0, "sampler": "ddim"},
}  # fmt: skip


def write_small_model(folder: Path) -> Path:
    """Write model.safetensors, config.yaml and vocab.txt; returns the path of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    OmegaConf.save(OmegaConf.create(CONFIG), folder / "config.yaml")
    config = copy.deepcopy(CONFIG["model"])
    config["params"]["cond_stage_config"]["params"]["tokenizer"] = str(folder / "vocab.txt")
    torch.manual_seed(0)
    model = instantiate_from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():  # layers that start at zero would hide what is before them
            torch.nn.init.normal_(parameter, std=0.1)
    save_state_dict(model.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors"
