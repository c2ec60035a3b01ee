"""Networks of measures with weights that are drawn from the names of their parameters, as files."""

from __future__ import annotations

import zlib
from pathlib import Path

import torch
from torch import Tensor, nn

from ldm.metrics.networks import NETWORKS
from ldm.workflows.measure.judges import MAKE


def drawn(module: nn.Module) -> dict[str, Tensor]:
    """A state dict in which every parameter depends on its name and shape alone; see eval_networks.json."""
    state = {}
    for name, value in module.state_dict().items():
        n = torch.randn(value.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        if not value.is_floating_point():
            state[name] = torch.zeros_like(value)
        elif value.dim() > 1:
            state[name] = n * (2 / value[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            state[name] = 1 + 0.1 * n.abs()
        else:
            state[name] = 0.1 * n + (1 if name.endswith("weight") else 0)
    return state


def write_networks(folder: Path, *names: str) -> None:
    """Weights under the released names, with layers that no measure uses, as the released files have them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        unused = {"classifier.6.weight": torch.ones(1), "fc.weight": torch.ones(1), "fc1.bias": torch.ones(1)}
        ignored = {key: value for key, value in unused.items() if key.startswith(NETWORKS[name].ignore)}
        torch.save(drawn(MAKE[name]()) | ignored, folder / NETWORKS[name].file.saved_as)
