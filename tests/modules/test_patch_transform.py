"""The patch transform: a working codec before any training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ldm.models.autoencoder import AutoencoderKL, VQModel
from ldm.modules.diffusionmodules.model import Decoder, Encoder
from ldm.modules.diffusionmodules.patch_transform import (
    PatchDecoder,
    PatchEncoder,
    cosine_basis,
    faded,
    lowest_frequencies,
    patch_basis,
    surrounded,
)
from ldm.util import ConfigError

DDCONFIG: dict[str, Any] = {"double_z": True, "z_channels": 16, "resolution": 64, "in_channels": 3, "out_ch": 3,
                            "ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1}  # fmt: skip
ON = {**DDCONFIG, "patch_transform": True}
NO_LOSS = {"target": "torch.nn.Identity"}


def test_basis_is_the_orthonormal_cosine_transform() -> None:
    from scipy.fft import dct

    expected = torch.from_numpy(dct(torch.eye(8, dtype=torch.float64).numpy(), axis=0, norm="ortho"))
    torch.testing.assert_close(cosine_basis(8), expected)
    basis, _ = patch_basis(16, 8)
    torch.testing.assert_close(basis.flatten(1) @ basis.flatten(1).T, torch.eye(16), rtol=0, atol=1e-5)


def test_sixteen_channels_are_triangles_of_low_frequencies() -> None:
    chosen = set(lowest_frequencies(16, 8))
    luma = {(0, u, v) for u in range(4) for v in range(4) if u + v <= 3}
    chroma = {(c, u, v) for c in (1, 2) for u in range(2) for v in range(2) if u + v <= 1}
    assert chosen == luma | chroma


def test_all_frequencies_give_the_picture_back() -> None:
    encoder, decoder = PatchEncoder(48, 4, None), PatchDecoder(48, 4)
    picture = torch.randn(2, 3, 16, 24)
    torch.testing.assert_close(decoder(encoder(picture)), picture, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_an_untrained_autoencoder_reconstructs_a_photograph() -> None:
    data = pytest.importorskip("skimage.data")
    photo = torch.from_numpy(data.astronaut()[:256, 128:384]).movedim(-1, 0)[None] / 127.5 - 1
    model = AutoencoderKL(ddconfig=ON, lossconfig=NO_LOSS, embed_dim=16).eval()
    posterior = model.encode(photo)
    reconstruction = model.decode(posterior.mode())
    psnr = 10 * torch.log10(4 / (reconstruction - photo).square().mean())
    assert psnr > 27
    torch.testing.assert_close(posterior.logvar, torch.full_like(posterior.logvar, -6.0))
    deviation = posterior.mode().std(dim=(0, 2, 3))
    assert deviation.min() > 0.1 and deviation.max() < 2
    assert 0.5 < posterior.mode().std() < 1.5


def test_without_the_option_there_is_no_key() -> None:
    off = Encoder(**DDCONFIG).state_dict().keys() | Decoder(**DDCONFIG).state_dict().keys()
    assert not any("patch" in name for name in off)
    extra = set(Encoder(**ON).state_dict()) - set(Encoder(**DDCONFIG).state_dict())
    assert extra == {"patch.weight", "patch.bias"}


def test_built_on_the_meta_device_it_takes_weights() -> None:
    source = AutoencoderKL(ddconfig=ON, lossconfig=NO_LOSS, embed_dim=16)
    with torch.device("meta"):
        model = AutoencoderKL(ddconfig=ON, lossconfig=NO_LOSS, embed_dim=16)
    assert all(p.is_meta for p in model.parameters())
    model.load_state_dict(source.state_dict(), assign=True)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.encode(x).mode(), source.encode(x).mode())


def test_every_layer_learns_after_the_first_step() -> None:
    model = AutoencoderKL(ddconfig=ON, lossconfig=NO_LOSS, embed_dim=16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        out, posterior = model(torch.rand(2, 3, 64, 64))
        (out.square().mean() + posterior.kl().mean() * 1e-3).backward()
        optimizer.step()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not [name for name in silent if not name.endswith("attn_1.k.bias")]  # softmax is blind to a bias of keys


def test_vector_quantised_models_can_have_it_too() -> None:
    model = VQModel(ddconfig={**ON, "double_z": False}, lossconfig=NO_LOSS, n_embed=8, embed_dim=16)
    assert model.encode_to_prequant(torch.rand(1, 3, 64, 64)).shape == (1, 16, 8, 8)


def test_it_needs_colour_pictures() -> None:
    with pytest.raises(ConfigError, match="patch_transform"):
        Encoder(**{**ON, "in_channels": 1})


@torch.no_grad()
def test_overlapping_patches_add_up_and_leave_no_seam() -> None:
    encoder, decoder = PatchEncoder(16, 8, None, overlap=4), PatchDecoder(16, 8, overlap=4)
    flat = torch.rand(1, 3, 1, 1).expand(1, 3, 32, 48)
    torch.testing.assert_close(decoder(encoder(flat)), flat, rtol=0, atol=1e-5)
    errors = 0.1 * torch.randn(8, 16, 8, 8, generator=torch.Generator().manual_seed(0))

    def steps(picture: torch.Tensor) -> float:
        change = picture.diff(dim=-1).abs().mean((0, 1, 2))
        border = torch.arange(1, 64) % 8 == 0
        return float(change[border].mean() / change[~border].mean())

    assert steps(PatchDecoder(16, 8)(errors)) > 3
    assert steps(decoder(errors)) < 1.5  # the fade is steepest there


def test_a_decoder_that_was_trained_without_overlap_becomes_one_with_it() -> None:
    plain, wide = PatchDecoder(16, 8), PatchDecoder(16, 8, overlap=4)
    torch.testing.assert_close(faded(plain.weight, 4), wide.weight)
    plain_encoder, wide_encoder = PatchEncoder(16, 8, -6.0), PatchEncoder(16, 8, -6.0, overlap=4)
    picture = torch.randn(1, 3, 24, 24)
    torch.testing.assert_close(plain_encoder(picture), wide_encoder(picture))
    torch.testing.assert_close(surrounded(plain_encoder.weight, 4), wide_encoder.weight)


def test_an_overlap_wider_than_half_a_patch_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most half of the factor 8, got 5"):
        Encoder(**{**ON, "patch_overlap": 5})
