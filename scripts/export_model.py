"""Make a small, safe file of a training checkpoint: averaged weights, half precision, nothing but the model.

    python -m scripts.export_model logs/<run>/checkpoints/last.ckpt models/ldm/tiny/model.safetensors --precision bf16
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch
from torch import Tensor

from ldm.checkpoint import read_state_dict, save_state_dict
from ldm.util import run_command

TRAINING_ONLY = re.compile(r"(^|\.)(model_ema|loss)\.")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def export(source: Path, target: Path, precision: str = "bf16") -> dict[str, Tensor]:
    """Write the averaged weights of ``source`` to ``target`` and return them.

    Networks are stored in ``precision``; the schedule's tables, which have no dot in their name, stay float32.

    Raises:
        UserError: ``source`` is no checkpoint, or ``target`` cannot be written.
    """
    dtype = PRECISIONS[precision]
    weights = {
        name: tensor.to(dtype) if tensor.is_floating_point() and "." in name else tensor
        for name, tensor in read_state_dict(source, ema=True).items()
        if not TRAINING_ONLY.search(name)
    }
    save_state_dict(weights, target)
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a checkpoint of any format")
    parser.add_argument("target", type=Path, help="a .safetensors or .ckpt file")
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    weights = export(options.source, options.target, options.precision)
    print(f"{options.target}: {len(weights)} tensors, {options.target.stat().st_size / 2**20:.1f} MB")


if __name__ == "__main__":
    run_command(main)
