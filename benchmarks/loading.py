"""Seconds and memory from a full-size checkpoint to a model: ``python -m benchmarks.loading --format ckpt``.

Writes a checkpoint of random weights for the configuration (4.3 GB for Stable Diffusion v1), then loads it in a fresh
process whose file cache is warm. Stable Diffusion XL as it is released (6.9 GB):

    python -m benchmarks.loading --config configs/sdxl/sd_xl_base.yaml --stored fp16 --precision fp16
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from omegaconf import OmegaConf

from ldm.arguments import Parser
from ldm.checkpoint import load_model, model_node, save_state_dict
from ldm.util import instantiate_from_config, temporary_folder

DTYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


def write_random(config: Path, path: Path, precision: str) -> None:
    """A checkpoint with the names and shapes of the configured model, in a precision."""
    with torch.device("meta"):
        model = instantiate_from_config(model_node(OmegaConf.load(config)))  # type: ignore[arg-type]
    weights = {
        key: torch.zeros_like(value, device="cpu", dtype=DTYPES[precision] if value.is_floating_point() else None)
        for key, value in model.state_dict().items()
    }
    for value in weights.values():
        if value.is_floating_point():
            value.uniform_(-1, 1)
    save_state_dict(weights, path)


def peak_memory() -> int:
    """Bytes that this process has had in memory at most."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024


def measure(config: Path, path: Path, precision: str) -> dict[str, float]:
    """Load once in this process; then read every parameter once, as the first step of sampling does."""
    document = OmegaConf.load(config)
    with torch.device("meta"):
        instantiate_from_config(model_node(document))  # type: ignore[arg-type]  # imports are not what is measured
    before, start = peak_memory(), time.perf_counter()
    model = load_model(document, path, dtype=DTYPES[precision])  # type: ignore[arg-type]
    loaded = time.perf_counter() - start
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sum()
    read = time.perf_counter() - start
    size = path.stat().st_size
    return {"file_gb": size / 1e9, "load_s": loaded, "load_and_read_s": read, "peak": (peak_memory() - before) / size}


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/stable-diffusion/v1-inference.yaml"))
    parser.add_argument("--format", choices=["safetensors", "ckpt"], default="safetensors")
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32")
    parser.add_argument("--stored", choices=list(DTYPES), default="fp32", help="precision of the file that is written")
    parser.add_argument("--file", type=Path, help="an existing checkpoint instead of a random one")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        sys.stdout.write(json.dumps(measure(options.config, options.file, options.precision)) + "\n")
        return
    with temporary_folder() as folder:
        path = options.file or Path(folder) / f"model.{options.format}"
        if options.file is None:
            write_random(options.config, path, options.stored)
        arguments = ["--config", str(options.config), "--file", str(path), "--precision", options.precision]
        command = [sys.executable, "-m", "benchmarks.loading", "--child", *arguments]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    sys.stdout.write(
        f"{result['file_gb']:.2f} GB file: {result['load_s']:.2f} s to a model, {result['load_and_read_s']:.2f} s with "
        f"every weight read once, peak memory {result['peak']:.2f} x the file\n"
    )


if __name__ == "__main__":
    main()
