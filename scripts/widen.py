"""Start weights for a larger network from those of a smaller one of the same depth:

    python -m scripts.widen configs/tiny2/autoencoder.yaml models/ldm/tiny/model.safetensors \
        logs/second/start.safetensors
    python -m scripts.widen configs/tiny2/ldm.yaml models/ldm/tiny/model.safetensors logs/second/unet.safetensors
    python -m scripts.widen LARGER.yaml logs/<run>/checkpoints/last.ckpt start.safetensors

An autoencoder, or the UNet of a diffusion model (its text encoder and first stage come from elsewhere). What both have
is taken over; new channels begin as the YAML's classes make them, and what was there before does not look at them yet.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from ldm.checkpoint import read_state_dict, save_state_dict
from ldm.checkpoint.loading import without_checkpoints
from ldm.modules.diffusionmodules.patch_transform import faded, surrounded
from ldm.util import UserError, instantiate_from_config, run_command

FIRST_STAGE, UNET = "first_stage_model.", "model.diffusion_model."
MOMENTS = ("encoder.conv_out.", "encoder.patch.", "quant_conv.")  # mean and log-variance, one after the other
ENCODER, DECODER = "encoder.patch.weight", "decoder.patch.weight"
INPUTS = ("conv_in.weight", "input_blocks.0.0.weight")  # of these, new input channels start silent


def widened(model: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The start weights: an older network's values wherever both have them, float32.

    Raises:
        UserError: the weights have no such part, no patch transform, or are of a network of another depth.
    """
    prefix = UNET if hasattr(model, "first_stage_model") else FIRST_STAGE
    old = {key: value.float() for key, value in weights.items() if key.startswith(prefix)}
    if prefix == FIRST_STAGE:
        old = {key.removeprefix(prefix): value for key, value in old.items()} or dict(weights)
        if ENCODER not in old or DECODER not in old:
            raise UserError(f"these weights have no patch transform: they lack '{ENCODER}' or '{DECODER}'")
        overlap = model.decoder.patch.overlap
        old[ENCODER], old[DECODER] = surrounded(old[ENCODER], overlap), faded(old[DECODER], overlap)
    own = {key: value for key, value in model.state_dict().items() if prefix == FIRST_STAGE or key.startswith(UNET)}
    if not old.keys() & own.keys():
        raise UserError(f"these weights have nothing below '{prefix}' that the new network has")
    state = {key: value.detach().clone() for key, value in own.items()}
    for key in state.keys() & old.keys():
        _take(key, state[key], old[key])
    return state


def _take(key: str, new: Tensor, old: Tensor) -> None:
    """Write an older tensor into the first channels of a newer one."""
    if new.ndim != old.ndim or any(n < o for n, o in zip(new.shape, old.shape, strict=True)):
        raise UserError(f"'{key}' has the shape {list(old.shape)}, which does not fit into {list(new.shape)}")
    if key.endswith(INPUTS) and new.shape[1] != old.shape[1]:
        new.zero_()
    if not key.startswith(MOMENTS):
        _corner(new, old)
        return
    for target, source in zip(new.chunk(2), old.chunk(2), strict=True):
        both_sides = key == "quant_conv.weight"  # moments go in and come out
        inner = zip(target.chunk(2, 1), source.chunk(2, 1), strict=True) if both_sides else [(target, source)]
        for part, value in inner:
            _corner(part, value)


def _corner(new: Tensor, old: Tensor) -> None:
    new[tuple(slice(n) for n in old.shape)] = old


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="YAML of the new autoencoder or diffusion model")
    parser.add_argument("weights", type=Path, help="the older model, in any format")
    parser.add_argument("out", type=Path, help="the new file (safetensors)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    node = without_checkpoints(OmegaConf.load(options.config).model)
    node["params"].pop("ema_decay", None)
    torch.manual_seed(0)  # for layers that the older network does not have
    state = widened(instantiate_from_config(node), read_state_dict(options.weights))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_state_dict(state, options.out)
    print(f"start weights are in {options.out}")


if __name__ == "__main__":
    run_command(main)
