"""The mode that keeps what attention computes, and changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from ldm.control.features import FeatureStore
from ldm.control.registry import register
from ldm.control.seam import Call
from ldm.control.softmax import logits
from ldm.control.sources import Rows
from ldm.util import UserError

ATTENTION_NAMES = ("q", "k", "v", "sim", "probs")


def feature_names(what: str | Sequence[str]) -> tuple[str, ...]:
    """The names in "qkv", "q,sim", "probs" or a list.

    Raises:
        UserError: an unknown name.
    """
    if isinstance(what, str):
        what = list(what) if set(what) <= set("qkv") else [name.strip() for name in what.split(",")]
    unknown = [name for name in what if name not in ATTENTION_NAMES]
    if unknown or not what:
        bad = unknown[0] if unknown else ""
        raise UserError(f"cannot save '{bad}' of attention; known: {', '.join(ATTENTION_NAMES)}")
    return tuple(what)


@register("save")
class Save:
    """Keep q, k, v (as they come here), sim (scaled logits) or probs (after softmax); attention stays as it is."""

    def __init__(
        self,
        store: FeatureStore,
        what: str | Sequence[str] = "qkv",
        timesteps: Collection[float] | None = None,  # only at these
        heads: Sequence[int] | None = None,  # only these
        queries: Sequence[int] | None = None,  # of q, sim and probs only these positions
        rows: Rows | None = None,  # of the batch only these
    ) -> None:
        """Raises UserError for an unknown feature."""
        self.store = store
        self.names = feature_names(what)
        self.timesteps = None if timesteps is None else frozenset(timesteps)
        self.heads = None if heads is None else list(heads)
        self.queries = None if queries is None else list(queries)
        self.rows = rows

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, call: Call, scale: float | None = None) -> Tensor:
        if self.timesteps is None or call.timestep in self.timesteps:
            with torch.no_grad():
                self._keep(q, k, v, call, scale)
        return call.inner(q, k, v, scale=scale)

    def _keep(self, q: Tensor, k: Tensor, v: Tensor, call: Call, scale: float | None) -> None:
        features = {name: self._chosen(t, name, call) for name, t in (("q", q), ("k", k), ("v", v))}
        if {"sim", "probs"} & set(self.names):
            features["sim"] = logits(features["q"], features["k"], scale)
        if "probs" in self.names:
            features["probs"] = features["sim"].softmax(dim=-1)
        for name in self.names:
            self.store.put(call.site, call.index, name, features[name], call.timestep)

    def _chosen(self, feature: Tensor, name: str, call: Call) -> Tensor:
        """The rows, heads and (of q) queries that are wanted."""
        if self.rows is not None:
            feature = self.rows.read(call, name, feature)
        if self.heads is not None:
            feature = _pick(feature, 1, self.heads, "head", call.site)
        return feature if self.queries is None or name != "q" else _pick(feature, 2, self.queries, "query", call.site)


def _pick(feature: Tensor, dim: int, indices: list[int], what: str, site: str) -> Tensor:
    count = feature.shape[dim]
    wrong = next((i for i in indices if not 0 <= i < count), None)
    if wrong is not None:
        raise UserError(f"there is no {what} {wrong} at '{site}', which has {count}, counted from 0")
    return feature.index_select(dim, torch.tensor(indices, device=feature.device))
