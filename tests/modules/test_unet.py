"""The UNet against reference numbers, in each of its released shapes."""

from __future__ import annotations

import pytest
import torch

from ldm.modules.diffusionmodules.util import timestep_embedding
from ldm.util import instantiate_from_config
from tests.helpers import GoldenCase, golden_case


def build(case: GoldenCase) -> torch.nn.Module:
    node, weights = case.config, case.weights
    if "config_node" in case.about:
        for key in case.about["config_node"].split("."):
            node = node[key]
        prefix = case.about["weights_prefix"]
        weights = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    unet = instantiate_from_config(node)
    unet.load_state_dict(weights, strict=True)
    return unet.eval()


@pytest.mark.parametrize("name", ["unet_sd1", "unet_sd2", "unet_uncond", "unet_class"])
def test_golden(name: str) -> None:
    case = golden_case(name)
    unet = build(case)
    middle = []
    unet.get_submodule("middle_block").register_forward_hook(lambda module, args, output: middle.append(output))
    with torch.no_grad():
        eps = unet(case.inputs["x"], case.inputs["t"], context=case.inputs.get("context"), y=case.inputs.get("y"))
    case.assert_close("t_emb", timestep_embedding(case.inputs["t"], case.args["model_channels"]))
    case.assert_close("middle", middle[0])
    case.assert_close("eps", eps)
