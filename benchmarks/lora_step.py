"""A step of LoRA beside diffusers' recipe: time and peak memory, the same random weights, picture and noise.

    python -m benchmarks.lora_step
    python -m benchmarks.lora_step --offload
    python -m benchmarks.lora_step --dtype float32    # for processors that do not compute in bfloat16
    python -m benchmarks.lora_step --dtype float32 --held
    python -m benchmarks.lora_step --count

As ``benchmarks.textual_inversion`` has it: each side is a process of its own, and they take turns. The recipe, that of
diffusers' example of text to image with LoRA, encodes the picture and the sentence in every step, with everything
frozen in bfloat16, and lets PEFT's layers of rank 4 at q, k, v and out of attention learn in float32 under autocast.
This project's side reads the cached moments of the latents and has the same factors beside its layers, as ``main.py``
with ``configs/stable-diffusion/lora.yaml``. One picture a step, no gradient checkpointing on either side. The gradients
that are compared are those of all second factors, whose first are the same on both sides.

With ``--held`` this project's side has its frozen weights in bfloat16, the autoencoder's aside, and computes in
float32, as ``lightning.frozen=bf16`` does on such a processor; the recipe has no such thing and stays in float32. With
``--offload`` this project's autoencoder and text encoder lie in a file, as ``lightning.offload`` has it.
``--count`` counts the tensors of a step instead of running it, see ``benchmarks.live_memory``.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from benchmarks.textual_inversion import ROOT, compare, print_head, work, write_report
from benchmarks.textual_inversion_common import DEVICE, SIZES, Parts, Side, Size

COUNTED = (  # the recipe's row before those that are set beside it
    (torch.float32, "diffusers", False),
    (torch.float32, "ours", False),
    (torch.float32, "ours", True),
    (torch.bfloat16, "diffusers", False),
    (torch.bfloat16, "ours", False),
)


def build(
    side: str, size: Size, weights: Path | Parts, dtype: torch.dtype, held: bool = False, offload: bool = False
) -> Side:
    """One side; neither imports what only the other needs, so that the peaks are their own."""
    if side == "ours":
        from benchmarks.lora_step_ours import OurHeldLora, OurLora

        made = (OurHeldLora if held else OurLora)(size, weights, dtype)
        if offload:
            made.offload()
        return made
    from benchmarks.lora_step_diffusers import DiffusersLora

    return DiffusersLora(size, weights, dtype)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["sd", "small_sd"], default=["sd"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16", help="of what is frozen")
    parser.add_argument("--held", action="store_true", help="with --dtype float32: our frozen weights in bfloat16")
    parser.add_argument("--offload", action="store_true", help="our autoencoder and text encoder lie in a file")
    parser.add_argument("--count", action="store_true", help="count what tensors take in all precisions; run nothing")
    parser.add_argument("--apart", action="store_true", help="one side after the other, where memory is short")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--worker", choices=["ours", "diffusers"], help="be one side; for the benchmark itself")
    parser.add_argument("--weights", type=Path, help="with --worker")
    parser.add_argument("--outdir", "--out", dest="out", type=Path, default=ROOT / "outputs" / "benchmarks")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.held and options.dtype != "float32":
        parser.error("--held is for --dtype float32")
    if options.count and DEVICE != "cpu":
        parser.error("--count counts the kernels of a CPU; hide the GPU from it")
    if options.worker:
        dtype = dtype_of(options.weights)
        work(build(options.worker, SIZES[options.parts[0]], options.weights, dtype, options.held, options.offload))
        return
    if options.count:
        for size in options.parts:
            count(SIZES[size])
        return
    ours = [name for name in ("held", "offload") if getattr(options, name)]
    name = "-".join([options.dtype, *ours])
    print_head(options.threads, name)
    how: dict[str, Any] = {"dtype": options.dtype, "apart": options.apart, "more": [f"--{one}" for one in ours]}
    how["more"] += ["--dtype", options.dtype]
    rows = [compare("benchmarks.lora_step", size, options.repeats, options.threads, **how) for size in options.parts]
    write_report(options.out / f"lora_step-{name}.json", rows, options.threads, dtype=options.dtype, ours=ours)


def count(size: Size) -> None:
    """Print what the tensors of a step take in each row: before it, at its peak, and beside the recipe's peak."""
    from benchmarks.live_memory import live_mb

    theirs = 0.0
    for dtype, side, held in COUNTED:
        before, peak = live_mb(functools.partial(random_side, side, size, dtype, held))
        theirs = peak if side == "diffusers" else theirs
        name = f"{str(dtype).removeprefix('torch.')}, {side}{', held in bfloat16' if held else ''}"
        print(f"{name:36}{before:8.0f} MB{peak:8.0f} MB{peak / theirs:8.2f}", flush=True)


def random_side(side: str, size: Size, dtype: torch.dtype, held: bool) -> Side:
    """A side with random weights that no file has."""
    from benchmarks.textual_inversion_diffusers import some_weights

    return build(side, size, some_weights(size, dtype), dtype, held)


def dtype_of(weights: Path) -> torch.dtype:
    """The precision of a file's weights."""
    with safe_open(weights, "pt") as file:
        name = file.get_slice(next(iter(file.keys()))).get_dtype()
    return {"BF16": torch.bfloat16, "F32": torch.float32}[name]


if __name__ == "__main__":
    main()
