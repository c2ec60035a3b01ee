"""What the configuration of a model in levels of sigma says, as the code that was released with SDXL has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldm.building.kinds import MODULE
from ldm.models.diffusion.prior import PICTURES
from ldm.modules.diffusionmodules.video_model import VideoUNet
from ldm.util import ConfigError, class_from_str

NO_CONDITION = {"target": "ldm.modules.encoders.conditioner.GeneralConditioner", "params": {"emb_models": []}}


@dataclass(frozen=True)
class EngineOptions:
    """What the released configurations say of a model besides its parts."""

    loss_fn_config: dict[str, Any] | None = None  # for training
    sampler_config: dict[str, Any] | None = None  # what sampling begins with: levels, steps, guidance
    input_key: str = "jpg"  # the batch's key of the picture
    caption_key: str = "txt"  # and of the text
    ema_decay_rate: float = 0.9999
    disable_first_stage_autocast: bool = False  # keep the autoencoder in float32, where half precision overflows
    en_and_decode_n_samples_a_time: int | None = None  # pictures that the autoencoder gets at once; None: all
    network_wrapper: str | None = None  # accepted for old YAMLs: there is one
    log_keys: Sequence[str] | str | None = None  # accepted for old YAMLs
    no_cond_log: bool = False  # accepted for old YAMLs
    compile_model: bool = False  # accepted for old YAMLs
    sampling_size: int | Sequence[int] | None = None  # of the latents (height, width), where none is asked for
    zero_empty_text: bool | None = None  # see ``EngineModel.zeroes_text``
    spatial: str = "trained"  # "frozen": of a network of films, only what pictures' networks lack learns


@dataclass(frozen=True)
class TrainingOptions:
    """How it is trained: parameters of ``LatentModel`` that mean the same here."""

    scale_factor: float = 1.0
    optimizer_config: dict[str, Any] | None = None
    scheduler_config: dict[str, Any] | None = None
    monitor: str | None = None
    draws: int = 1
    personalization_config: dict[str, Any] | None = None
    lora_config: dict[str, Any] | None = None
    embedding_reg_weight: float = 0.0
    unfreeze_model: bool = False
    model_lr: float = 0.0
    reg_weight: float | None = None
    prior_loss_weight: float = 1.0
    prior_every: int = 1
    reg_target: str = PICTURES
    ucg_training: dict[str, Any] | None = None


def makes_films(network: Mapping[str, Any]) -> bool:
    """Whether a network's node names one of films."""
    return issubclass(class_from_str(network["target"], MODULE), VideoUNet)


def network_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The network's node as this house has it: attention in transformers, in the precision of its weights.

    Raises:
        ConfigError: it is no node of a network.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("params"), Mapping):
        raise ConfigError("network_config needs a 'target' and its 'params'")
    given = {key: value for key, value in config["params"].items() if key != "use_fp16"}
    return {**config, "params": {**given, "self_transformers": given.get("context_dim") is None}}


def entries_of(conditioner_config: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The items of ``emb_models``.

    Raises:
        ConfigError: there is no such list.
    """
    entries = (conditioner_config.get("params") or {}).get("emb_models")
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError("conditioner_config needs 'emb_models', a list of encoders, in its 'params'")
    return entries


def conditioning_of(network: Mapping[str, Any], channels: int) -> str:
    """Which parts of a condition a network takes: channels beside a latent of ``channels``, a context, a vector."""
    parts = "crossattn" if int(network.get("in_channels", channels)) == channels else "hybrid"
    return parts if network.get("num_classes") is None else f"{parts}-adm"
