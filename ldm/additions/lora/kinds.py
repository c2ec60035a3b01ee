"""What the parts of a module change: LoRA and LoCon, LoHa, LoKr, full and norm differences, DoRA around any of them.

Sources: LoRA, Hu et al. 2022 (2106.09685); LoHa, Hyeon-Woo et al. 2022 (2108.06098); LoKr and the Tucker forms, Yeh et
al. 2024 (2309.14859); DoRA, Liu et al. 2024 (2402.09353); the factor alpha / r is kohya's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ldm.util import UserError

Parts = Mapping[str, Tensor]
DoraRule = Literal["interpolate", "lycoris", "peft"]

FACTORS = {
    "LoRA": ("lora_up", "lora_down"),
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "LoKr": (),
    "full": ("diff",),
    "norm": ("w_norm",),
    "bias": ("diff_b",),
}
OPTIONAL = {
    "LoRA": ("lora_mid", "alpha", "dora_scale", "diff_b"),
    "LoHa": ("hada_t1", "hada_t2", "alpha", "dora_scale", "diff_b"),
    "LoKr": ("alpha", "dora_scale", "diff_b"),
    "full": ("diff_b",),
    "norm": ("b_norm",),
    "bias": (),
}
BIASES = ("diff_b", "b_norm")


def kind_of(parts: Parts) -> str:
    """LoRA, LoHa, LoKr, full, norm or bias.

    Raises:
        UserError: a part is missing, such as one half of a pair, or parts of two kinds stand together.
    """
    kind = next((k for k, own in FACTORS.items() if any(name in parts for name in own)), None)
    if kind is None and any(name.startswith("lokr_") for name in parts):
        kind = "LoKr"
    if kind is None and "b_norm" in parts:
        kind = "norm"
    if kind is None:
        raise UserError(f"there is only {', '.join(sorted(parts)) or 'nothing'}, which changes no weight")
    missing = [name for name in FACTORS[kind] if name not in parts and kind != "norm"]
    if kind == "LoKr":
        missing = [f"lokr_w{i}" for i in (1, 2) if not _has_factor(parts, i)]
    if missing:
        raise UserError(f"half of it is missing: there is {', '.join(sorted(parts))}, but no {missing[0]}")
    own = {*FACTORS[kind], *OPTIONAL[kind]}
    stray = [name for name in parts if name not in own and not (kind == "LoKr" and name.startswith("lokr_"))]
    if stray:
        raise UserError(f"parts of two kinds stand together: {kind} and {stray[0]}")
    return kind


def _has_factor(parts: Parts, i: int) -> bool:
    return f"lokr_w{i}" in parts or {f"lokr_w{i}_a", f"lokr_w{i}_b"} <= parts.keys()


def rank_of(parts: Parts) -> int | None:
    """r, of which the factor is alpha / r; None where there is none: differences, and LoKr with both factors whole."""
    for name in ("lora_down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if name in parts:
            return parts[name].shape[0]
    return None


def alpha_of(parts: Parts) -> float | None:
    """alpha; r where a file says none."""
    rank = rank_of(parts)
    return None if rank is None else float(parts["alpha"]) if "alpha" in parts else float(rank)


def weight_change(parts: Parts, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor | None:
    """(alpha / r) d, the change of a weight before DoRA, in its shape and float32; None where only a bias changes.

    Half precision is converted first and multiplied then.

    Raises:
        UserError: as ``kind_of``; the ranks or sizes of the parts do not go together, or do not give this shape.
    """
    kind = kind_of(parts)
    p = {name: value.to(device, torch.float32) for name, value in parts.items() if name not in BIASES}
    rank = rank_of(parts)
    if rank == 0:
        raise UserError("its rank is 0")
    try:
        change = _product(kind, p)
    except (RuntimeError, IndexError) as error:
        sizes = ", ".join(f"{name} {list(value.shape)}" for name, value in p.items() if value.dim())
        raise UserError(f"its ranks do not fit: {sizes}") from error
    if change is None:
        return None
    if change.numel() != math.prod(shape) or (change.dim() and change.shape[0] != shape[0]):
        raise UserError(f"it changes a weight of {list(change.shape)}, but the model's is {list(shape)}")
    change = change.reshape(tuple(shape))
    alpha = alpha_of(parts)
    return change if rank is None or alpha is None else change * (alpha / rank)


def _product(kind: str, p: Parts) -> Tensor | None:
    """d: in the shape of the weight, or as a matrix of its rows."""
    if kind == "LoRA":
        up, down = p["lora_up"], p["lora_down"]
        if "lora_mid" in p:
            return torch.einsum("ijhw,oi,jc->ochw", p["lora_mid"], up.flatten(1), down.flatten(1))
        return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])
    if kind == "LoHa":
        return _loha_factor(p, 1) * _loha_factor(p, 2)
    if kind == "LoKr":
        return _kronecker(_lokr_factor(p, 1), _lokr_factor(p, 2))
    return p.get("diff", p.get("w_norm"))


def _loha_factor(p: Parts, i: int) -> Tensor:
    a, b = p[f"hada_w{i}_a"], p[f"hada_w{i}_b"]
    return torch.einsum("ijhw,io,jc->ochw", p[f"hada_t{i}"], a, b) if f"hada_t{i}" in p else a @ b


def _lokr_factor(p: Parts, i: int) -> Tensor:
    if f"lokr_w{i}" in p:
        return p[f"lokr_w{i}"]
    a, b = p[f"lokr_w{i}_a"], p[f"lokr_w{i}_b"]
    return torch.einsum("ijhw,io,jc->ochw", p["lokr_t2"], a, b) if i == 2 and "lokr_t2" in p else a @ b


def _kronecker(w1: Tensor, w2: Tensor) -> Tensor:
    """kron; matrices give a matrix of the weight's rows, whose columns are in the order of a convolution's."""
    return torch.kron(w1[..., None, None] if w2.dim() == 4 and w1.dim() == 2 else w1, w2)


def difference(weight: Tensor, parts: Parts, scale: float = 1.0, dora: DoraRule = "interpolate") -> Tensor | None:
    """W' - W of one module at a scale, in the weight's shape and float32; None where only a bias changes.

    Args:
        weight: W, the base model's.
        dora: how a scale other than 1 acts with DoRA. ``interpolate``: W' is s of the way to what was trained, so that
            0 is the base model; ``peft``: the scale multiplies the low-rank product inside the norm; ``lycoris``: the
            ratio of magnitudes, V (s (m / |V| - 1) + 1), which at 0 is not the base model.

    Raises:
        UserError: as ``weight_change``, or a magnitude that fits neither rows nor columns.
    """
    change = weight_change(parts, weight.shape, weight.device)
    if change is None or "dora_scale" not in parts:
        return None if change is None else scale * change
    base = weight.float()
    magnitude, axis = _along(parts["dora_scale"].to(weight.device, torch.float32), base.shape)
    direction = base + (scale * change if dora == "peft" else change)
    others = [i for i in range(direction.dim()) if i != axis]
    ratio = magnitude / torch.linalg.vector_norm(direction, dim=others, keepdim=True)
    if dora == "peft":
        return ratio * direction - base
    if dora == "lycoris":
        return direction * (scale * (ratio - 1) + 1) - base
    return scale * (ratio * direction - base)


def _along(magnitude: Tensor, shape: Sequence[int]) -> tuple[Tensor, int]:
    """m with an axis for each of the weight's, and the axis that it lies along: rows or columns, as its shape says.

    Raises:
        UserError: it has the size of neither.
    """
    axis = 0 if magnitude.dim() == 1 or magnitude.shape[0] == magnitude.numel() else 1
    if magnitude.numel() != shape[axis]:
        raise UserError(f"its magnitude has {magnitude.numel()} entries for a weight of {list(shape)}")
    return magnitude.reshape([-1 if i == axis else 1 for i in range(len(shape))]), axis


def bias_difference(parts: Parts, scale: float = 1.0) -> Tensor | None:
    """The change of a bias at a scale, in float32; None where it has none."""
    value = next((parts[name] for name in BIASES if name in parts), None)
    return None if value is None else scale * value.float()
