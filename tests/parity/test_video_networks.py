"""The networks of films beside those of diffusers with the same weights."""

from __future__ import annotations

import re
from typing import Any

import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import TemporalDecoder
from torch import Tensor, nn

from ldm.modules.diffusionmodules.temporal_decoder import VideoDecoder
from ldm.modules.encoders.conditioner import ConcatTimestepEmbedderND
from tests.helpers import golden_case
from tests.modules.test_video_unet import golden_unet

RESBLOCK = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
            "out_layers.3": "conv2", "skip_connection": "conv_shortcut"}  # fmt: skip
OUTSIDE = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
    "input_blocks.2.0.op": "down_blocks.0.downsamplers.0.conv",
    "output_blocks.1.1.conv": "up_blocks.0.upsamplers.0.conv",
}  # fmt: skip
BLOCKS = {
    "input_blocks.1.0": "down_blocks.0.resnets.0", "input_blocks.1.1": "down_blocks.0.attentions.0",
    "input_blocks.3.0": "down_blocks.1.resnets.0", "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0", "middle_block.2": "mid_block.resnets.1",
    "output_blocks.0.0": "up_blocks.0.resnets.0", "output_blocks.1.0": "up_blocks.0.resnets.1",
    "output_blocks.2.0": "up_blocks.1.resnets.0", "output_blocks.2.1": "up_blocks.1.attentions.0",
    "output_blocks.3.0": "up_blocks.1.resnets.1", "output_blocks.3.1": "up_blocks.1.attentions.1",
}  # fmt: skip


def renamed(name: str, table: dict[str, str]) -> str:
    """A name whose beginning, up to a dot, is replaced by the table's."""
    found = [old for old in table if name == old or name.startswith(old + ".")]
    old = max(found, key=len)
    return table[old] + name[len(old) :]


def within_block(rest: str, is_resnet: bool) -> str:
    if rest.startswith("time_mixer."):
        return rest
    if not is_resnet:
        rest = rest.replace("time_stack.", "temporal_transformer_blocks.", 1)
        return re.sub(r"^time_pos_embed\.(\d)", lambda found: f"time_pos_embed.linear_{int(found[1]) // 2 + 1}", rest)
    if rest.startswith("time_stack."):
        return "temporal_res_block." + renamed(rest.removeprefix("time_stack."), RESBLOCK)
    return "spatial_res_block." + renamed(rest, RESBLOCK)


def unet_key(key: str) -> str:
    if any(key.startswith(old + ".") for old in OUTSIDE):
        return renamed(key, OUTSIDE)
    block = ".".join(key.split(".")[: 2 if key.startswith("middle") else 3])
    return f"{BLOCKS[block]}.{within_block(key[len(block) + 1 :], 'resnets' in BLOCKS[block])}"


def test_unet() -> None:
    case = golden_case("svd_unet")
    ours = golden_unet(case)
    theirs: Any = UNetSpatioTemporalConditionModel(
        sample_size=8, in_channels=8, out_channels=4, block_out_channels=(32, 64), layers_per_block=1, num_frames=5,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24, cross_attention_dim=24, num_attention_heads=(2, 4),
    )  # fmt: skip
    theirs.eval().load_state_dict({unet_key(key): value for key, value in ours.state_dict().items()}, strict=True)
    for name, module in theirs.named_modules():  # its cross-attention down blocks have 1e-6 there
        if isinstance(module, nn.GroupNorm) and "res_block" in name:
            module.eps = 1e-5
    draw = torch.Generator().manual_seed(0)
    x, context = torch.randn(2, 5, 8, 8, 8, generator=draw), torch.randn(2, 1, 24, generator=draw)
    numbers = torch.tensor([[6.0, 127.0, 0.02], [11.0, 30.0, 0.3]])
    y = ConcatTimestepEmbedderND(8)(numbers).repeat_interleave(5, dim=0)
    t = torch.tensor(0.7)
    with torch.no_grad():
        expected = theirs(x, t, encoder_hidden_states=context, added_time_ids=numbers).sample
        rows = x.flatten(0, 1), t.expand(10), context.repeat_interleave(5, dim=0), y
        torch.testing.assert_close(ours(*rows, num_video_frames=5), expected.flatten(0, 1), rtol=1e-4, atol=2e-5)


def decoder_key(key: str, value: Tensor) -> tuple[str, Tensor]:
    """diffusers' name, and its attention's matrices in place of 1x1 convolutions."""
    if key.startswith("mid.attn_1."):
        part, kind = key.removeprefix("mid.attn_1.").split(".")
        name = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}[part]
        return f"mid_block.attentions.0.{name}.{kind}", value[:, :, 0, 0] if value.dim() == 4 else value
    if key.startswith("conv_out.time_mix_conv."):
        return key.replace("conv_out.time_mix_conv", "time_conv_out"), value
    key = re.sub(r"^norm_out\.", "conv_norm_out.", key)
    key = re.sub(r"^mid\.block_(\d)", lambda found: f"mid_block.resnets.{int(found[1]) - 1}", key)
    key = re.sub(r"^up\.(\d)\.block", lambda found: f"up_blocks.{1 - int(found[1])}.resnets", key)
    key = re.sub(r"^up\.(\d)\.upsample", lambda found: f"up_blocks.{1 - int(found[1])}.upsamplers.0", key)
    block = re.match(r"(.*resnets\.\d)\.(.*)", key)
    if block is None:
        return key, value
    start, rest = block.groups()
    if rest == "mix_factor":
        return f"{start}.time_mixer.mix_factor", value
    if rest.startswith("time_stack."):
        return f"{start}.temporal_res_block.{renamed(rest.removeprefix('time_stack.'), RESBLOCK)}", value
    return f"{start}.spatial_res_block.{rest.replace('nin_shortcut', 'conv_shortcut')}", value


def test_temporal_decoder() -> None:
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 2],
        "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0, "video_kernel_size": [3, 1, 1],
    }  # fmt: skip
    ours = VideoDecoder(**shape).eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    widths: Any = (32, 64)
    theirs = TemporalDecoder(in_channels=4, out_channels=3, block_out_channels=widths, layers_per_block=2)
    theirs.eval().load_state_dict(dict(decoder_key(*item) for item in ours.state_dict().items()), strict=True)
    z = torch.randn(6, 4, 4, 4)
    with torch.no_grad():
        expected = theirs(z, image_only_indicator=torch.zeros(2, 3), num_frames=3)
        torch.testing.assert_close(ours(z, timesteps=3), expected, rtol=1e-4, atol=2e-5)
