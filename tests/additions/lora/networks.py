"""The networks of the golden cases of LoRA, where a LatentDiffusion has them."""

from __future__ import annotations

from typing import Any

from torch import nn

from ldm.util import instantiate_from_config
from tests.helpers import golden_case


class Networks(nn.Module):
    """A UNet and a text encoder."""

    embedding_manager = None
    parameterization = "eps"

    def __init__(self, unet: nn.Module, encoder: Any) -> None:
        super().__init__()
        self.model: Any = nn.Module()
        self.model.diffusion_model = unet
        self.cond_stage_model = encoder


def golden_networks() -> Networks:
    """Those of Stable Diffusion 1, small, with the weights that every case begins from."""
    unet_case, text = golden_case("unet_sd1"), golden_case("clip_text")
    unet = instantiate_from_config(unet_case.config)
    unet.load_state_dict(unet_case.weights)
    node = text.config
    node.params.config = text.args["hf_text_config"]
    encoder = instantiate_from_config(node)
    encoder.load_state_dict(text.weights)
    return Networks(unet, encoder).eval()
