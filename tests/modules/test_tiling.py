"""Convolutions that go on at the other side."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ldm.modules.cpu.packed import pack_for_inference
from ldm.modules.tiling import tiled


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (5, 1, 2), (1, 1, 0), (4, 2, 1), (7, 3, 3)]
)
@pytest.mark.parametrize("packed", [False, True])
def test_as_torchs_own_circular_padding(kernel: int, stride: int, padding: int, packed: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, kernel, stride, padding)).requires_grad_(False)
    circular = nn.Conv2d(3, 4, kernel, stride, padding, padding_mode="circular").requires_grad_(False)
    circular.load_state_dict(plain[0].state_dict())
    x = torch.randn(2, 3, 12, 18)
    layer = pack_for_inference(plain) if packed else plain
    before = layer(x)
    with tiled(layer):
        torch.testing.assert_close(layer(x), circular(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(layer(x), before), "nothing stays on the layer"
