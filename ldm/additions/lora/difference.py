"""What a trained model differs in from the one that it began as: full differences, as LyCORIS' "full" has them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldm.additions.lora.names import Place, places
from ldm.checkpoint.lora.writing import Written
from ldm.util import UserError

log = logging.getLogger(__name__)


@torch.no_grad()
def full_differences(model: Any, base: Mapping[str, Tensor], precision: torch.dtype = torch.float16) -> list[Written]:
    """The modules of a LoRA file that takes the base model to this one, as whole differences.

    Args:
        model: a LatentDiffusion that was trained.
        base: the weights that it began from, under the same names.

    Raises:
        UserError: nothing differs.
    """
    now = dict(model.named_parameters())
    found: list[Written] = []
    told: set[str] = set()
    for place in dict.fromkeys(places(model).values()):
        told |= {place.weight, place.bias}
        names = ("w_norm", "b_norm") if now[place.weight].dim() == 1 else ("diff", "diff_b")
        parts = {
            part: change.to(precision)
            for part, name in zip(names, (place.weight, place.bias), strict=True)
            if (change := _change(now, base, name, place)) is not None
        }
        if parts:
            found.append(Written(place.network, place.name, parts))
    lost = [name for name in now if name not in told and _change(now, base, name) is not None]
    if lost:
        log.warning("%d trained weights have no place in a file of differences, such as '%s'", len(lost), lost[0])
    if not found:
        raise UserError("the model is what it was, so there is no difference to write")
    return found


def _change(
    now: Mapping[str, Tensor], base: Mapping[str, Tensor], name: str, place: Place | None = None
) -> Tensor | None:
    """The change of a parameter, or of some of its rows, on the CPU; None where there is none."""
    if name not in now or name not in base:
        return None
    rows = slice(None) if place is None or place.rows is None else slice(*place.rows)
    change = now[name].detach()[rows].cpu().float() - base[name][rows].float()
    return change if change.any() else None
