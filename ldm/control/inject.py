"""Style injection: the query of the content, blended in, looks at keys and values of the style (StyleID)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from ldm.control.acting import ActingRows, RowMode
from ldm.control.registry import register
from ldm.control.seam import Call
from ldm.control.sources import FeatureSource, Rows
from ldm.util import UserError

Gamma = float | Mapping[int, float]  # one for all levels, or one for each by its index


def check_gamma(gamma: Gamma) -> Gamma:
    """``gamma`` itself, a number or one for each level.

    Raises:
        UserError: a value outside [0, 1].
    """
    for value in gamma.values() if isinstance(gamma, Mapping) else [gamma]:
        if not 0 <= value <= 1:
            raise UserError(f"gamma, the content's share of the query, must lie between 0 and 1, got {value}")
    return gamma


def check_temperature(T: float) -> float:
    """``T`` itself.

    Raises:
        UserError: it is not above 0.
    """
    if not 0 < T < float("inf"):
        raise UserError(f"T, the factor on the logits, must be a number above 0, got {T}")
    return T


def gamma_at(gamma: Gamma, call: Call) -> float:
    """The value of ``gamma`` at the call's level.

    Raises:
        UserError: there is none for it.
    """
    if not isinstance(gamma, Mapping):
        return gamma
    if call.index not in gamma:
        raise UserError(f"gamma has no value for level {call.index}, where the timestep is {call.timestep:g}")
    return gamma[call.index]


def blended(q: Tensor, content: Tensor, gamma: float) -> Tensor:
    """gamma q_c + (1 - gamma) q, of queries [b h n d]."""
    return torch.lerp(q, content, gamma)


@register("inject")
class Inject(RowMode):
    """softmax(T d^-1/2 q~ k_s^T) v_s with q~ = gamma q_c + (1 - gamma) q (Chung et al. 2024, equations 4 and 5)."""

    def __init__(
        self,
        q: FeatureSource | None = None,  # the content; None: the query stays
        kv: FeatureSource | None = None,  # the style; None: keys and values stay
        gamma: Gamma = 0.75,
        T: float = 1.5,
        timesteps: Collection[float] | None = None,  # only at these
        rows: Rows | None = None,  # only for these rows of the batch; the others stay plain
    ) -> None:
        """Raises UserError for a gamma outside [0, 1], or a T that is not above 0."""
        super().__init__(timesteps, rows)
        self.q, self.kv = q, kv
        self.gamma, self.T = check_gamma(gamma), check_temperature(T)

    def attend(self, batch: ActingRows) -> Tensor:
        query = blended(batch.own("q"), batch.of(self.q, "q"), gamma_at(self.gamma, batch.call))
        keys, values = batch.of(self.kv, "k"), batch.of(self.kv, "v")
        return batch.call.inner(query, keys, values, scale=self.T * batch.scale)
