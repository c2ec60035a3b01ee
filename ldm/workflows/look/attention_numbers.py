"""Logits of chosen queries before and after a mode, and what they come to: entropy, and how much each source gets."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ldm.control import FeatureStore, MixReport, Save, Sites, attention_mode, logits
from ldm.util import UserError, atomic_write
from ldm.workflows.inversion.cache import InversionCache, Needs
from ldm.workflows.inversion.invert import unet_of
from ldm.workflows.look.inspection import Spot, cells, grid_of, nats
from ldm.workflows.pictures import pictures_of
from ldm.workflows.restyle.group import finished, restyled_latents
from ldm.workflows.restyle.jobs import Job
from ldm.workflows.restyle.setting import Setting

TOP = 10  # keys whose mass is told, beside that of the largest one
ALL = "all"  # the name of all sources together
BINS = 60


@dataclass(frozen=True)
class Looks:
    """Logits at one layer and timestep; their softmax over all keys of all sources is the attention.

    Attributes:
        heads, positions: which ones, in the order of the tensors; positions of the layer's own feature map.
        before: of the content by itself [heads, queries, keys].
        after: of each source under the mode, likewise. Those of a mix are the logits of the one softmax that it amounts
            to, up to a constant for each query, which is such that the content's are comparable with those before.
    """

    layer: str
    timestep: float
    grid: tuple[int, int]
    heads: tuple[int, ...]
    positions: tuple[int, ...]
    before: Tensor
    after: dict[str, Tensor]

    def sides(self) -> dict[str, dict[str, Tensor]]:
        """Both as side -> source -> logits [heads, queries, keys]; before there is the content alone."""
        return {"before": {"content": self.before}, "after": self.after}


@torch.no_grad()
def restyle_and_look(
    setting: Setting,
    cache: InversionCache,
    job: Job,
    spots: Sequence[Spot],
    layers: Sites,
    timesteps: Sequence[float],
    heads: Sequence[int] | None = None,  # None: all
    progress: bool = False,
) -> tuple[Image.Image, list[Looks]]:
    """The stylised picture of a job, and the logits of the places on the way: layer by layer, the noisiest step first.

    Raises:
        UserError: the cache replays features, so that there are none of the content to compare with.
    """
    if cache.strategy == "replay":
        raise UserError("logits before the mode need the content's features: --features memory or disk")
    content = job.content.sha256
    cache = replace(cache, needs={**cache.needs, content: cache.needs.get(content, Needs()) | Needs("qkv")})
    store = cache.get([job.content])[0].store
    assert isinstance(store, FeatureStore)
    factor = int(setting.model.first_stage_model.factor)
    latent = (job.content.size[0] // factor, job.content.size[1] // factor)
    grids = {site: grid_of(latent, store.at(site, timesteps[0], "q").shape[2]) for site in layers}
    where = {site: cells(spots, job.content.size, grid) for site, grid in grids.items()}

    seen: dict[tuple[str, float], dict[str, Tensor]] = {}
    names = source_names(job)

    def note(report: MixReport) -> None:
        if report.site in where and report.timestep in timesteps:
            seen[report.site, report.timestep] = _mixed(report, where[report.site], names)

    used = FeatureStore(dtype=torch.float32, device="cpu")
    watch = {Sites((site,)): Save(used, "sim", timesteps, None, queries) for site, queries in where.items()}
    with setting.studio.lock:
        with attention_mode(unet_of(setting.model), {} if job.mixed else watch):
            latents = restyled_latents(setting, cache, [job], progress=progress, report=note)
        (image,) = pictures_of(setting.studio, latents)
        image = finished(image, job)

    found = []
    for site in layers:
        for timestep in timesteps:
            q, k = (store.at(site, timestep, name).cpu() for name in "qk")
            chosen = list(range(q.shape[1])) if heads is None else list(heads)
            before = logits(q[:, :, where[site]], k)[0, chosen]
            after = seen[site, timestep] if job.mixed else {names[1]: used.at(site, timestep, "sim")[0]}
            after = {name: values[chosen] for name, values in after.items()}
            found.append(Looks(site, timestep, grids[site], tuple(chosen), tuple(where[site]), before, after))
    return image, found


def source_names(job: Job) -> list[str]:
    """The content and its styles by name."""
    return ["content", *(f"style {path.stem}" for path in job.pair.styles)]


def _mixed(report: MixReport, queries: Sequence[int], names: Sequence[str]) -> dict[str, Tensor]:
    """The logits of the one softmax that a mix amounts to, [heads, queries, keys] for each source."""
    content = report.parts[0]
    level = logits(content.q[:, :, list(queries)], content.k, content.factor).logsumexp(dim=-1, keepdim=True)
    weights = report.log_probs(queries)
    return {name: (its + level)[0].float().cpu() for name, its in zip(names, weights, strict=True)}


def numbers(looks: Looks) -> Iterator[dict[str, Any]]:
    """A row for each head, query, side and source: logits, mass, entropy in nats, mass of the largest keys.

    ``mass`` and ``top`` are parts of all the attention of that query, ``entropy`` is that within the source.
    """
    width = looks.grid[1]
    for when, sources in looks.sides().items():
        sources = {**sources, ALL: torch.cat(list(sources.values()), dim=-1)} if len(sources) > 1 else sources
        total = torch.cat([v for name, v in sources.items() if name != ALL], dim=-1).logsumexp(dim=-1, keepdim=True)
        for source, values in sources.items():
            probs = (values - total).exp()
            mass = probs.sum(dim=-1)
            entropy = nats(probs / mass.clamp_min(1e-30)[..., None])
            top = probs.topk(min(TOP, probs.shape[-1]), dim=-1).values
            for row, head in enumerate(looks.heads):
                for column, position in enumerate(looks.positions):
                    own = values[row, column][values[row, column].isfinite()]
                    present = len(own) > 0  # a source that gets nothing has no logits
                    yield {
                        "layer": looks.layer, "timestep": f"{looks.timestep:g}", "head": head,
                        "query_row": position // width, "query_column": position % width,
                        "when": when, "source": source, "keys": values.shape[-1],
                        "logit_mean": _text(own.mean()) if present else "",
                        "logit_std": _text(own.std(correction=0)) if present else "",
                        "logit_max": _text(own.max()) if present else "",
                        "mass": _text(mass[row, column]),
                        "entropy": _text(entropy[row, column]) if present else "",
                        "top1_mass": _text(top[row, column, 0]), f"top{TOP}_mass": _text(top[row, column].sum()),
                    }  # fmt: skip


def histograms(looks: Looks) -> Iterator[dict[str, Any]]:
    """A row for each head, side, source and bin: how many logits of all queries lie in it. A layer shares its bins."""
    edges = bin_edges(looks)
    for when, sources in looks.sides().items():
        for source, values in sources.items():
            for row, head in enumerate(looks.heads):
                counts = np.histogram(finite(values[row]), bins=edges)[0]
                for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
                    yield {
                        "layer": looks.layer, "timestep": f"{looks.timestep:g}", "head": head, "when": when,
                        "source": source, "from": f"{left:.5g}", "to": f"{right:.5g}", "count": int(count),
                    }  # fmt: skip


def bin_edges(looks: Looks) -> np.ndarray:
    """Edges of bins that hold every logit of one layer and timestep, [BINS + 1]."""
    values = np.concatenate([finite(v) for sources in looks.sides().values() for v in sources.values()])
    low, high = float(values.min()), float(values.max())
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def finite(values: Tensor) -> np.ndarray:
    """The finite ones, flat: a source that gets nothing has logits of minus infinity."""
    flat = values.flatten().float().numpy()
    return flat[np.isfinite(flat)]


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Rows as CSV, the first row's keys on top.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _text(value: Tensor) -> str:
    return f"{float(value):.6g}"
