"""Stable Diffusion XL, its refiner included, with random weights in small sizes, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from ldm.checkpoint import save_state_dict
from ldm.models.hooks import without_lightning
from ldm.util import instantiate_from_config
from tests.modules.encoders.vocabularies import bpe_size, write_bpe

ENCODERS, LEVELS = "ldm.modules.encoders.modules", "ldm.modules.diffusionmodules"
CLIP_L, CLIP_G, POOLED, NUMBER = 24, 32, 16, 8
LEVELS_OF_XL: dict[str, Any] = {
    "channel_mult": [1, 2, 2], "attention_resolutions": [4, 2], "transformer_depth": [1, 1, 2]
}  # fmt: skip
TABLE = {"target": f"{LEVELS}.discretizer.LegacyDDPMDiscretization"}


def text_encoders(vocabulary: Path, refiner: bool) -> list[dict[str, Any]]:
    """CLIP L and bigG in small, or the second alone."""
    size, tokenizer = bpe_size(vocabulary), str(vocabulary)
    first = {
        "input_key": "txt", "target": f"{ENCODERS}.FrozenCLIPEmbedder",
        "params": {
            "version": "small", "tokenizer": tokenizer, "layer": "hidden", "layer_idx": 2,
            "config": {
                "hidden_size": CLIP_L, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
                "vocab_size": size, "hidden_act": "quick_gelu", "projection_dim": CLIP_L,
                "bos_token_id": size - 2, "eos_token_id": size - 1,
            },
        },
    }  # fmt: skip
    second = {
        "input_key": "txt", "target": f"{ENCODERS}.FrozenOpenCLIPEmbedder2",
        "params": {
            "arch": "small", "tokenizer": tokenizer, "layer": "penultimate", "always_return_pooled": True,
            "legacy": False,
            "config": {"embed_dim": POOLED, "width": CLIP_G, "heads": 4, "layers": 3, "vocab_size": size},
        },
    }  # fmt: skip
    return [second] if refiner else [first, second]


def small_config(vocabulary: Path, refiner: bool = False) -> dict[str, Any]:
    """The document of a small base model, or of its refiner."""
    numbers = ["original_size_as_tuple", "crop_coords_top_left"]
    numbers.append("aesthetic_score" if refiner else "target_size_as_tuple")
    sizes = {"target": f"{ENCODERS}.ConcatTimestepEmbedderND", "params": {"outdim": NUMBER}}
    entries = [{"input_key": number, **sizes} for number in numbers]
    return {
        "model": {
            "target": "ldm.models.diffusion.ddpm.DiffusionEngine",
            "params": {
                "scale_factor": 0.13025, "disable_first_stage_autocast": True, "sampling_size": 8,
                "denoiser_config": {
                    "target": f"{LEVELS}.denoiser.DiscreteDenoiser",
                    "params": {
                        "num_idx": 1000, "discretization_config": TABLE,
                        "scaling_config": {"target": f"{LEVELS}.denoiser_scaling.EpsScaling"},
                    },
                },
                "network_config": {
                    "target": f"{LEVELS}.openaimodel.UNetModel",
                    "params": {
                        "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": 1,
                        "attention_resolutions": [2], "channel_mult": [1, 2], "num_head_channels": 16,
                        "transformer_depth": [1, 2], "use_linear_in_transformer": True, "num_classes": "sequential",
                        "context_dim": CLIP_G if refiner else CLIP_L + CLIP_G,
                        "adm_in_channels": POOLED + (5 if refiner else 6) * NUMBER,
                    },
                },
                "conditioner_config": {
                    "target": f"{ENCODERS}.GeneralConditioner",
                    "params": {"emb_models": [*text_encoders(vocabulary, refiner), *entries]},
                },
                "first_stage_config": {
                    "target": "ldm.models.autoencoder.AutoencoderKL",
                    "params": {
                        "embed_dim": 4, "lossconfig": {"target": "torch.nn.Identity"},
                        "ddconfig": {
                            "double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3,
                            "ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [],
                            "dropout": 0.0,
                        },
                    },
                },
                "loss_fn_config": {
                    "target": f"{LEVELS}.loss.StandardDiffusionLoss",
                    "params": {
                        "loss_weighting_config": {"target": f"{LEVELS}.loss_weighting.EpsWeighting"},
                        "sigma_sampler_config": {
                            "target": f"{LEVELS}.sigma_sampling.DiscreteSampling",
                            "params": {"num_idx": 1000, "discretization_config": TABLE},
                        },
                    },
                },
            },
        },
        "inference": {"height": 32, "width": 32, "steps": 5, "guidance_scale": 3.0, "sampler": "euler"},
    }  # fmt: skip


def write_small_xl(folder: Path, refiner: bool = False, **network: Any) -> Path:
    """Write model.safetensors, config.yaml and a vocabulary; returns the path of the weights.

    Args:
        network: parameters of the UNet that are others.
    """
    config = small_config(write_bpe(folder / "vocabulary"), refiner)
    config["model"]["params"]["network_config"]["params"] |= network
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    torch.manual_seed(int(refiner))
    model = instantiate_from_config(without_lightning(config["model"]))
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():  # layers that start at zero would hide what is before them
            torch.nn.init.normal_(parameter, std=0.1)
    save_state_dict(model.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors"
