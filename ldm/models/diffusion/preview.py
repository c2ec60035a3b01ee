"""Pictures to look at while a diffusion model trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ldm.models.diffusion.condition import Condition, as_parts
from ldm.models.diffusion.latent import LatentModel
from ldm.models.diffusion.network import DiffusionNetwork
from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.sampling import sample
from ldm.models.diffusion.video import VideoModel

PREVIEW_SEED = 0  # the same noise at every preview, so that pictures can be compared


def preview_samples(
    model: DiffusionNetwork, shape: Sequence[int], condition: Condition, uncond: Condition = None,
    ddim_steps: int = 50, ddim_eta: float = 0.0, unconditional_guidance_scale: float = 1.0,
) -> Tensor:  # fmt: skip
    """Latents [B, C, h, w] sampled with DDIM from fixed noise."""
    noise = ImageNoise([PREVIEW_SEED + i for i in range(shape[0])])
    return sample(
        model, noise.draw(shape[1:]).to(model.device), condition, steps=ddim_steps, sampler="ddim", eta=ddim_eta,
        guidance_scale=unconditional_guidance_scale, uncond=uncond, noise=lambda: noise.draw(shape[1:]),
    )  # fmt: skip


def diffusion_row(model: DiffusionNetwork, x: Tensor, columns: int = 5) -> Tensor:
    """Latents noised more and more, [B * columns, C, h, w]; a row per picture."""
    noise = ImageNoise([PREVIEW_SEED + i for i in range(len(x))]).draw(x.shape[1:]).to(x)
    times = torch.linspace(0, model.num_timesteps - 1, columns, device=x.device).long()
    rows = [model.q_sample(x, t.expand(len(x)), noise) for t in times]
    return torch.stack(rows, dim=1).flatten(0, 1)


def latent_previews(
    model: LatentModel, batch: Mapping[str, Any], N: int = 8, sample: bool = True,
    ddim_steps: int = 50, ddim_eta: float = 0.0, unconditional_guidance_scale: float = 1.0,
    plot_diffusion_rows: bool = False, inpaint: bool = False, plot_denoise_rows: bool = False,
    plot_progressive_rows: bool = False, quantize_denoised: bool = False, return_keys: Sequence[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """inputs, reconstruction, conditioning, samples and samples with guidance, [n, 3, H, W] in [-1, 1].

    The flags without a picture of their own here (inpaint, denoise and progressive rows, quantize_denoised) are
    accepted for old YAMLs. ``conditioning`` is a list of prompts where the condition is text.
    """
    part = {key: value[:N] for key, value in batch.items()}
    z, condition = model.get_input(part)
    images: dict[str, Any] = {"reconstruction": model.decode_first_stage(z)}
    if model.first_stage_key in part:
        images["inputs"] = part[model.first_stage_key].permute(0, 3, 1, 2)
    if model.model.conditioning_key is not None:
        raw = model.get_raw_condition(part)
        if isinstance(raw, list) or (isinstance(raw, Tensor) and raw.dim() == 4):
            images["conditioning"] = raw
    if plot_diffusion_rows:
        images["diffusion_row"] = model.decode_first_stage(diffusion_row(model, z[: min(N, 4)]))
    if sample:
        latents = preview_samples(model, z.shape, condition, None, ddim_steps, ddim_eta)
        images["samples"] = model.decode_first_stage(latents)
        if unconditional_guidance_scale > 1.0 and isinstance(images.get("conditioning"), list):
            guided = preview_samples(
                model, z.shape, condition, model.unconditional(condition),
                ddim_steps, ddim_eta, unconditional_guidance_scale,
            )  # fmt: skip
            images[f"samples_cfg_scale_{unconditional_guidance_scale:.2f}"] = model.decode_first_stage(guided)
    return {key: images[key] for key in return_keys if key in images} if return_keys else images


def film_previews(
    model: VideoModel, batch: Mapping[str, Any], N: int = 8, sample: bool = True,
    ddim_steps: int = 25, ddim_eta: float = 0.0, unconditional_guidance_scale: float = 1.0,
) -> dict[str, Any]:  # fmt: skip
    """Films of a batch and films sampled from their first frames, each a strip of its frames [n, 3, H, T W]."""
    z, condition = model.get_input({key: value[:N] for key, value in batch.items()})
    latents = {"inputs": z}
    if sample:
        uncond, scale = model.unconditional(condition), unconditional_guidance_scale
        latents["samples"] = preview_samples(model, z.shape, condition, uncond, ddim_steps, ddim_eta, scale)
    frames = as_parts(condition, model.model.conditioning_key)["c_frames"].shape[1]
    return {name: strips(model.decode_first_stage(those), frames) for name, those in latents.items()}


def strips(pictures: Tensor, frames: int) -> Tensor:
    """Frames [clips T, 3, H, W] side by side, [clips, 3, H, T W]."""
    return pictures.unflatten(0, (-1, frames)).movedim(1, -2).flatten(-2)
