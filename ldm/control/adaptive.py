"""Injection whose temperature is measured, for each head: injected logits spread as much as the layer's own."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ldm.control.acting import ActingRows
from ldm.control.inject import Inject, blended, gamma_at
from ldm.control.registry import register
from ldm.control.shares import check_share

WHAT = "--adaptive, how far T is measured,"


def spread(q: Tensor, k: Tensor) -> Tensor:
    """The deviation of q k^T over the keys of a query, its root mean square over queries: [b, h] float32.

    Of q [b h n d] and k [b h m d], without writing the products out.
    """
    q, k = q.float(), k.float()
    centred = k - k.mean(dim=2, keepdim=True)
    covariance = centred.transpose(-1, -2) @ centred / k.shape[2]
    return ((q @ covariance) * q).sum(dim=-1).mean(dim=2).sqrt()


@register("adaptive_inject")
class AdaptiveInject(Inject):
    """``Inject`` with T^(1 - a) r^a in place of T, where r makes the logits spread as they do without injection.

    The reference's T, 1.5, makes up for logits that mixing has flattened; r says for each head and call by how much
    they are. ``adaptive`` is a: 0 is ``Inject``.
    """

    def __init__(self, *given: Any, adaptive: float = 1.0, **named: Any) -> None:
        """Raises UserError as ``Inject``, and for an ``adaptive`` outside [0, 1]."""
        super().__init__(*given, **named)
        self.adaptive = check_share(WHAT, adaptive)

    def attend(self, batch: ActingRows) -> Tensor:
        query = blended(batch.own("q"), batch.of(self.q, "q"), gamma_at(self.gamma, batch.call))
        keys, values = batch.of(self.kv, "k"), batch.of(self.kv, "v")
        ratio = spread(batch.own("q"), batch.own("k")) / spread(query, keys).clamp_min(1e-6)
        T = self.T ** (1 - self.adaptive) * ratio**self.adaptive
        return batch.call.inner(query * T[:, :, None, None].to(query), keys, values, scale=batch.scale)
