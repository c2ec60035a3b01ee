"""The configuration of a released file that comes without one, by the shapes of its weights."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ldm.checkpoint import read_state_dict
from ldm.shipped import here_or_shipped
from ldm.util import read_yaml

log = logging.getLogger(__name__)

# columns of the matrix that reads the vector -> the configuration; what differs in nothing else is told by its name
VECTOR = "model.diffusion_model.label_emb.0.0.weight"
BY_VECTOR = {2816: "configs/sdxl/sd_xl_base.yaml", 2560: "configs/sdxl/sd_xl_refiner.yaml"}
BY_NAME = {"configs/sdxl/sd_xl_base.yaml": (re.compile("turbo", re.IGNORECASE), "configs/sdxl/sd_xl_turbo.yaml")}
V_PREDICTION = "v_pred"  # an empty tensor of this name is how trainers mark a model that predicts v
V_SCALING = "ldm.modules.diffusionmodules.denoiser_scaling.VScaling"


def recognised(ckpt: Path) -> DictConfig | None:
    """The document for a file whose shapes say what it is; None for others.

    Raises:
        UserError: it is no file of weights.
    """
    weights = read_state_dict(ckpt)
    path = path_for(weights, ckpt.name)
    if path is None:
        return None
    document = read_yaml(here_or_shipped(path), False)
    if V_PREDICTION in weights:
        OmegaConf.update(document, "model.params.denoiser_config.params.scaling_config.target", V_SCALING)
    log.info("by its shapes '%s' goes with %s", ckpt, path)
    return document


def path_for(weights: Mapping[str, Tensor], name: str) -> str | None:
    """The configuration for weights of these shapes, in a file of this name."""
    reads = weights.get(VECTOR)
    path = BY_VECTOR.get(reads.shape[1]) if reads is not None and reads.dim() == 2 else None
    pattern, other = BY_NAME.get(path or "", (None, None))
    return other if pattern is not None and pattern.search(name) else path
