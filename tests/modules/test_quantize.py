"""The quantiser against taming's, and the indices of a shortened codebook."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from taming.modules.vqvae.quantize import VectorQuantizer as TamingQuantizer

from ldm.modules.quantize import VectorQuantizer
from ldm.util import ConfigError


def pair() -> tuple[VectorQuantizer, TamingQuantizer]:
    torch.manual_seed(0)
    ours, theirs = VectorQuantizer(16, 4), TamingQuantizer(16, 4, 0.25)
    torch.nn.init.normal_(ours.embedding.weight)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_codes_loss_and_gradients_are_tamings() -> None:
    ours, theirs = pair()
    z = torch.randn(2, 4, 3, 5, requires_grad=True)
    results = []
    for quantizer in (ours, theirs):
        codes, loss, (_, _, indices) = quantizer(z)
        gradients = torch.autograd.grad((codes * codes.detach()).sum() + loss, [z, quantizer.embedding.weight])
        results.append((codes, loss, indices.flatten(), *gradients))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


def test_beta_weighs_the_encoder_when_not_legacy() -> None:
    ours, _ = pair()
    z = torch.randn(1, 4, 2, 2)
    ours.legacy, ours.beta = False, 0.0
    chosen, loss, _ = ours(z.requires_grad_())
    assert torch.autograd.grad(loss, z, retain_graph=True)[0].abs().sum() == 0
    torch.testing.assert_close(loss, (chosen - z).square().mean())


def test_low_precision_input_is_compared_in_the_codebooks_precision() -> None:
    ours, _ = pair()
    z = torch.randn(2, 4, 3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        codes, _, _ = ours(z)
    assert codes.dtype is torch.float32 and torch.equal(codes, ours(z)[0])


def test_remapped_indices_count_within_the_codes_in_use(tmp_path: Path) -> None:
    used = np.array([3, 7, 11])
    np.save(tmp_path / "used.npy", used)
    quantizer = VectorQuantizer(16, 4, remap=str(tmp_path / "used.npy"), unknown_index="extra", sane_index_shape=True)
    indices = torch.tensor([[11, 3, 5, 7]])
    mapped = quantizer.remap_to_used(indices)
    assert mapped.tolist() == [[2, 0, 3, 1]] and quantizer.re_embed == 4
    assert quantizer.unmap_to_all(mapped).tolist() == [[11, 3, 3, 7]]
    assert quantizer(torch.randn(2, 4, 3, 5))[2][2].shape == (2, 3, 5)
    assert "used" in quantizer.state_dict()


def test_a_remap_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.npy"):
        VectorQuantizer(16, 4, remap=str(tmp_path / "none.npy"))
