"""The plain mode: attention as it is, whatever mode is around."""

from __future__ import annotations

from torch import Tensor

from ldm.control.registry import register
from ldm.control.seam import Call
from ldm.modules.attention import scaled_dot_product_attention


@register("plain")
class Plain:
    """Attention without any mode: switches off, at some sites, the modes of an outer block."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, call: Call, scale: float | None = None) -> Tensor:
        return scaled_dot_product_attention(q, k, v, scale=scale)
