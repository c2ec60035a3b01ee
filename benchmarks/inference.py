"""UNet, autoencoder and guided sampling steps beside diffusers: the same random weights at a released model's size.

    python -m benchmarks.inference --parts unet vae step --precision bf16
    python -m benchmarks.inference --model sdxl --parts unet peak --size 64 --repeats 1

Both sides run in turn, so that whatever else the machine does meets both; the table gives medians. With CUDA it
measures there; otherwise this project's side is as its commands run it on a CPU (weights packed once), and diffusers
is channels-last. ``peak``: the largest memory of a process that makes one guided step and decodes, one process a side.
Both sides share their weights until one packs its own, and a run that would not fit into memory is refused: Stable
Diffusion XL's UNet in bf16 is 5.1 GB, and packed once more as much. JSON goes to outputs/benchmarks.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from omegaconf import OmegaConf
from torch import Tensor, nn

from ldm.arguments import Parser
from ldm.checkpoint.diffusers_keys import autoencoder_weights, unet_weights
from ldm.models.diffusion.sampling import sample
from ldm.modules.cpu.packed import pack_for_inference
from ldm.modules.diffusionmodules.schedule import BetaSchedule, make_beta_schedule
from ldm.util import UserError, instantiate_from_config, run_command

ROOT = Path(__file__).resolve().parents[1]
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
BETAS = (0.00085, 0.012)  # of both models; the schedule changes nothing about the time
COPIES, OWN = 2.3, 1.5  # of a UNet's weights while both sides have theirs, or one does, with what a step needs
Work = Callable[[], Tensor]


@dataclass(frozen=True)
class Shape:
    """A model's size: its YAML, its UNet as diffusers has it, and what that is told.

    Attributes:
        node: the UNet's name in the YAML.
        blocks: residual blocks of each level.
        context, vector: widths; without a vector there are no sizes.
        side: of the latent.
        gigabytes: of the UNet's weights in fp32.
        autoencoder: the precision that it keeps; None: that of the run.
    """

    config: str
    node: str
    theirs: Mapping[str, Any]
    blocks: tuple[int, ...]
    context: int
    side: int
    gigabytes: float
    vector: int = 0
    autoencoder: torch.dtype | None = None


SHAPES = {
    "sd": Shape(
        "stable-diffusion/v1-inference.yaml", "unet_config",
        {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}, (2, 2, 2, 2), 768, 64, 3.5,
    ),
    "sdxl": Shape(
        "sdxl/sd_xl_base.yaml", "network_config",
        {
            "sample_size": 128, "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20),
            "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": (1, 2, 10),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        (2, 2, 2), 2048, 128, 10.3, 2816, torch.float32,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What is measured, where, and how often; ``size`` is the side of the latent."""

    model: str
    dtype: torch.dtype
    device: str
    repeats: int
    size: int
    shape: Shape = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", SHAPES[self.model])

    def check_memory(self, copies: float = COPIES) -> None:
        """Raises UserError when so many copies of a UNet's weights would not fit into what is free."""
        needed = copies * self.shape.gigabytes * self.dtype.itemsize / 4 if self.device == "cpu" else 0.0
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9 + cached()
        if needed > free:
            raise UserError(f"'{self.model}' needs about {needed:.0f} GB of memory here, {free:.0f} are free")


