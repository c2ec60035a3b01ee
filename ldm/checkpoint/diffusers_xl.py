"""The configuration that a diffusers folder of Stable Diffusion XL describes: two text encoders, or one, and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldm.util import UserError

_ENGINE = "ldm.models.diffusion.ddpm.DiffusionEngine"
_ENCODERS = "ldm.modules.encoders.modules"
_LEVELS = "ldm.modules.diffusionmodules"
_SAMPLERS = "ldm.models.diffusion.samplers.edm"
_SCALINGS = {"epsilon": "EpsScaling", "v_prediction": "VScaling"}
SECOND = "text_encoder_2"


def text_prefixes(index: Mapping[str, Any]) -> dict[str, str]:
    """The folders of a pipeline's text encoders and where their weights belong; a refiner has the second alone.

    ``index`` is the pipeline's model_index.json.
    """
    folders = ["text_encoder", SECOND] if index.get("text_encoder") not in (None, [None, None]) else [SECOND]
    return {part: f"conditioner.embedders.{place}." for place, part in enumerate(folders)}


def whole_config(
    path: Path, index: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]], given: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The node of a whole pipeline.

    Args:
        index: its model_index.json.
        parts: the nodes of ``unet`` and ``vae``.
        given: the configurations (JSON) of ``unet``, ``vae`` and ``scheduler``.

    Raises:
        UserError: it asks for something that is not built here.
    """
    vae, unet = given["vae"], given["unet"]
    if vae.get("latents_mean") is not None:
        raise UserError(f"the latents of '{path}' are shifted as well as scaled ('latents_mean'), which is not here")
    channels, sees = vae.get("latent_channels", 4), unet.get("in_channels", 4)
    if sees != channels:
        raise UserError(f"the UNet in '{path}' sees {sees} channels beside latents of {channels}: in-painting and "
                        "editing with Stable Diffusion XL are not here")
    return {
        "target": _ENGINE,
        "params": {
            "scale_factor": vae.get("scaling_factor", 0.13025),
            "disable_first_stage_autocast": bool(vae.get("force_upcast", True)),
            "zero_empty_text": index.get("force_zeros_for_empty_prompt"),
            "sampling_size": unet.get("sample_size"),
            "denoiser_config": _denoiser(path, given["scheduler"]),
            "network_config": parts["unet"],
            "conditioner_config": _conditioner(path, index, unet),
            "first_stage_config": parts["vae"],
            "sampler_config": {
                "target": f"{_SAMPLERS}.EulerEDMSampler",
                "params": {
                    "num_steps": 30,
                    "discretization_config": _table(given["scheduler"]),
                    "guider_config": {"target": f"{_LEVELS}.guiders.VanillaCFG", "params": {"scale": 5.0}},
                },
            },
        },
    }


def _table(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "target": f"{_LEVELS}.discretizer.LegacyDDPMDiscretization",
        "params": {
            "linear_start": scheduler.get("beta_start", 0.0001),
            "linear_end": scheduler.get("beta_end", 0.02),
            "num_timesteps": scheduler.get("num_train_timesteps", 1000),
        },
    }


def _denoiser(path: Path, scheduler: Mapping[str, Any]) -> dict[str, Any]:
    schedule, prediction = scheduler.get("beta_schedule", "linear"), scheduler.get("prediction_type", "epsilon")
    kind = str(scheduler.get("_class_name", ""))
    if schedule != "scaled_linear" or prediction not in _SCALINGS or kind.startswith("EDM"):
        raise UserError(
            f"'{path / 'scheduler'}' asks for {kind or 'a scheduler'} with '{schedule}' and '{prediction}', which is "
            "not built here"
        )
    if scheduler.get("rescale_betas_zero_snr"):
        raise UserError(f"'{path / 'scheduler'}' asks for a last level without any signal, which is not built here")
    table = _table(scheduler)
    return {
        "target": f"{_LEVELS}.denoiser.DiscreteDenoiser",
        "params": {
            "num_idx": table["params"]["num_timesteps"],
            "scaling_config": {"target": f"{_LEVELS}.denoiser_scaling.{_SCALINGS[prediction]}"},
            "discretization_config": table,
        },
    }


def _conditioner(path: Path, index: Mapping[str, Any], unet: Mapping[str, Any]) -> dict[str, Any]:
    numbers = ["original_size_as_tuple", "crop_coords_top_left"]
    numbers.append("aesthetic_score" if index.get("requires_aesthetics_score") else "target_size_as_tuple")
    outdim = unet.get("addition_time_embed_dim", 256)
    sizes = {"target": f"{_ENCODERS}.ConcatTimestepEmbedderND", "params": {"outdim": outdim}}
    entries = [_text_encoder(path, part) for part in text_prefixes(index)]
    entries += [{"input_key": key, **sizes} for key in numbers]
    return {"target": f"{_ENCODERS}.GeneralConditioner", "params": {"emb_models": entries}}


def _text_encoder(path: Path, part: str) -> dict[str, Any]:
    """An encoder's node; ``version`` names its folder, which has the sizes, and the vocabulary lies beside it."""
    own = {"version": str(path / part)}
    beside = path / part.replace("text_encoder", "tokenizer")
    if beside.is_dir():
        own["tokenizer"] = str(beside)
    if part == SECOND:
        own |= {"layer": "penultimate"}
        options = {"always_return_pooled": True, "legacy": False}
        return {"input_key": "txt", "target": f"{_ENCODERS}.FrozenOpenCLIPEmbedder2", "params": {**own, **options}}
    params = {**own, "layer": "hidden", "layer_idx": -2}
    return {"input_key": "txt", "target": f"{_ENCODERS}.FrozenCLIPEmbedder", "params": params}
