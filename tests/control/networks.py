"""Small networks with reference weights, and plain calls of them."""

from __future__ import annotations

import functools

import torch

from ldm.util import instantiate_from_config
from tests.helpers import GoldenCase, golden_case

NAMES = ("unet_sd1", "unet_sd2", "unet_uncond")


@functools.cache
def network(name: str) -> tuple[torch.nn.Module, GoldenCase]:
    """A UNet of tests/golden, and its case; whoever changes it has to put it back."""
    case = golden_case(name)
    node, prefix = case.config, case.about.get("weights_prefix", "")
    for key in case.about.get("config_node", "").split("."):
        node = node[key] if key else node
    unet = instantiate_from_config(node)
    unet.load_state_dict({k.removeprefix(prefix): v for k, v in case.weights.items() if k.startswith(prefix)})
    return unet.eval(), case


@torch.no_grad()
def output(name: str, timestep: int = 500, rows: int | None = None, seed: int | None = None) -> torch.Tensor:
    """The network's output for its reference input (or a random one), all rows at one timestep."""
    unet, case = network(name)
    x, context = case.inputs["x"], case.inputs.get("context")
    if seed is not None:
        x = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    x = x[:rows]
    return unet(x, torch.full((len(x),), timestep), context=None if context is None else context[: len(x)])
