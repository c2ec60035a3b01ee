"""The learned factors of one layer, and how they are put beside what the layer computes.

y = W x + (alpha / r) B A x (Hu et al. 2022, equation 3); with DoRA the sum is brought to a learned length by rows (Liu
et al. 2024, equation 5), the length of the direction being taken as a constant in the gradient (section 4.3).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.additions.base import Undo
from ldm.modules.encoders.clip_towers import FusedAttention
from ldm.util import UserError

STARTS = ("kohya", "diffusers")  # Kaiming uniform; normal of spread 1 / r


class Factors(nn.Module):
    """``lora_down`` [r, in(, kh, kw)], ``lora_up`` [out, r(, 1, 1)], and ``dora_scale`` [out] with DoRA.

    Args:
        shape: of the layer's weight.
        rank, alpha: r, and the number that is divided by it.
        start: how ``lora_down`` begins; ``lora_up`` begins at zero.
        dropout: share of the input's entries that are left out in training.
        dora: learn the lengths of the weight's rows.
    """

    def __init__(
        self, shape: Sequence[int], rank: int, alpha: float, start: str = "kohya", dropout: float = 0.0,
        dora: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.alpha = alpha
        self.dropout = dropout
        self.left_out = False  # whether the layer is for now as it is without
        down, ones = torch.empty(rank, *shape[1:], device="cpu"), [1] * (len(shape) - 2)
        if start == "kohya":
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        else:
            nn.init.normal_(down, std=1 / rank)
        self.lora_down = nn.Parameter(down)
        self.lora_up = nn.Parameter(torch.zeros(shape[0], rank, *ones, device="cpu"))
        self.dora_scale = nn.Parameter(torch.ones(shape[0], device="cpu")) if dora else None

    @property
    def rank(self) -> int:
        return self.lora_down.shape[0]

    @property
    def parts(self) -> dict[str, Tensor]:
        """As a file has them."""
        found = {name: value.detach().float().cpu() for name, value in self.named_parameters()}
        return found | {"alpha": torch.tensor(float(self.alpha), device="cpu")}

    def load_parts(self, parts: Mapping[str, Tensor], what: str) -> None:
        """Take the values of a file.

        Raises:
            UserError: they have another shape.
        """
        for name, value in self.named_parameters():
            given = parts.get(name)
            if given is None or given.numel() != value.numel() or given.shape[0] != value.shape[0]:
                has = None if given is None else list(given.shape)
                raise UserError(f"{what}: '{name}' is {has}, but {list(value.shape)} is needed; take its rank")
            value.data.copy_(given.reshape(value.shape))
        self.alpha = float(parts["alpha"]) if "alpha" in parts else float(self.rank)

    def change(self, x: Tensor, layer: nn.Module | None = None) -> Tensor:
        """(alpha / r) B A x; ``layer`` is the convolution that x goes through, None for a linear layer."""
        if self.training and self.dropout:
            x = F.dropout(x, self.dropout)
        down, up = self.lora_down.to(x.dtype), self.lora_up.to(x.dtype)
        if isinstance(layer, nn.Conv2d):
            assert not isinstance(layer.padding, str)
            inner = F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
            return F.conv2d(inner, up) * (self.alpha / self.rank)
        return F.linear(F.linear(x, down.flatten(1)), up.flatten(1)) * (self.alpha / self.rank)

    def take_lengths(self, weight: Tensor) -> None:
        """Begin DoRA's lengths from those of a weight's rows."""
        if self.dora_scale is not None and not weight.is_meta:
            self.dora_scale.data.copy_(weight.detach().float().flatten(1).norm(dim=1))

    def ratio(self, weight: Tensor, scale: float) -> Tensor:
        """The learned length of each row over that of W + s (alpha / r) B A, [out]."""
        assert self.dora_scale is not None
        with torch.no_grad():
            product = self.lora_up.flatten(1) @ self.lora_down.flatten(1)
            direction = weight.float().flatten(1) + scale * self.alpha / self.rank * product
            length = direction.norm(dim=1)
        return self.dora_scale / length


def put_beside(layer: nn.Module, factors: Factors, scale: float) -> Undo:
    """Have a linear layer or a convolution give its result with the change; what is returned takes it off again."""

    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if factors.left_out:
            return output
        change = scale * factors.change(inputs[0], layer)
        if factors.dora_scale is None:
            return output + change.to(output.dtype)
        ratio = factors.ratio(layer.weight, scale).to(output.dtype)  # type: ignore[arg-type]
        bias = layer.bias
        if isinstance(layer, nn.Conv2d):
            ratio, bias = ratio[:, None, None], None if bias is None else bias[:, None, None]  # type: ignore[index]
        if bias is None:
            return ratio * (output + change)
        return ratio * (output - bias + change) + bias  # type: ignore[operator]

    return layer.register_forward_hook(hook).remove


def put_beside_rows(attention: FusedAttention, factors: dict[int, Factors], scale: float) -> Undo:
    """As ``put_beside``, for q, k and v that are rows of one weight: 0, 1, 2 -> the factors of each."""
    plain: Callable[[Tensor], Tensor] = attention.qkv
    before = attention.__dict__.get("qkv")

    def qkv(x: Tensor) -> Tensor:
        parts = list(plain(x).chunk(3, dim=-1))
        for i, own in factors.items():
            if own.left_out:
                continue
            parts[i] = parts[i] + scale * own.change(x).to(parts[i].dtype)
        return torch.cat(parts, dim=-1)

    attention.__dict__["qkv"] = qkv
    return functools.partial(_restore, attention, before)


def _restore(attention: FusedAttention, before: Any) -> None:
    if before is None:
        attention.__dict__.pop("qkv", None)
    else:
        attention.__dict__["qkv"] = before
