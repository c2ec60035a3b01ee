"""Stable Video Diffusion at its full size: opening a file of it, a short film, and its network beside diffusers'.

    python -m benchmarks.video_full_size
    python -m benchmarks.video_full_size --parts open film

A file of random weights in half precision (under the released keys) is written to a temporary folder and is gone
afterwards. Everything else is a process of its own, whose own high-water mark is its peak memory:

- ``open``: the file as a model in half precision, every weight read once.
- ``film``: ``--steps`` guided steps of ``--frames`` frames at ``--size`` pixels in float32, decoded.
- ``network``: calls of the network for a guided step of such a film (both halves of it) in float32, ``--repeats`` of
  them after one of half of it; by turns (``--order``) this project's and diffusers', which read the same weights. Wall
  time is what a user waits; processor time is the better ratio where the machine has other work.

JSON goes to outputs/benchmarks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from benchmarks.loading import measure, peak_memory
from ldm.arguments import Parser
from ldm.checkpoint import model_node, read_state_dict, save_state_dict
from ldm.checkpoint.diffusers_keys import unet_weights
from ldm.modules.cpu.packed import pack_for_inference
from ldm.modules.encoders.conditioner import ConcatTimestepEmbedderND
from ldm.util import instantiate_from_config, run_command, temporary_folder

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "svd" / "svd.yaml"
UNET = "model.diffusion_model."
THEIRS: dict[str, Any] = {  # diffusers' network of this size
    "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "cross_attention_dim": 1024,
    "addition_time_embed_dim": 256,
}  # fmt: skip
ORDER = ("ours", "diffusers", "diffusers", "ours")
TOLD = (6.0, 127.0, 0.02)  # fps - 1, motion, noise on the first frame
SHIFTS = 1 << 16
LEVEL = 0.7  # what the network is told of the noise
Call = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Run:
    """What a process is asked for."""

    file: Path
    frames: int
    steps: int
    size: int
    repeats: int


def write_random(path: Path) -> None:
    """A file with the released names and shapes in half precision; activations stay near unit size.

    Tensors are views of a few random ones, so that the file is never in memory as a whole.
    """
    with torch.device("meta"):
        model = instantiate_from_config(model_node(OmegaConf.load(CONFIG)))  # type: ignore[arg-type]
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    ranges = {key: _range(key, shape) for key, shape in shapes.items()}
    longest: dict[tuple[float, float], int] = {}
    for key, shape in shapes.items():
        longest[ranges[key]] = max(longest.get(ranges[key], 0), shape.numel())
    draw = torch.Generator().manual_seed(0)
    pools = {ends: torch.empty(n + SHIFTS).uniform_(*ends, generator=draw).half() for ends, n in longest.items()}
    weights = {}
    for i, (key, shape) in enumerate(shapes.items()):
        start = 7919 * i % SHIFTS  # no two layers beside each other have the same weights
        weights[key] = pools[ranges[key]][start : start + shape.numel()].view(shape)
    save_state_dict(weights, path)


def _range(key: str, shape: torch.Size) -> tuple[float, float]:
    """The least and the largest value of a weight; scales of norms lie around 1."""
    reach = 0.7 * (3 / shape[1:].numel()) ** 0.5 if len(shape) > 1 else 0.1
    middle = float(len(shape) == 1 and key.endswith("weight"))
    return middle - reach, middle + reach


def opened(run: Run) -> dict[str, float]:
    return measure(CONFIG, run.file, "fp16")


def film(run: Run) -> dict[str, float]:
    """A film as the command makes it, of a picture of noise."""
    from ldm.workflows.film_options import VideoOptions
    from ldm.workflows.studio import open_studio
    from ldm.workflows.video import make_film, make_plan

    start = time.perf_counter()
    studio = open_studio(run.file, CONFIG, device="cpu")
    opening, start, busy = time.perf_counter() - start, time.perf_counter(), time.process_time()
    plan = make_plan(VideoOptions(num_frames=run.frames, num_steps=run.steps), studio)
    pixels = np.random.default_rng(0).integers(0, 255, (run.size, run.size, 3), np.uint8)
    made = make_film(studio, plan, Image.fromarray(pixels), seed=1)
    assert len(made.frames) == run.frames and made.size == (run.size, run.size)
    return {"open_s": opening, "film_s": time.perf_counter() - start, "cpu_s": time.process_time() - busy}


def our_call(weights: Mapping[str, Tensor], context: Tensor, numbers: Tensor) -> Call:
    """The network as this project's commands run it, of x [clips, T, 8, h, w]; a context and numbers for each clip."""
    with torch.device("meta"):
        node: Any = OmegaConf.to_container(OmegaConf.load(CONFIG).model.params.network_config)
        unet: Any = instantiate_from_config(node)
    unet.load_state_dict({key: value.float() for key, value in weights.items()}, assign=True)
    pack_for_inference(unet.eval())
    vector = ConcatTimestepEmbedderND(THEIRS["addition_time_embed_dim"])(numbers)

    def call(x: Tensor) -> Tensor:
        clips, frames = x.shape[:2]
        told = (part[:clips].repeat_interleave(frames, dim=0) for part in (context, vector))
        out = unet(x.flatten(0, 1), torch.full((clips * frames,), LEVEL), *told, num_video_frames=frames)
        return out.unflatten(0, (clips, frames))

    return call


