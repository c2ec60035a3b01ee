"""Stable Video Diffusion's diffusers folders: where their weights belong, and the configuration that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.checkpoint.diffusers_keys import Tensors, autoencoder_weights
from ldm.util import UserError

UNET, AUTOENCODER = "UNetSpatioTemporalConditionModel", "AutoencoderKLTemporalDecoder"
IMAGE_ENCODER = "CLIPVisionModelWithProjection"
_NETWORK = "ldm.modules.diffusionmodules.video_model.VideoUNet"
_ENGINE = "ldm.models.diffusion.ddpm.DiffusionEngine"
_FIRST_STAGE = "ldm.models.autoencoder.AutoencodingEngine"
_FIRST_FRAME = "ldm.models.video_autoencoder.MeanEncoder"
_ENCODERS, _LEVELS = "ldm.modules.encoders.modules", "ldm.modules.diffusionmodules"
_KERNEL = [3, 1, 1]  # of all temporal convolutions, which diffusers' classes do not leave open
_SIZE = [72, 128]  # of the latents of 576x1024, which diffusers' pipeline makes where nothing is asked for
_STEPS, _SCALES = 25, (1.0, 3.0)  # likewise; guidance of the first and of the last frame
# What transformers' CLIPVisionConfig has where a config.json says nothing.
_IMAGE_TOWER = {
    "hidden_size": 768, "intermediate_size": 3072, "projection_dim": 512, "num_hidden_layers": 12,
    "num_attention_heads": 12, "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu",
}  # fmt: skip
_ACTIVATIONS = {"gelu": "laion2b_s32b_b79k", "quick_gelu": "openai"}  # and whose weights have them
PREFIXES = {  # a pipeline's folders of weights, and where those belong
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "image_encoder": "conditioner.embedders.0.open_clip.",
}
_OF_FIRST_FRAME = "conditioner.embedders.3.encoder."


def makes_films(index: Mapping[str, Any]) -> bool:
    """Whether a pipeline's model_index.json names a network of films."""
    named = index.get("unet")
    return isinstance(named, list | str) and UNET in named


def first_stage_weights(tensors: Mapping[str, Tensor]) -> Tensors:
    """``AutoencoderKLTemporalDecoder`` -> ``AutoencodingEngine``.

    That has nothing between its encoder and the latents: the 1x1 convolution which is there becomes a part of the
    encoder's last one.
    """
    made = autoencoder_weights(tensors)
    weight, bias = (made.pop(f"quant_conv.{name}").float() for name in ("weight", "bias"))
    last = made["encoder.conv_out.weight"].float(), made["encoder.conv_out.bias"].float()
    made["encoder.conv_out.weight"] = torch.tensordot(weight.flatten(1), last[0], dims=1)
    made["encoder.conv_out.bias"] = weight.flatten(1) @ last[1] + bias
    return made


def weights_of_first_frame(first_stage: Mapping[str, Tensor]) -> Tensors:
    """The encoder of a whole model's ``first_stage_model.`` once more, where the condition has its own."""
    start = f"{PREFIXES['vae']}encoder."
    return {
        f"{_OF_FIRST_FRAME}encoder.{key.removeprefix(start)}": value
        for key, value in first_stage.items()
        if key.startswith(start)
    }


