"""Attention shared between a content and several styles by masks, by mass or by competition."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.control.acting import ActingRows, RowMode
from ldm.control.inject import Gamma, blended, check_gamma, check_temperature, gamma_at
from ldm.control.registry import register
from ldm.control.shares import ShareMap
from ldm.control.softmax import logits, peak_and_log_sum
from ldm.control.sources import FeatureSource, Rows
from ldm.util import UserError

WAYS = ("mass", "competition")
PRIORS = ("masks", "shares")
TAU = (0.08395199, 0.43704639, 1.00998177)  # of D^2, D and 1
TAU_RANGE = (1.0, 5.0)


@dataclass(frozen=True)
class MixedSource:
    """One source at one call: logits are ``factor q k^T``. Shapes: q [b h n d], k and v [b h m d]."""

    q: Tensor
    k: Tensor
    v: Tensor
    factor: float


@dataclass(frozen=True)
class MixReport:
    """What a mix did at one call; source 0 is the content, the others are the styles.

    Shapes: shares [b, h or 1, sources, n], the mass that each source really got of each query's attention;
    tau [b, h], the sharpening of each head, 1 without any.
    """

    site: str
    index: int  # of the level
    timestep: float
    shares: Tensor
    tau: Tensor
    parts: tuple[MixedSource, ...]

    def log_probs(self, queries: Sequence[int]) -> list[Tensor]:
        """log of the attention of some queries, a tensor [b, h, queries, keys] for each source; exp sums to 1."""
        found = []
        for source, part in enumerate(self.parts):
            scores = self.tau[:, :, None, None] * logits(part.q[:, :, list(queries)], part.k, part.factor)
            share = self.shares[:, :, source, list(queries), None]
            found.append(scores.log_softmax(dim=-1) + share.log())
        return found


@register("mix")
class Mix(RowMode):
    """One softmax over the keys of a content and of N styles, with the shares that masks ask for.

    Logits of the content are d^-1/2 q_c k_c^T, those of style j are T d^-1/2 q~ k_j^T with
    q~ = gamma q_c + (1 - gamma) q. With w_j the masks normalised to the sum 1 and coverage = min(1, sum of masks), the
    shares asked for are pi_j = pi coverage w_j and pi_c = 1 - sum_j pi_j, for each query.

    * mass: b_j = lse(l_c) + log(pi_j / pi_c) - lse(l_j) is added to the logits of j, so that each source gets exactly
      its share. Then the softmax falls apart into one for each source, added up with the weights pi_j.
    * competition: log w_j is added to the logits of j and nothing to those of the content, and logits decide the rest;
      with ``prior`` "shares" it is log pi_j and log pi_c, so that ``pi`` and soft masks count, too.

    Sharpening multiplies, for each head, the distance of all logits from their mean by
    tau = 0.084 D^2 + 0.437 D + 1.010, between 1 and 5, where D is the mean over the queries of how much smaller the
    log of the largest weight is than in the content's own attention. That changes the shares; a report has the true
    ones.
    """

    def __init__(
        self,
        content: FeatureSource | None,  # q, k and v of the content; None: those of the batch itself
        styles: Sequence[FeatureSource],  # k and v of each style
        masks: Tensor | None = None,  # [styles, H, W] or [rows, styles, H, W] in [0, 1]; None: everywhere, equally
        pi: float = 0.9,  # the styles' part where masks are 1
        by: str = "mass",
        gamma: Gamma = 0.2,
        T: float = 2.0,
        sharpen: bool = False,
        prior: str = "masks",  # of competition
        timesteps: Collection[float] | None = None,  # only at these
        rows: Rows | None = None,  # only for these rows of the batch; the others stay plain
        report: Callable[[MixReport], None] | None = None,  # called at each site and timestep
    ) -> None:
        """Raises UserError for values or masks that do not fit."""
        super().__init__(timesteps, rows)
        if by not in WAYS or prior not in PRIORS:
            raise UserError(f"attention is mixed by {' or '.join(WAYS)} with a prior of {' or '.join(PRIORS)}")
        self.content, self.styles = content, list(styles)
        self.gamma, self.T = check_gamma(gamma), check_temperature(T)
        self.by, self.sharpen, self.prior, self.report = by, sharpen, prior, report
        self.share_map = ShareMap(masks, len(self.styles), pi)

    def attend(self, batch: ActingRows) -> Tensor:
        """The output [rows h n d] of the acting rows; ``report`` hears of the shares on the way.

        Raises:
            UserError: masks of several pictures, but not of as many as there are rows.
        """
        parts = self._parts(batch)
        grid = batch.call.grid(batch.q.shape[2])
        wanted = self.share_map.shares(grid, batch.q.device)
        if wanted.shape[0] not in (1, len(batch.rows)):
            raise UserError(f"masks of {wanted.shape[0]} pictures were given for a batch of {len(batch.rows)}")
        if self.by == "competition" and self.prior == "masks":
            wanted = self.share_map.masks_beside_content(grid, batch.q.device)
        tau = torch.ones(parts[0].q.shape[:2], device=batch.q.device)
        shares = wanted[:, None]
        if self.by == "competition" or self.sharpen:
            shares, tau = self._compete(parts, wanted[:, None], tau)
        if self.report is not None:
            self.report(MixReport(batch.call.site, batch.call.index, batch.call.timestep, shares, tau, parts))

        out = torch.zeros(parts[0].q.shape, device=batch.q.device)
        sharp = tau[:, :, None, None].to(batch.q.dtype)
        for source, part in enumerate(parts):
            where = self.share_map.queries(source, grid, batch.q.device)
            query = part.q[:, :, where] * sharp if self.sharpen else part.q[:, :, where]
            if query.shape[2]:
                weight = shares[:, :, source, where, None]
                out[:, :, where] += weight * batch.call.inner(query, part.k, part.v, scale=part.factor)
        return out.to(batch.q.dtype)

    def _parts(self, batch: ActingRows) -> tuple[MixedSource, ...]:
        q, k, v = (batch.of(self.content, name) for name in "qkv")
        content = MixedSource(q, k, v, batch.scale)
        query = blended(batch.own("q"), content.q, gamma_at(self.gamma, batch.call))
        keys_values = [(batch.of(style, "k"), batch.of(style, "v")) for style in self.styles]
        return (content, *(MixedSource(query, k, v, self.T * batch.scale) for k, v in keys_values))

    def _compete(self, parts: tuple[MixedSource, ...], wanted: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """The true shares [b h sources n] when all logits meet in one softmax, and the sharpening [b h]."""
        peaks, sums = _statistics(parts, tau)
        bias = wanted.log()
        if self.by == "mass":
            bias = bias - sums
        if not self.sharpen:
            return (sums + bias).softmax(dim=2), tau
        mixed = (peaks + bias).amax(dim=2) - (sums + bias).logsumexp(dim=2)
        tau = sharpening(((peaks[:, :, 0] - sums[:, :, 0]) - mixed).mean(dim=-1))
        _, sums = _statistics(parts, tau)
        return (sums + tau[:, :, None, None] * bias).softmax(dim=2), tau


def sharpening(D: Tensor) -> Tensor:
    """tau for the loss ``D`` of the largest weight's logarithm, any shape; between 1 and 5."""
    square, linear, constant = TAU
    return (square * D**2 + linear * D + constant).clamp(*TAU_RANGE)


def _statistics(parts: Sequence[MixedSource], tau: Tensor) -> tuple[Tensor, Tensor]:
    """Largest logit and log of the sum of exponentials, [b h sources n] each."""
    found = [peak_and_log_sum(part.q * tau[:, :, None, None].to(part.q), part.k, part.factor) for part in parts]
    peaks, sums = zip(*found, strict=True)
    return torch.stack(peaks, dim=2), torch.stack(sums, dim=2)
