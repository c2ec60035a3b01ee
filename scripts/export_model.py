"""Make a small, safe file of a training checkpoint: averaged weights, half precision, nothing but the model.

    python -m scripts.export_model latest:tiny models/mine/model.safetensors
    python -m scripts.export_model logs/<run>/checkpoints/last.ckpt models/mine/model.safetensors --precision fp32
    python -m scripts.export_model latest:tiny models/mine/model.safetensors --first_stage latest:tiny-decoder
    python -m scripts.export_model latest:tiny-photographs models/mine/model.safetensors --mean_with latest:tiny
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from ldm.arguments import Parser
from ldm.checkpoint import read_state_dict, save_state_dict
from ldm.runs import given_or_latest
from ldm.util import UserError, run_command

TRAINING_ONLY = re.compile(r"(^|\.)(model_ema|loss)\.")
FIRST_STAGE = "first_stage_model."
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def averaged(source: Path, precision: str) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint without what only training needs.

    Networks are in ``precision``; the schedule's tables, which have no dot in their name, stay float32.
    """
    dtype = PRECISIONS[precision]
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() and "." in name else tensor
        for name, tensor in read_state_dict(source, ema=True).items()
        if not TRAINING_ONLY.search(name)
    }


def mean(weights: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean of two models, one trained on from the other: between what each does best (Wortsman et al. 2022).

    Raises:
        UserError: they are not of one kind.
    """
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in other.items()}:
        raise UserError("a mean takes two models of the same kind; these have other weights")
    return {
        name: ((value.float() + other[name].float()) / 2).to(value.dtype) if value.is_floating_point() else value
        for name, value in weights.items()
    }


def export(
    source: Path, target: Path, precision: str = "bf16", first_stage: Path | None = None, mean_with: Path | None = None
) -> dict[str, Tensor]:
    """Write the averaged weights of ``source`` to ``target`` and return them.

    ``first_stage`` is the checkpoint of an autoencoder that takes the place of the one in ``source``, ``mean_with`` one
    whose weights are taken half and half with those of ``source``.

    Raises:
        UserError: a checkpoint is none, the models do not fit each other, or ``target`` cannot be written.
    """
    weights = averaged(source, precision)
    if mean_with is not None:
        weights = mean(weights, averaged(mean_with, precision))
    if first_stage is not None:
        replacement = {f"{FIRST_STAGE}{name}": value for name, value in averaged(first_stage, precision).items()}
        if replacement.keys() != {name for name in weights if name.startswith(FIRST_STAGE)}:
            raise UserError(f"'{first_stage}' is not the kind of autoencoder that '{source}' was trained on")
        weights |= replacement
    save_state_dict(weights, target)
    return weights


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("source", type=Path, help="a checkpoint of any format, or latest:NAME of a run")
    parser.add_argument("target", type=Path, help="a .safetensors or .ckpt file")
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--first_stage", type=Path, help="checkpoint of an autoencoder to take instead")
    parser.add_argument("--mean_with", type=Path, help="checkpoint whose weights are taken half and half with these")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    first_stage, other = (path and given_or_latest(path) for path in (options.first_stage, options.mean_with))
    weights = export(given_or_latest(options.source), options.target, options.precision, first_stage, other)
    print(f"{options.target}: {len(weights)} tensors, {options.target.stat().st_size / 2**20:.1f} MB")


if __name__ == "__main__":
    run_command(main)