def cached() -> float:
    """Gigabytes of memory that hold files and are given back when asked for; 0 where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e6 for line in lines if line.startswith("Cached:")), 0.0)


def node_of(shape: Shape, name: str) -> Any:
    return OmegaConf.to_container(OmegaConf.load(ROOT / "configs" / shape.config).model.params[name])


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


def build_unets(shape: Shape, dtype: torch.dtype) -> tuple[Any, Any]:
    """(this project's, diffusers') UNet with the same weights, which they share."""
    with torch.device("meta"):
        theirs: Any = UNet2DConditionModel(**shape.theirs)
        ours = instantiate_from_config(node_of(shape, shape.node))
    weights = random_weights(theirs, dtype)
    theirs.load_state_dict(weights, assign=True)
    ours.load_state_dict(unet_weights(weights, shape.blocks), assign=True)
    return ours.eval(), theirs.eval()


def build_autoencoders(shape: Shape, dtype: torch.dtype) -> tuple[Any, Any]:
    """(this project's, diffusers') autoencoder with the same weights, which they share."""
    with torch.device("meta"):
        theirs: Any = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        ours = instantiate_from_config(node_of(shape, "first_stage_config"))
    weights = random_weights(theirs, dtype)
    theirs.load_state_dict(weights, assign=True)
    ours.load_state_dict(autoencoder_weights(weights), assign=True)
    return ours.eval(), theirs.eval()


def ready(ours: Any, theirs: Any, device: str) -> None:
    """Each that is there as a user would run it on the device."""
    if theirs is not None:
        theirs.to(device, memory_format=torch.channels_last)
    if ours is not None and device == "cpu":
        pack_for_inference(ours)
    elif ours is not None:
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


def told(run: Run, batch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a UNet is told besides the latent, (as this project, as diffusers) calls it."""
    c = noise(batch, 77, run.shape.context, dtype=run.dtype, device=run.device)
    if not run.shape.vector:
        return {"context": c}, {"encoder_hidden_states": c}
    text = noise(batch, 1280, dtype=run.dtype, device=run.device)
    sizes = torch.tensor([[8 * run.size, 8 * run.size, 0, 0, 8 * run.size, 8 * run.size]] * batch, device=run.device)
    with torch.no_grad():
        from ldm.modules.encoders.modules import ConcatTimestepEmbedderND

        vector = torch.cat([text, ConcatTimestepEmbedderND(256)(sizes.float()).to(run.dtype)], dim=1)
    added = {"text_embeds": text, "time_ids": sizes}
    return {"context": c, "y": vector}, {"encoder_hidden_states": c, "added_cond_kwargs": added}


def unet_rows(run: Run) -> list[dict[str, Any]]:
    ours, theirs = build_unets(run.shape, run.dtype)
    ready(ours, theirs, run.device)
    rows = []
    for batch in (1, 2):
        x = noise(batch, 4, run.size, run.size, dtype=run.dtype, device=run.device)
        channels_last = x.contiguous(memory_format=torch.channels_last)
        t = torch.full((batch,), 500, device=run.device)
        our_words, their_words = told(run, batch)

        def mine(x: Tensor = x, t: Tensor = t, words: dict[str, Any] = our_words) -> Tensor:
            return ours(x, t, **words)

        def other(x: Tensor = channels_last, t: Tensor = t, words: dict[str, Any] = their_words) -> Tensor:
            return theirs(x, t, **words).sample

        rows.append(compare(f"UNet, batch {batch}", mine, other, run.repeats, run.device))
    return rows


def vae_rows(run: Run) -> list[dict[str, Any]]:
    dtype, size = run.shape.autoencoder or run.dtype, run.size
    ours, theirs = build_autoencoders(run.shape, dtype)
    ready(ours, theirs, run.device)
    image, z = (
        noise(1, *shape, dtype=dtype, device=run.device).contiguous(memory_format=torch.channels_last)
        for shape in ((3, 8 * size, 8 * size), (4, size, size))
    )
    return [
        compare(
            f"VAE encode, {8 * size}x{8 * size}", lambda: ours.encode(image).mode(),
            lambda: theirs.encode(image).latent_dist.mode(), run.repeats, run.device,
        ),
        compare(
            f"VAE decode, {8 * size}x{8 * size}", lambda: ours.decode(z), lambda: theirs.decode(z).sample,
            run.repeats, run.device,
        ),
    ]  # fmt: skip


