"""A LoRA file under the names that another program has for the same layers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ldm.additions.lora.lora import check_model, matched, report_missing
from ldm.additions.lora.names import places
from ldm.checkpoint.lora import LoraFile
from ldm.checkpoint.lora.diffusers import SETTINGS
from ldm.checkpoint.lora.writing import KOHYA, Written, write_lora
from ldm.checkpoint.unfilled import without_values
from ldm.shipped import here_or_shipped
from ldm.util import UserError, instantiate_from_config, read_yaml
from ldm.workflows.models import sampling_node

log = logging.getLogger(__name__)

CONFIGS = {  # by the width of the context that a network reads
    192: "configs/tiny/ldm.yaml",
    768: "configs/stable-diffusion/v1-inference.yaml",
    1024: "configs/stable-diffusion/v2-inference-v.yaml",
    1280: "configs/latent-diffusion/txt2img-1p4B-eval.yaml",
}


def respell(file: LoraFile, target: Path, spelling: str = KOHYA, config: str | None = None) -> int:
    """Write a LoRA in another spelling; how many modules it has.

    Args:
        config: the YAML of the model that it is for; None: the one whose context is as wide as the file's.

    Raises:
        UserError: it cannot be told which model it is for, or the spelling has no names for its kind.
    """
    modules = converted(file, model_for(file, config))
    notes = {key: value for key, value in file.metadata.items() if key not in ("format", SETTINGS)}
    write_lora(target, modules, spelling, notes)
    return len(modules)


def model_for(file: LoraFile, config: str | None) -> Any:
    """The model that a file's names are of, without weights.

    Raises:
        UserError: it cannot be told which.
    """
    width = width_of_context(file)
    if config is None and width not in CONFIGS:
        raise UserError(f"it cannot be told which model '{file.path}' is for; name its YAML with --config")
    path = here_or_shipped(CONFIGS[width or 0] if config is None else config)
    node, _ = sampling_node(read_yaml(path, config is not None))
    plain = OmegaConf.to_container(OmegaConf.create(dict(node)), resolve=True)
    with without_values():
        return instantiate_from_config(plain)  # type: ignore[arg-type]


def width_of_context(file: LoraFile) -> int | None:
    """The width of the context that the file's cross-attention takes, which tells models apart."""
    for key, parts in file.modules.items():
        if key.module.endswith("attn2_to_k") and "lora_down" in parts:
            return parts["lora_down"].shape[1]
    return None


def converted(file: LoraFile, model: Any) -> list[Written]:
    """The file's modules under the names that both spellings are made of."""
    modules, missing = matched(file, places(model))
    check_model(file, modules, model)
    if missing or file.unknown:
        log.warning("%s", report_missing(file, missing))
    return [Written(module.place.network, module.place.name, module.parts) for module in modules]
