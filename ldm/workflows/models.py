"""Which model a command works with: files, device and precision into a model that is ready to sample."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from ldm.building.kinds import MODULE
from ldm.checkpoint import load_model, load_weights, read_state_dict
from ldm.models.hooks import without_lightning
from ldm.modules.cpu.packed import pack_for_inference
from ldm.modules.encoders.conditioner import text_encoders_of
from ldm.util import ConfigError, UserError, class_from_str, section
from ldm.workflows.files import find_model

log = logging.getLogger(__name__)

PRECISIONS: dict[str, torch.dtype | None] = {
    "full": None,
    "autocast": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def open_model(
    ckpt: str | Path | None = None,
    config: str | Path | None = None,
    *,
    device: str | None = None,
    precision: str = "full",
    vae: str | Path | None = None,
) -> tuple[Any, dict[str, Any]]:
    """``(model, inference)``: a LatentDiffusion in eval mode, and the ``inference:`` section of its YAML.

    The model keeps that section, too, so that it is asked as its YAML says wherever it is handed to.
    A model whose YAML keeps averaged weights (``use_ema``) gets those, if the checkpoint has them, in place of the
    others. ``precision`` is that of the weights: full, autocast (both float32), bf16 or fp16. ``vae`` are weights of an
    autoencoder in place of the checkpoint's. On a CPU the layers are packed (see ``ldm.modules.cpu.packed``): the same
    numbers but for rounding, sooner.

    Raises:
        UserError: a file, the device or the precision does not fit, the text encoder's tokenizer cannot be had, or the
            model is no latent diffusion model.
    """
    place = choose_device(device)
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision '{precision}'; known: {', '.join(PRECISIONS)}")
    model = model_of(*find_model(ckpt, config), place, precision, vae)
    return model, dict(model.origin.inference)


def model_of(
    ckpt: Path, document: DictConfig, place: torch.device, precision: str = "full", vae: str | Path | None = None
) -> Any:
    """The model that a document describes, as ``open_model`` gives it.

    Raises:
        UserError: as ``open_model``.
    """
    node, ema = sampling_node(document)
    log.info("loading %s", ckpt)
    sections = {"model": node, "inference": document.get("inference")}
    model: Any = load_model(sections, ckpt, device=place, dtype=PRECISIONS[precision], ema=ema)
    if vae is not None:
        take_autoencoder(model, vae)
    for encoder in text_encoders_of(model.cond_stage_model):
        encoder.open_tokenizer()
    if place.type == "cpu":
        pack_for_inference(model)
    return model


def take_autoencoder(model: Any, path: str | Path) -> None:
    """Give a model other weights for its autoencoder: of a file of one, of a whole model, or of a diffusers folder.

    Raises:
        UserError: it is no such file, or of another shape.
    """
    weights = read_state_dict(path)
    start = "first_stage_model."
    whole = {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}
    own = {key: value for key, value in (whole or weights).items() if not key.startswith(("loss.", "model_ema."))}
    try:
        load_weights(model.first_stage_model, own, strict=True)
    except UserError as error:
        raise UserError(f"--vae '{path}' is no autoencoder for this model: {error}") from error


def sampling_node(document: DictConfig) -> tuple[Mapping[str, Any], bool]:
    """The ``model:`` node without a second copy of the weights for averages, and whether the averages are wanted.

    Raises:
        ConfigError: there is no model, or it is no latent diffusion model.
    """
    from ldm.models.diffusion.latent import LatentModel

    written = section(document, "model")
    if "target" not in written:
        raise ConfigError("the configuration has no section 'model' with a 'target'")
    node = without_lightning(written)
    kind = class_from_str(node["target"], MODULE)
    if not issubclass(kind, LatentModel):
        raise ConfigError(f"'{written['target']}' cannot make pictures from prompts; a LatentDiffusion is needed")
    params = section(node, "params")
    ema = params.get("use_ema", kind.averages_by_default)
    return {**node, "params": {**params, "use_ema": False}}, bool(ema)


def choose_device(name: str | None) -> torch.device:
    """The device called ``name``; without a name a CUDA device if there is one, else the CPU.

    Of several processes that torchrun started each gets a GPU of its own (LOCAL_RANK).

    Raises:
        UserError: no such device here.
    """
    if name is None and not torch.cuda.is_available():
        return torch.device("cpu")
    if name is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"there is no device '{name}' here; 'cpu' always works") from error
    return device
