"""A step of LoRA beside diffusers' recipe: time and peak memory, the same random weights, picture and noise.

    python -m benchmarks.lora_step
    python -m benchmarks.lora_step --dtype float32    # for processors that do not compute in bfloat16

As ``benchmarks.textual_inversion`` has it: each side is a process of its own, and they take turns. The recipe, that of
diffusers' example of text to image with LoRA, encodes the picture and the sentence in every step, with everything
frozen in bfloat16, and lets PEFT's layers of rank 4 at q, k, v and out of attention learn in float32 under autocast.
This project's side reads the cached moments of the latents and has the same factors beside its layers, as ``main.py``
with ``configs/stable-diffusion/lora.yaml``. One picture a step, no gradient checkpointing on either side. The gradients
that are compared are those of all second factors, whose first are the same on both sides.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors import safe_open

from benchmarks.textual_inversion import ROOT, compare, print_head, work, write_report
from benchmarks.textual_inversion_common import SIZES, Side, Size


def build(side: str, size: Size, weights: Path, dtype: torch.dtype) -> Side:
    """One side; neither imports what only the other needs, so that the peaks are their own."""
    if side == "ours":
        from benchmarks.lora_step_ours import OurLora

        return OurLora(size, weights, dtype)
    from benchmarks.lora_step_diffusers import DiffusersLora

    return DiffusersLora(size, weights, dtype)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["sd", "small_sd"], default=["sd"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16", help="of what is frozen")
    parser.add_argument("--apart", action="store_true", help="one side after the other, where memory is short")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--worker", choices=["ours", "diffusers"], help="be one side; for the benchmark itself")
    parser.add_argument("--weights", type=Path, help="with --worker")
    parser.add_argument("--outdir", "--out", dest="out", type=Path, default=ROOT / "outputs" / "benchmarks")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.worker:
        dtype = dtype_of(options.weights)
        work(build(options.worker, SIZES[options.parts[0]], options.weights, dtype))
        return
    print_head(options.threads, options.dtype)
    how = {"dtype": options.dtype, "apart": options.apart}
    rows = [compare("benchmarks.lora_step", size, options.repeats, options.threads, **how) for size in options.parts]
    write_report(options.out / f"lora_step-{options.dtype}.json", rows, options.threads, dtype=options.dtype)


def dtype_of(weights: Path) -> torch.dtype:
    """The precision of a file's weights."""
    with safe_open(weights, "pt") as file:
        name = file.get_slice(next(iter(file.keys()))).get_dtype()
    return {"BF16": torch.bfloat16, "F32": torch.float32}[name]


if __name__ == "__main__":
    main()
