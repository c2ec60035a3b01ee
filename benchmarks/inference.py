"""UNet, autoencoder and guided sampling steps beside diffusers: the same random weights, Stable Diffusion v1's size.

    python -m benchmarks.inference --parts unet vae step --precision bf16

Both sides run in turn, so that whatever else the machine does meets both; the table gives medians. With CUDA it
measures there; otherwise this project's side is as its commands run it on a CPU (weights packed once), and diffusers
is channels-last. JSON goes to outputs/benchmarks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from omegaconf import OmegaConf
from torch import Tensor, nn

from ldm.checkpoint.diffusers_keys import autoencoder_weights, unet_weights
from ldm.models.diffusion.sampling import sample
from ldm.modules.cpu.packed import pack_for_inference
from ldm.modules.diffusionmodules.schedule import BetaSchedule, make_beta_schedule
from ldm.util import instantiate_from_config

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "stable-diffusion" / "v1-inference.yaml"
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
Work = Callable[[], Tensor]


def random_weights(model: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights of a meta model that keep activations near unit size."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, like in model.state_dict().items():
        value = torch.empty(like.shape, dtype=dtype)
        reach = 0.7 * (3 / like[0].numel()) ** 0.5 if like.dim() > 1 else 0.1
        value.uniform_(-reach, reach, generator=generator)
        weights[name] = value + 1 if like.dim() == 1 and name.endswith("weight") else value
    return weights


def build_unets(dtype: torch.dtype) -> tuple[Any, Any]:
    """(this project's, diffusers') UNet of Stable Diffusion v1 with the same weights."""
    with torch.device("meta"):
        theirs: Any = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        ours = instantiate_from_config(OmegaConf.load(CONFIG).model.params.unet_config)
    weights = random_weights(theirs, dtype)
    theirs.load_state_dict(weights, assign=True)
    ours.load_state_dict(unet_weights(weights, [2] * 4), assign=True)
    return ours.eval(), theirs.eval()


def build_autoencoders(dtype: torch.dtype) -> tuple[Any, Any]:
    """(this project's, diffusers') autoencoder of Stable Diffusion v1 with the same weights."""
    with torch.device("meta"):
        theirs: Any = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        ours = instantiate_from_config(OmegaConf.load(CONFIG).model.params.first_stage_config)
    weights = random_weights(theirs, dtype)
    theirs.load_state_dict(weights, assign=True)
    ours.load_state_dict(autoencoder_weights(weights), assign=True)
    return ours.eval(), theirs.eval()


def ready(ours: Any, theirs: Any, device: str) -> None:
    """Both as a user would run them on the device."""
    theirs.to(device, memory_format=torch.channels_last)
    if device == "cpu":
        pack_for_inference(ours)
    else:
        ours.to(device, memory_format=torch.channels_last)


def compare(name: str, ours: Work, theirs: Work, repeats: int, device: str) -> dict[str, Any]:
    """Medians of both, in seconds, run in turn after a call each to warm up, and how far the results are apart."""

    def seconds(work: Work) -> float:
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    a, b = ours().float(), theirs().float()
    difference = float((a - b).abs().max() / b.abs().max())
    times = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    row = {"name": name, "ours": mine, "diffusers": other, "ratio": mine / other, "difference": difference}
    print(f"{name:28} {mine:9.3f} s {other:9.3f} s {mine / other:7.2f} {difference:11.1e}", flush=True)
    return row


def noise(*shape: int, dtype: torch.dtype, device: str) -> Tensor:
    """The same standard normal numbers every time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)


def unet_rows(dtype: torch.dtype, device: str, repeats: int, size: int) -> list[dict[str, Any]]:
    ours, theirs = build_unets(dtype)
    ready(ours, theirs, device)
    rows = []
    for batch in (1, 2):
        x = noise(batch, 4, size, size, dtype=dtype, device=device)
        channels_last = x.contiguous(memory_format=torch.channels_last)
        t = torch.full((batch,), 500, device=device)
        c = noise(batch, 77, 768, dtype=dtype, device=device)

        def mine(x: Tensor = x, t: Tensor = t, c: Tensor = c) -> Tensor:
            return ours(x, t, context=c)

        def other(x: Tensor = channels_last, t: Tensor = t, c: Tensor = c) -> Tensor:
            return theirs(x, t, encoder_hidden_states=c).sample

        rows.append(compare(f"UNet, batch {batch}", mine, other, repeats, device))
    return rows


def vae_rows(dtype: torch.dtype, device: str, repeats: int, size: int) -> list[dict[str, Any]]:
    ours, theirs = build_autoencoders(dtype)
    ready(ours, theirs, device)
    image = noise(1, 3, 8 * size, 8 * size, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
    z = noise(1, 4, size, size, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
    return [
        compare(
            f"VAE encode, {8 * size}x{8 * size}", lambda: ours.encode(image).mode(),
            lambda: theirs.encode(image).latent_dist.mode(), repeats, device,
        ),
        compare(
            f"VAE decode, {8 * size}x{8 * size}", lambda: ours.decode(z), lambda: theirs.decode(z).sample,
            repeats, device,
        ),
    ]  # fmt: skip


class Denoiser:
    """A bare UNet as a sampler sees it."""

    def __init__(self, unet: nn.Module, dtype: torch.dtype, device: str) -> None:
        self.unet, self.dtype, self.device = unet, dtype, torch.device(device)
        self.schedule = BetaSchedule.from_betas(make_beta_schedule("linear", 1000, 0.00085, 0.012))

    def predict(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.unet(x.to(self.dtype), t, context=cond).float()


def step_rows(dtype: torch.dtype, device: str, repeats: int, size: int) -> list[dict[str, Any]]:
    """Two guided DDIM steps of text to image, each side with its own sampling code; the table shows one step."""
    ours, theirs = build_unets(dtype)
    ready(ours, theirs, device)
    denoiser = Denoiser(ours, dtype, device)
    start = noise(1, 4, size, size, dtype=torch.float32, device=device)
    cond, uncond = (noise(1, 77, 768, dtype=dtype, device=device) * s for s in (1.0, 0.5))
    scheduler: Any = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(2)

    def mine() -> Tensor:
        return sample(denoiser, start, cond, steps=2, guidance_scale=7.5, uncond=uncond)

    def other() -> Tensor:
        x, context = start, torch.cat([uncond, cond])
        for t in scheduler.timesteps:
            both = torch.cat([x, x]).to(dtype, memory_format=torch.channels_last)
            u, c = theirs(both, t.to(device), encoder_hidden_states=context).sample.float().chunk(2)
            x = scheduler.step(u + 7.5 * (c - u), t, x).prev_sample
        return x

    row = compare("two txt2img steps, guidance", mine, other, repeats, device)
    return [row]


PARTS = {"unet": unet_rows, "vae": vae_rows, "step": step_rows}


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=64, help="side of the latent")
    parser.add_argument("--outdir", "--out", dest="out", type=Path, default=ROOT / "outputs" / "benchmarks")
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{options.precision}, {device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':28} {'ours':>11} {'diffusers':>11} {'ratio':>7} {'difference':>11}")
    rows = []
    for part in options.parts:
        rows += PARTS[part](PRECISIONS[options.precision], device, options.repeats, options.size)
    options.out.mkdir(parents=True, exist_ok=True)
    report = {"precision": options.precision, "device": device, "torch": torch.__version__, "rows": rows}
    (options.out / f"inference-{options.precision}.json").write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