def film_config(
    path: Path, parts: Mapping[str, Mapping[str, Any]], given: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The node of a whole pipeline.

    Args:
        parts: the nodes of ``unet``, ``vae`` and ``image_encoder``.
        given: the configurations (JSON) of ``unet``, ``vae`` and ``scheduler``.

    Raises:
        UserError: it asks for something that is not built here.
    """
    unet, vae = given["unet"], given["vae"]
    channels, sees = vae.get("latent_channels", 4), unet.get("in_channels", 8)
    numbers, told = unet.get("addition_time_embed_dim", 256), unet.get("projection_class_embeddings_input_dim", 768)
    if sees != 2 * channels or told != 3 * numbers:
        raise UserError(
            f"the UNet in '{path}' sees {sees} channels and a vector of {told}: not a latent of {channels} beside that "
            f"of the first frame, and three numbers of {numbers}"
        )
    return {
        "target": _ENGINE,
        "params": {
            "scale_factor": vae.get("scaling_factor", 0.18215),
            "disable_first_stage_autocast": bool(vae.get("force_upcast", True)),
            "sampling_size": _SIZE,
            "denoiser_config": {
                "target": f"{_LEVELS}.denoiser.Denoiser",
                "params": {"scaling_config": {"target": f"{_LEVELS}.denoiser_scaling.VScalingWithEDMcNoise"}},
            },
            "network_config": parts["unet"],
            "conditioner_config": _conditioner(parts, numbers),
            "first_stage_config": parts["vae"],
            "sampler_config": _sampler(path / "scheduler", given["scheduler"], unet.get("num_frames", 25)),
        },
    }


def _conditioner(parts: Mapping[str, Mapping[str, Any]], numbers: int) -> dict[str, Any]:
    """In the order of the released YAML, by which the vector's parts lie beside each other."""
    once = {"n_cond_frames": 1, "n_copies": 1}
    encoder = {"target": _FIRST_FRAME, "params": {"encoder_config": parts["vae"]["params"]["encoder_config"]}}
    number = {"target": f"{_ENCODERS}.ConcatTimestepEmbedderND", "params": {"outdim": numbers}}
    entries = {
        "cond_frames_without_noise": {
            "target": f"{_ENCODERS}.FrozenOpenCLIPImagePredictionEmbedder",
            "params": {**once, "open_clip_embedding_config": parts["image_encoder"]},
        },
        "fps_id": number,
        "motion_bucket_id": number,
        "cond_frames": {
            "target": f"{_ENCODERS}.VideoPredictionEmbedderWithEncoder",
            "params": {**once, "encoder_config": encoder, "is_ae": True, "disable_encoder_autocast": True},
        },
        "cond_aug": number,
    }
    models = [{"input_key": key, "is_trainable": False, **node} for key, node in entries.items()]
    return {"target": f"{_ENCODERS}.GeneralConditioner", "params": {"emb_models": models}}


def _sampler(folder: Path, scheduler: Mapping[str, Any], frames: int) -> dict[str, Any]:
    asked = {name: scheduler.get(name) for name in ("prediction_type", "timestep_type", "use_karras_sigmas")}
    if asked != {"prediction_type": "v_prediction", "timestep_type": "continuous", "use_karras_sigmas": True}:
        words = ", ".join(f"{name} {value}" for name, value in asked.items())
        raise UserError(f"'{folder}' asks for {words}; films are made with v_prediction, continuous timesteps and "
                        "Karras' sigmas")  # fmt: skip
    ends = {"sigma_min": scheduler.get("sigma_min") or 0.002, "sigma_max": scheduler.get("sigma_max") or 700.0}
    guider = {"min_scale": _SCALES[0], "max_scale": _SCALES[1], "num_frames": frames}
    return {
        "target": "ldm.models.diffusion.samplers.edm.EulerEDMSampler",
        "params": {
            "num_steps": _STEPS,
            "discretization_config": {"target": f"{_LEVELS}.discretizer.EDMDiscretization", "params": ends},
            "guider_config": {"target": f"{_LEVELS}.guiders.LinearPredictionGuider", "params": guider},
        },
    }


def film_network(params: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The node of a ``UNetSpatioTemporalConditionModel``, of whose pictures' half ``params`` are the parameters."""
    own = {
        "in_channels": config.get("in_channels", 8),
        "num_classes": "sequential",
        "adm_in_channels": config.get("projection_class_embeddings_input_dim", 768),
        "use_linear_in_transformer": True,
        "extra_ff_mix_layer": True,
        "use_spatial_context": True,
        "merge_strategy": "learned_with_images",
        "video_kernel_size": _KERNEL,
    }
    return {"target": _NETWORK, "params": {**params, **own}}


def film_autoencoder(shape: Mapping[str, Any]) -> dict[str, Any]:
    """The node of an ``AutoencoderKLTemporalDecoder`` of a ``shape`` (``ddconfig``).

    Raises:
        UserError: its middle has more or less residual blocks than the two of all autoencoders here.
    """
    if shape["num_res_blocks"] != 2:
        raise UserError(f"a temporal decoder with layers_per_block {shape['num_res_blocks']} is not built here, with 2")
    decoder = {**shape, "video_kernel_size": _KERNEL}
    return {
        "target": _FIRST_STAGE,
        "params": {
            "regularizer_config": {"target": "ldm.modules.distributions.regularizers.DiagonalGaussianRegularizer"},
            "encoder_config": {"target": f"{_LEVELS}.model.Encoder", "params": dict(shape)},
            "decoder_config": {"target": f"{_LEVELS}.temporal_decoder.VideoDecoder", "params": decoder},
        },
    }


def image_encoder(config: Mapping[str, Any]) -> dict[str, Any]:
    """The node of a ``CLIPVisionModelWithProjection``.

    Raises:
        UserError: its activation is not built here.
    """
    told = {name: config.get(name, usual) for name, usual in _IMAGE_TOWER.items()}
    if told["hidden_act"] not in _ACTIVATIONS:
        raise UserError(
            f"an image encoder with hidden_act {str(told['hidden_act'])[:80]!r} is not built here, with "
            f"{' or '.join(_ACTIVATIONS)}"
        )
    sizes = {
        "embed_dim": told["projection_dim"],
        "width": told["hidden_size"],
        "heads": told["num_attention_heads"],
        "layers": told["num_hidden_layers"],
        "patch_size": told["patch_size"],
        "image_size": told["image_size"],
        "mlp_ratio": told["intermediate_size"] / told["hidden_size"],
    }
    version = _ACTIVATIONS[told["hidden_act"]]
    return {"target": f"{_ENCODERS}.FrozenOpenCLIPImageEmbedder", "params": {"version": version, "config": sizes}}