def their_call(weights: Mapping[str, Tensor], context: Tensor, numbers: Tensor) -> Call:
    """The same of diffusers' network."""
    from diffusers import UNetSpatioTemporalConditionModel

    with torch.device("meta"):
        unet: Any = UNetSpatioTemporalConditionModel(**THEIRS)
    blocks = [THEIRS["layers_per_block"]] * len(THEIRS["block_out_channels"])
    names = dict(zip(unet.state_dict(), unet_weights(unet.state_dict(), blocks), strict=True))
    unet.load_state_dict({key: weights[own].float() for key, own in names.items()}, assign=True)
    unet.eval()
    level = torch.tensor(LEVEL)
    return lambda x: unet(x, level, encoder_hidden_states=context[: len(x)], added_time_ids=numbers[: len(x)]).sample


def network(run: Run, side: str) -> dict[str, float]:
    """Means of calls of one side; its result is kept beside the file."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(2, run.frames, 8, run.size // 8, run.size // 8, generator=draw)
    context = torch.randn(2, 1, THEIRS["cross_attention_dim"], generator=draw)
    numbers, whole = torch.tensor([TOLD, TOLD]), read_state_dict(run.file)
    weights = {key.removeprefix(UNET): value for key, value in whole.items() if key.startswith(UNET)}
    call = (our_call if side == "ours" else their_call)(weights, context, numbers)
    del whole, weights  # so that nobody else holds what is packed
    call(x[:1])  # warms up
    start, busy = time.perf_counter(), time.process_time()
    for _ in range(run.repeats):
        out = call(x)
    wall, cpu = time.perf_counter() - start, time.process_time() - busy
    torch.save(out, run.file.with_name(f"{side}.pt"))
    return {"wall_s": wall / run.repeats, "cpu_s": cpu / run.repeats}


CHILDREN: dict[str, Callable[[Run], dict[str, float]]] = {
    "open": opened, "film": film,
    "ours": lambda run: network(run, "ours"), "diffusers": lambda run: network(run, "diffusers"),
}  # fmt: skip


def in_process(name: str, run: Run) -> dict[str, Any]:
    """What a process of its own measures, with its peak memory; printed."""
    given = [f"--{key}={value}" for key, value in vars(run).items()]
    command = [sys.executable, "-m", "benchmarks.video_full_size", "--child", name, *given]
    found = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    row = {"name": name, **json.loads(found)}
    show(row)
    return row


def show(row: Mapping[str, Any]) -> None:
    print("  ".join(f"{key} {value:.3g}" if isinstance(value, float) else value for key, value in row.items()))
    sys.stdout.flush()


def compared(rows: list[dict[str, Any]], folder: Path) -> dict[str, float]:
    """This project's time in units of diffusers', and how far their results are apart in units of the largest value."""
    a, b = (torch.load(folder / f"{side}.pt") for side in ("ours", "diffusers"))
    ratios = {}
    for key in ("wall_s", "cpu_s"):
        mine, other = (sum(row[key] for row in rows if row["name"] == side) for side in ("ours", "diffusers"))
        ratios[key] = mine / other
    return {**ratios, "difference": float((a - b).abs().max() / b.abs().max())}


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=("open", "film", "network"), default=["open", "film", "network"])
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--size", type=int, default=256, help="pixels, a multiple of 64")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--order", nargs="+", choices=("ours", "diffusers"), default=ORDER)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--outdir", type=Path, default=ROOT / "outputs" / "benchmarks")
    options = parser.parse_args(arguments)
    asked = options.frames, options.steps, options.size, options.repeats
    if options.child is not None:
        found = CHILDREN[options.child](Run(options.file, *asked))
        print(json.dumps({**found, "peak_gb": peak_memory() / 1e9}))
        return
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    with temporary_folder() as folder:
        run = Run(Path(folder) / "svd.safetensors", *asked)
        write_random(run.file)
        rows = [in_process(name, run) for name in ("open", "film") if name in options.parts]
        if "network" in options.parts:
            rows += [in_process(side, run) for side in options.order]
            if set(options.order) == set(ORDER):
                rows.append({"name": "ours / diffusers", **compared(rows, run.file.parent)})
                show(rows[-1])
    options.outdir.mkdir(parents=True, exist_ok=True)
    (options.outdir / "video_full_size.json").write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    run_command(main)
