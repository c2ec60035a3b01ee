"""diffusers' side of ``benchmarks.textual_inversion``: the recipe, with diffusers' and transformers' classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.inference import random_weights
from benchmarks.textual_inversion_common import DECAY, DEVICE, DTYPE, PLACEHOLDER, RATE, SCALE, Draws, Parts, Side, Size
from ldm.checkpoint import save_state_dict


def their_modules(size: Size) -> dict[str, Any]:
    """The three networks on the meta device."""
    unet, vae = size.widths
    with torch.device("meta"):
        return {
            "unet": UNet2DConditionModel(
                sample_size=size.side // 8, cross_attention_dim=size.context, attention_head_dim=8,
                block_out_channels=(unet, 2 * unet, 4 * unet, 4 * unet), norm_num_groups=32,
            ),
            "vae": AutoencoderKL(
                block_out_channels=(vae, 2 * vae, 4 * vae, 4 * vae), layers_per_block=2, latent_channels=4,
                down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            ),
            "text": LDMBertModel(their_bert(size)) if size.text == "bert" else CLIPTextModel(their_clip(size)),
        }  # fmt: skip


def their_bert(size: Size) -> LDMBertConfig:
    return LDMBertConfig(
        vocab_size=size.vocabulary, max_position_embeddings=77, encoder_layers=size.layers, d_model=size.context,
        encoder_ffn_dim=4 * size.context, encoder_attention_heads=8, head_dim=64, dropout=0.0,
    )  # fmt: skip


def their_clip(size: Size) -> CLIPTextConfig:
    return CLIPTextConfig(
        **size.clip, hidden_act="quick_gelu", bos_token_id=size.vocabulary - 2, eos_token_id=size.vocabulary - 1
    )


def write_weights(size: Size, path: Path, dtype: torch.dtype = DTYPE) -> None:
    """A file of random weights for the three networks, the same every time but for their precision."""
    parts = some_weights(size, dtype)
    save_state_dict({f"{part}.{name}": value for part, own in parts.items() for name, value in own.items()}, path)


def some_weights(size: Size, dtype: torch.dtype) -> Parts:
    """Random weights by part."""
    return {part: dict(random_weights(module, dtype)) for part, module in their_modules(size).items()}


class Frozen(Side):
    """Networks of diffusers and transformers that stay as they are, and what is done with them in every step."""

    text_dtype: torch.dtype | None = None  # None: that of the others

    def build(self, weights: Parts) -> None:
        modules = their_modules(self.size)
        for name, module in modules.items():
            given = weights[name]
            if name == "text" and self.text_dtype is not None:
                given = {key: value.to(self.text_dtype) for key, value in given.items()}
            module.load_state_dict(given, strict=False, assign=True)
            real_buffers(module)
            module.requires_grad_(False).to(DEVICE)
        self.unet: Any = modules["unet"].train()
        self.vae: Any = modules["vae"].eval()
        self.text: Any = modules["text"].train()
        self.scheduler: Any = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")

    def noisy(self, draws: Draws) -> Tensor:
        """The picture's latents with noise, in what is frozen's precision."""
        posterior = self.vae.encode(draws.picture.to(self.dtype)).latent_dist
        latents = (posterior.mean + posterior.std * draws.posterior.to(self.dtype)).detach() * SCALE
        return self.scheduler.add_noise(latents, draws.noise.to(self.dtype), draws.t)


class Diffusers(Frozen):
    """The recipe of diffusers' textual-inversion example, with diffusers' and transformers' classes.

    UNet and autoencoder are bfloat16. The text encoder is float32 and computes under autocast, as accelerate has it.
    """

    text_dtype = torch.float32

    def build(self, weights: Parts) -> None:
        super().build(weights)
        table = self.text.get_input_embeddings()
        table.weight = nn.Parameter(table.weight.detach().float())
        table.register_forward_hook(lambda _, __, vectors: vectors.to(self.text_dtype))
        self.table = table.weight
        self.original = self.table.detach().clone()
        self.others = torch.ones(len(self.table), dtype=torch.bool)
        self.others[PLACEHOLDER] = False
        self.optimizer = torch.optim.AdamW([self.table], lr=RATE, weight_decay=DECAY)

    def step(self, draws: Draws) -> tuple[Tensor, Tensor]:
        noisy = self.noisy(draws)
        with torch.autocast(DEVICE, DTYPE, enabled=self.text_dtype is torch.float32):
            context = self.text(draws.tokens)[0].to(DTYPE)
        predicted = self.unet(noisy, draws.t, context).sample
        loss = F.mse_loss(predicted.float(), draws.noise)
        loss.backward()
        assert self.table.grad is not None
        gradient = self.table.grad[PLACEHOLDER].clone()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            self.table[self.others] = self.original[self.others]
        return loss.detach(), gradient


class DiffusersInHalf(Diffusers):
    """The same with a text encoder in bfloat16, but for its table: less time and memory than the recipe itself."""

    text_dtype = DTYPE


def real_buffers(module: nn.Module) -> None:
    """Position ids, which no state dict has, in the place of those on the meta device."""
    for owner in module.modules():
        for name, buffer in list(owner.named_buffers(recurse=False)):
            if buffer.is_meta:
                owner.register_buffer(name, torch.arange(buffer.shape[-1])[None], persistent=False)
