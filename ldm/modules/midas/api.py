"""Relative depth from one picture: MiDaS (Ranftl et al. 2022) on a hybrid dense prediction transformer (2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DPTConfig, DPTForDepthEstimation

from ldm.modules.midas.keys import from_transformers, to_transformers
from ldm.util import MissingPartError

SIDE = 384  # of the square pictures that the network was trained on


class MiDaSInference(nn.Module):
    """Pictures [B, 3, H, W] in [-1, 1] -> inverse depth up to scale and shift, [B, 1, 384, 384].

    The weights have the names of released checkpoints; ``model_path`` is not read, they come with the model's own file.
    """

    def __init__(self, model_type: str = "dpt_hybrid", model_path: str | None = None) -> None:
        """Raises MissingPartError for another network than 'dpt_hybrid'."""
        super().__init__()
        if model_type != "dpt_hybrid":
            raise MissingPartError(f"no MiDaS network '{model_type}': only 'dpt_hybrid', which SD v2 uses, is here")
        self.model = DPTForDepthEstimation(_hybrid_config())
        self.register_state_dict_post_hook(_released_names)
        self.register_load_state_dict_pre_hook(_own_names)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (SIDE, SIDE):
            x = F.interpolate(x, size=(SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True).clamp(-1, 1)
        return self.model(x).predicted_depth[:, None]


def _hybrid_config() -> DPTConfig:
    """A ResNet-50 with three stages below a ViT-B; the first two levels of the neck come from the ResNet."""
    return DPTConfig(
        is_hybrid=True,
        layer_norm_eps=1e-6,
        backbone_out_indices=[0, 1, 8, 11],
        neck_hidden_sizes=[256, 512, 768, 768],
        reassemble_factors=[1, 1, 1, 0.5],
        use_auxiliary_head=False,
    )


def _released_names(module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    below = f"{prefix}model."
    own = {key.removeprefix(below): state_dict.pop(key) for key in list(state_dict) if key.startswith(below)}
    with torch.no_grad():
        state_dict.update({below + name: tensor for name, tensor in from_transformers(own).items()})


def _own_names(module: nn.Module, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
    below = f"{prefix}model."
    given = {key.removeprefix(below): state_dict.pop(key) for key in list(state_dict) if key.startswith(below)}
    state_dict.update({below + name: tensor for name, tensor in to_transformers(given).items()})
