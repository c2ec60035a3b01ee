"""How far attention is from what it would be with a style's keys and values: a number that can be driven down."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.control.acting import ActingRows, RowMode
from ldm.control.energy import AllSeen
from ldm.control.sites import Sites
from ldm.control.sources import FeatureSource, Rows


class StyleLoss(RowMode):
    """Attention stays as it is; its distance to the style's is gathered, and to the content's queries.

    |softmax(q k^T) v - softmax(q k_s^T) v_s| with the second held fast, and ``keep`` times |q - q_c|, each a mean
    (after Zhou et al. 2025, arXiv 2502.20235). The last of ``where`` ends the network's call with ``AllSeen``.
    """

    def __init__(
        self, content: FeatureSource, style: FeatureSource, where: Sites, keep: float, rows: Rows | None = None
    ) -> None:
        super().__init__(None, rows)
        self.content, self.style, self.where, self.keep = content, style, frozenset(where), keep
        self.terms: dict[str, Tensor] = {}

    def attend(self, batch: ActingRows) -> Tensor:
        q, k, v = (batch.own(name) for name in "qkv")
        own = batch.call.inner(q, k, v, scale=batch.scale)
        with torch.no_grad():
            wanted = batch.call.inner(q, batch.of(self.style, "k"), batch.of(self.style, "v"), scale=batch.scale)
        kept = F.l1_loss(q.float(), batch.of(self.content, "q").float())
        self.terms[batch.call.site] = F.l1_loss(own.float(), wanted.float()) + self.keep * kept
        if self.where <= self.terms.keys():
            raise AllSeen
        return own

    def taken(self) -> Tensor:
        """The sum over layers; gathering begins anew."""
        total = torch.stack(list(self.terms.values())).sum()
        self.terms.clear()
        return total
