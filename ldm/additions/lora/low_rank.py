"""A change of weights as a LoRA of a rank: the nearest there is, by singular values (Eckart & Young 1936)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldm.additions.lora.lora import Lora, edits_of
from ldm.additions.lora.names import Place, places
from ldm.checkpoint.lora.writing import Written
from ldm.util import UserError

MORE = 8  # vectors that a randomised decomposition looks at beyond the rank
SMALLEST = 1e-7  # of a weight's length: a change below is rounding


def nearest_pair(change: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """up [out, r(, 1, 1)] and down [r, in(, kh, kw)] whose product is nearest to a change, and its share of it.

    The share is of the squared length. A change of lower rank gives a pair of that rank.
    """
    matrix = change.flatten(1).float()
    rank = min(rank, *matrix.shape)
    if min(matrix.shape) > 4 * (rank + MORE):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            u, s, v = torch.svd_lowrank(matrix, q=rank + MORE, niter=4)
        v = v.T
    else:
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    kept = max(1, min(rank, int((s > SMALLEST * s[0]).sum())))
    u, s, v = u[:, :kept], s[:kept], v[:kept]
    share = float(s.square().sum() / matrix.square().sum().clamp(min=1e-30))
    up, down = u * s.sqrt(), s.sqrt()[:, None] * v
    if change.dim() == 4:
        up = up[:, :, None, None]
    return up.contiguous(), down.reshape(kept, *change.shape[1:]).contiguous(), min(share, 1.0)


@torch.no_grad()
def as_lora(model: Any, new: Mapping[str, Tensor], rank: int) -> tuple[list[Written], float]:
    """The modules of a LoRA that takes a model's weights to others, and the share of the change that it is.

    Args:
        model: a LatentDiffusion.
        new: parameter of the model -> its values; those that are not weights of layers are left out.
        rank: the most that a module may have.

    Raises:
        UserError: the rank is below 1, a shape is another, or no weight of a layer differs.
    """
    if rank < 1:
        raise UserError(f"--rank must be at least 1, got {rank}")
    parameters = dict(model.named_parameters())
    found: list[Written] = []
    kept = total = 0.0
    for place in dict.fromkeys(places(model).values()):
        if place.weight not in new:
            continue
        before, after = _rows(parameters[place.weight], place), _rows(new[place.weight], place)
        if before.shape != after.shape:
            sizes = f"{list(before.shape)} in one model and {list(after.shape)} in the other"
            raise UserError(f"'{place.weight}' is {sizes}")
        change = after.to(before.device, torch.float32) - before.float()
        if before.dim() < 2 or float(change.norm()) <= SMALLEST * float(before.float().norm()):
            continue
        up, down, share = nearest_pair(change, rank)
        found.append(Written(place.network, place.name, {
            "lora_up": up, "lora_down": down, "alpha": torch.tensor(float(down.shape[0])),
        }))  # fmt: skip
        kept, total = kept + share * float(change.square().sum()), total + float(change.square().sum())
    if not found:
        raise UserError("no weight of a layer differs, so there is no LoRA to make")
    return found, kept / total


def _rows(value: Tensor, place: Place) -> Tensor:
    return value.detach() if place.rows is None else value.detach()[slice(*place.rows)]


@torch.no_grad()
def joined(model: Any, loras: list[Lora], rank: int) -> tuple[list[Written], float]:
    """Several LoRAs as one of a rank; see ``as_lora``."""
    parameters = dict(model.named_parameters())
    edits = edits_of(model, [(lora, 1.0) for lora in loras])
    return as_lora(model, {name: edit(parameters[name].data.float()) for name, edit in edits.items()}, rank)
