"""Injection that leaves a picture some of its own keys beside the style's, as StyleAligned shares attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ldm.control.acting import ActingRows
from ldm.control.inject import Inject, blended, gamma_at
from ldm.control.registry import register
from ldm.control.shares import check_share
from ldm.control.softmax import peak_and_log_sum

WHAT = "--share, the weight of a picture's own keys,"


def aligned(own: Tensor, style: Tensor) -> Tensor:
    """``own`` [b h n d] with the mean and deviation over positions that ``style`` [b h m d] has in each channel."""
    deviation, mean = torch.std_mean(own, dim=2, keepdim=True)
    its_deviation, its_mean = torch.std_mean(style, dim=2, keepdim=True)
    return (own - mean) / deviation.clamp_min(1e-6) * its_deviation + its_mean


@register("shared_inject")
class SharedInject(Inject):
    """One softmax over the keys of the style and the picture's own (Hertz et al. 2024, arXiv 2312.02133, equation 5).

    The logarithm of ``weight`` is added to the own logits, and own queries and keys go that far towards the style's
    statistics: 0 is ``Inject``, 1 is the paper's sharing, where gamma is 0 and T is 1. The style needs q, k and v.
    """

    def __init__(self, *given: Any, weight: float = 1.0, **named: Any) -> None:
        """Raises UserError as ``Inject``, and for a ``weight`` outside [0, 1]."""
        super().__init__(*given, **named)
        self.weight = check_share(WHAT, weight)

    def attend(self, batch: ActingRows) -> Tensor:
        style_q, style_k, style_v = (batch.of(self.kv, name) for name in "qkv")
        own_q, own_k = batch.own("q"), batch.own("k")
        own_q = torch.lerp(own_q, aligned(own_q, style_q), self.weight)
        own_k = torch.lerp(own_k, aligned(own_k, style_k), self.weight)
        query, factor = blended(own_q, batch.of(self.q, "q"), gamma_at(self.gamma, batch.call)), self.T * batch.scale
        (_, own_sum), (_, style_sum) = (peak_and_log_sum(query, keys, factor) for keys in (own_k, style_k))
        share = torch.sigmoid(torch.tensor(self.weight).log() + own_sum - style_sum)[..., None].to(query)
        own, style = (
            batch.call.inner(query, keys, values, scale=factor)
            for keys, values in ((own_k, batch.own("v")), (style_k, style_v))
        )
        return share * own + (1 - share) * style
