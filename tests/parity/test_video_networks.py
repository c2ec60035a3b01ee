"""The networks of films beside those of diffusers with the same weights."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from torch import nn

from ldm.checkpoint.diffusers_keys import unet_weights
from ldm.checkpoint.diffusers_video import film_autoencoder, first_stage_weights
from ldm.modules.encoders.conditioner import ConcatTimestepEmbedderND
from ldm.util import instantiate_from_config
from tests.helpers import golden_case
from tests.modules.test_video_unet import golden_unet


def drawn(theirs: Any) -> Any:
    """The network in eval mode, every weight of it a random number, those included that begin as 0."""
    torch.manual_seed(0)
    for name, parameter in theirs.named_parameters():
        is_scale = "norm" in name and name.endswith("weight")
        spread = 1.0 if name.endswith("mix_factor") else 0.1 if parameter.dim() == 1 else parameter[0].numel() ** -0.5
        nn.init.normal_(parameter, 1.0 if is_scale else 0.0, spread)
    return theirs.eval()


def test_unet() -> None:
    """With one eps: the residual blocks of its cross-attention blocks on the way down have 1e-6, the released 1e-5."""
    ours = golden_unet(golden_case("svd_unet"))
    theirs = drawn(UNetSpatioTemporalConditionModel(
        sample_size=8, in_channels=8, out_channels=4, block_out_channels=(32, 64), layers_per_block=1, num_frames=5,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24, cross_attention_dim=24, num_attention_heads=(2, 4),
    ))  # fmt: skip
    for name, module in theirs.named_modules():
        if isinstance(module, nn.GroupNorm) and "res_block" in name:
            module.eps = 1e-5
    ours.load_state_dict(unet_weights(theirs.state_dict(), [1, 1]))
    draw = torch.Generator().manual_seed(0)
    x, context = torch.randn(2, 5, 8, 8, 8, generator=draw), torch.randn(2, 1, 24, generator=draw)
    numbers = torch.tensor([[6.0, 127.0, 0.02], [11.0, 30.0, 0.3]])
    y = ConcatTimestepEmbedderND(8)(numbers).repeat_interleave(5, dim=0)
    t = torch.tensor(0.7)
    with torch.no_grad():
        expected = theirs(x, t, encoder_hidden_states=context, added_time_ids=numbers).sample
        rows = x.flatten(0, 1), t.expand(10), context.repeat_interleave(5, dim=0), y
        torch.testing.assert_close(ours(*rows, num_video_frames=5), expected.flatten(0, 1), rtol=1e-4, atol=2e-5)


def test_temporal_autoencoder() -> None:
    """Pictures to latents and films out of them; the eps of both is 1e-6 between positions, 1e-5 between frames."""
    theirs = drawn(AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 2, block_out_channels=(32, 64), layers_per_block=2
    ))  # fmt: skip
    ours = instantiate_from_config(film_autoencoder(
        {"double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
         "ch_mult": [1, 2], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    )).eval()  # fmt: skip
    ours.load_state_dict(first_stage_weights(theirs.state_dict()))
    draw = torch.Generator().manual_seed(1)
    pictures, z = torch.rand(2, 3, 16, 12, generator=draw) * 2 - 1, torch.randn(6, 4, 4, 3, generator=draw)
    with torch.no_grad():
        moments = theirs.encode(pictures).latent_dist.parameters
        torch.testing.assert_close(ours.encode(pictures).parameters, moments, rtol=1e-4, atol=2e-5)
        for frames in (3, 6, 1):
            film = theirs.decode(z, num_frames=frames).sample
            torch.testing.assert_close(ours.decode(z, timesteps=frames), film, rtol=1e-4, atol=2e-5)
        assert not torch.allclose(film, theirs.decode(z, num_frames=3).sample, atol=1e-2)
        whole = theirs(pictures, num_frames=2).sample
        torch.testing.assert_close(ours.decode(ours.encode(pictures).mode()), whole, rtol=1e-4, atol=2e-5)