class Denoiser:
    """A bare UNet as a sampler sees it."""

    def __init__(self, unet: nn.Module, dtype: torch.dtype, device: str) -> None:
        self.unet, self.dtype, self.device = unet, dtype, torch.device(device)
        self.schedule = BetaSchedule.from_betas(make_beta_schedule("linear", 1000, *BETAS))

    def predict(self, x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        (context,) = cond["c_crossattn"]
        words = {"context": context, **({"y": cond["c_adm"]} if "c_adm" in cond else {})}
        return self.unet(x.to(self.dtype), t, **words).float()


def our_steps(unet: Any, run: Run, steps: int) -> Work:
    """Guided DDIM steps from noise by this project's sampling."""
    denoiser, words = Denoiser(unet, run.dtype, run.device), told(run, 1)[0]
    start = noise(1, 4, run.size, run.size, dtype=torch.float32, device=run.device)
    vector = {"c_adm": words["y"]} if "y" in words else {}
    cond, uncond = ({"c_crossattn": [words["context"] * scale], **vector} for scale in (1.0, 0.5))
    return lambda: sample(denoiser, start, cond, steps=steps, guidance_scale=7.5, uncond=uncond)


def their_steps(unet: Any, run: Run, steps: int) -> Work:
    """The same as diffusers' pipelines do them."""
    words, both_words = told(run, 1)[1], told(run, 2)[1]
    start = noise(1, 4, run.size, run.size, dtype=torch.float32, device=run.device)
    context = words["encoder_hidden_states"]
    both_words["encoder_hidden_states"] = torch.cat([0.5 * context, context])
    if "added_cond_kwargs" in words:
        both_words["added_cond_kwargs"] = {k: torch.cat([v, v]) for k, v in words["added_cond_kwargs"].items()}
    scheduler: Any = DDIMScheduler(
        beta_start=BETAS[0], beta_end=BETAS[1], beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(steps)

    def work() -> Tensor:
        x = start
        for t in scheduler.timesteps:
            both = torch.cat([x, x]).to(run.dtype, memory_format=torch.channels_last)
            u, c = unet(both, t.to(run.device), **both_words).sample.float().chunk(2)
            x = scheduler.step(u + 7.5 * (c - u), t, x).prev_sample
        return x

    return work


def step_rows(run: Run) -> list[dict[str, Any]]:
    """Two guided DDIM steps of text to image, each side with its own sampling code; the table shows both together."""
    ours, theirs = build_unets(run.shape, run.dtype)
    ready(ours, theirs, run.device)
    works = our_steps(ours, run, 2), their_steps(theirs, run, 2)
    return [compare("two txt2img steps, guidance", *works, run.repeats, run.device)]


def picture(run: Run, side: str) -> float:
    """Gigabytes that this process has had at most when one side has made one guided step and decoded."""
    ours, theirs = build_unets(run.shape, run.dtype)
    unet, steps = (ours, our_steps) if side == "ours" else (theirs, their_steps)
    del ours, theirs
    is_ours = side == "ours"
    ready(unet if is_ours else None, None if is_ours else unet, run.device)
    latent = steps(unet, run, 1)()
    mine, other = build_autoencoders(run.shape, run.shape.autoencoder or run.dtype)
    vae = mine if is_ours else other
    del mine, other
    ready(vae if is_ours else None, None if is_ours else vae, run.device)
    vae.decode(latent.to(run.shape.autoencoder or run.dtype))
    if run.device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def peak_rows(run: Run) -> list[dict[str, Any]]:
    """The memory of a guided picture, each side in a process of its own."""
    precision = next(name for name, dtype in PRECISIONS.items() if dtype == run.dtype)
    found = []
    for side in ("ours", "diffusers"):
        command = [sys.executable, "-m", "benchmarks.inference", "--model", run.model, "--size", str(run.size),
                   "--precision", precision, "--side", side]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        found.append(float(done.stdout.splitlines()[-1]))
    name = f"memory of a picture, {8 * run.size}"
    print(f"{name:28} {found[0]:9.2f} GB {found[1]:8.2f} GB {found[0] / found[1]:6.2f}", flush=True)
    return [{"name": name, "ours": found[0], "diffusers": found[1], "ratio": found[0] / found[1]}]


PARTS: dict[str, Callable[[Run], list[dict[str, Any]]]] = {
    "unet": unet_rows, "vae": vae_rows, "step": step_rows, "peak": peak_rows
}  # fmt: skip


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--model", choices=SHAPES, default="sd")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["unet", "vae", "step"])
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, help="side of the latent (64; of sdxl 128)")
    parser.add_argument("--side", choices=("ours", "diffusers"), help="be one side of 'peak'; for the benchmark itself")
    parser.add_argument("--outdir", "--out", dest="out", type=Path, default=ROOT / "outputs" / "benchmarks")
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = options.size or SHAPES[options.model].side
    run = Run(options.model, PRECISIONS[options.precision], device, options.repeats, size)
    run.check_memory(OWN if options.side or options.parts == ["peak"] else COPIES)
    if options.side is not None:
        print(picture(run, options.side))
        return
    threads = torch.get_num_threads()
    print(f"{options.model}, {options.precision}, {device}, {threads} threads, torch {torch.__version__}")
    print(f"{'':28} {'ours':>11} {'diffusers':>11} {'ratio':>7} {'difference':>11}")
    rows = [row for part in options.parts for row in PARTS[part](run)]
    options.out.mkdir(parents=True, exist_ok=True)
    report = {"model": options.model, "size": run.size, "precision": options.precision, "device": device,
              "torch": torch.__version__, "rows": rows}  # fmt: skip
    name = "inference" if options.model == "sd" else f"inference-{options.model}"
    (options.out / f"{name}-{options.precision}.json").write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    run_command(main)
