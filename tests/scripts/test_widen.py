"""Start weights for a larger network: what was learned stays, what is new is silent at first."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ldm.models.autoencoder import AutoencoderKL
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from ldm.util import UserError
from scripts.widen import widened

DDCONFIG = {"double_z": True, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 1, 1, 1],
            "num_res_blocks": 1, "patch_transform": True}  # fmt: skip
NO_LOSS = {"target": "torch.nn.Identity"}


def autoencoder(channels: int, overlap: int) -> AutoencoderKL:
    shape = {**DDCONFIG, "z_channels": channels, "patch_overlap": overlap}
    return AutoencoderKL(ddconfig=shape, lossconfig=NO_LOSS, embed_dim=channels).eval()


def trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights that differ from where they start, everywhere."""
    generator = torch.Generator().manual_seed(0)
    return {
        key: value + 0.02 * torch.randn(value.shape, generator=generator) for key, value in model.state_dict().items()
    }


class Unet(torch.nn.Module):
    """A UNet under the keys of a diffusion model."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first_stage_model = torch.nn.Identity()
        self.model = torch.nn.Module()
        self.model.diffusion_model = UNetModel(
            image_size=8, in_channels=channels, out_channels=channels, model_channels=32, attention_resolutions=[1],
            num_res_blocks=1, channel_mult=[1], num_head_channels=32, use_spatial_transformer=True, context_dim=16,
        )  # fmt: skip


@torch.no_grad()
def test_the_first_channels_of_the_wider_latent_are_the_old_one() -> None:
    old, new = autoencoder(16, 0), autoencoder(24, 4)
    old.load_state_dict(trained(old))
    weights = {f"first_stage_model.{key}": value for key, value in old.state_dict().items()}
    new.load_state_dict(widened(new, weights))
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    before, after = old.encode(picture), new.encode(picture)
    torch.testing.assert_close(after.mode()[:, :16], before.mode(), rtol=0, atol=1e-4)
    torch.testing.assert_close(after.logvar[:, :16], before.logvar, rtol=0, atol=1e-4)
    assert after.mode()[:, 16:].std() > 0.1
    again = widened(new, old.state_dict())  # an autoencoder alone will do
    assert all(torch.equal(value, again[key]) for key, value in new.state_dict().items())


@torch.no_grad()
def test_a_unet_does_what_it_did_in_the_old_channels() -> None:
    old: Any = Unet(4)
    new: Any = Unet(6)
    old.load_state_dict(trained(old))
    state = widened(new, {**old.state_dict(), "cond_stage_model.other": torch.zeros(1)})
    assert set(state) == {key for key in new.state_dict() if key.startswith("model.diffusion_model.")}
    new.load_state_dict(state, strict=False)
    x, t, context = torch.randn(2, 6, 8, 8), torch.tensor([3, 500]), torch.randn(2, 5, 16)
    out = new.model.diffusion_model(x, t, context=context)
    torch.testing.assert_close(out[:, :4], old.model.diffusion_model(x[:, :4], t, context=context), rtol=0, atol=1e-4)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(UserError, match="no patch transform"):
        widened(autoencoder(16, 4), {"encoder.conv_in.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="does not fit into"):
        widened(autoencoder(16, 0), autoencoder(24, 0).state_dict())
    with pytest.raises(UserError, match=r"nothing below 'model.diffusion_model.'"):
        widened(Unet(4), autoencoder(16, 0).state_dict())
