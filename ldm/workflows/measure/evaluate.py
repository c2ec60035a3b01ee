"""Restyled pictures measured against their contents and styles, beside baselines: ``scripts/evaluate_style.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ldm.metrics.intervals import Interval, bootstrap, jackknife, leave_out
from ldm.metrics.sets import FIRST_POINT, art_fid, frechet_distance, frechet_infinity, kernel_distance
from ldm.pictures.images import load_image
from ldm.util import UserError, writable_folder
from ldm.workflows.measure.baselines import BASELINES, GIVEN, Pictures, Way, fitted, ways
from ldm.workflows.measure.judges import CONTENT_METRICS, Judges, Wanted, find_judges
from ldm.workflows.measure.trios import Trio, match
from ldm.workflows.models import choose_device
from ldm.workflows.studio import open_studio

MODES = ("art_fid_inf", "art_fid")
# a network of sets -> FID, FID for infinitely many, KID through it; ArtFID is of the first alone
SETS: dict[str, tuple[str, str | None, str]] = {
    "art_inception": ("FID", "FID_infinity", "KID"),
    "inception_2015": ("FID_2015", None, "KID_2015"),
}


@dataclass
class EvaluateOptions:
    """What is measured, with what, and where the tables go."""

    tar: str  # results
    cnt: str  # contents
    sty: str  # styles
    mode: str = "art_fid_inf"  # which FID ArtFID is made of
    content_metric: str = "lpips"
    weights: str | None = None  # folder of networks; None: models/measures
    any_weights: bool = False
    clip: str | None = None  # folder of a CLIP model
    text: str | None = None  # what all results should show
    content_text: str | None = None  # what all contents show
    baselines: Sequence[str] = BASELINES
    ckpt: str | None = None  # the model whose latents serve as a baseline; None: the small one
    model_config: str | None = None
    device: str | None = None
    out: str = "outputs/evaluate_style"
    progress: bool = True


@dataclass
class Found:
    """What was found of one way to results: a value for each pair, and features of each result."""

    values: dict[str, list[float]] = field(default_factory=dict)
    features: dict[str, list[Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Number:
    """A measure over all pairs, and where 95 % of such sets of pairs would have it."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Evaluation:
    """All that was found.

    Attributes:
        found: way -> values of each pair.
        numbers: way -> measure -> number.
        judges: what was measured with, and what was left out.
        made_by: way -> how its pictures are made.
    """

    trios: list[Trio]
    found: dict[str, Found]
    numbers: dict[str, dict[str, Number]]
    judges: Judges
    made_by: dict[str, Way]


def evaluate_style(options: EvaluateOptions) -> Evaluation:
    """Measure results beside the baselines, pair by pair: what is in memory does not grow with the pictures.

    Raises:
        UserError: pictures do not match, an option does not fit, or a file of weights is not the published one.
    """
    if options.mode not in MODES:
        raise UserError(f"--mode must be {' or '.join(MODES)}, got '{options.mode}'")
    if options.content_metric not in CONTENT_METRICS:
        raise UserError(f"--content_metric must be one of {', '.join(CONTENT_METRICS)}, got '{options.content_metric}'")
    unknown = [name for name in options.baselines if name not in BASELINES]
    if unknown:
        raise UserError(f"there is no baseline '{unknown[0]}'; known: {', '.join(BASELINES)}")
    writable_folder(options.out, "--out")
    trios = match(options.tar, options.cnt, options.sty)
    judges = find_judges(
        Wanted(
            options.weights, options.any_weights, options.content_metric, options.clip, options.text,
            options.content_text, choose_device(options.device),
        )
    )  # fmt: skip
    model = None
    if "latents" in options.baselines:
        model = open_studio(options.ckpt, options.model_config, device=options.device).model
    known = ways(model)
    made_by = {name: known[name] for name in (GIVEN, *options.baselines)}
    found, styles = measure(trios, judges, made_by, options.progress)
    if len(trios) < 2 and judges.sets:
        judges.left_out.append("distances of sets left out: they need at least two pairs")
        judges.sets.clear()
    numbers = {way: summary(one, styles, judges, options) for way, one in found.items()}
    return Evaluation(trios, found, numbers, judges, made_by)


@torch.no_grad()
def measure(
    trios: Sequence[Trio], judges: Judges, made_by: dict[str, Way], progress: bool = False
) -> tuple[dict[str, Found], dict[str, Tensor]]:
    """(what was found of each way, the styles' features [pairs, D] by network); a trio at a time is in memory."""
    found = {name: Found() for name in made_by}
    seen: dict[tuple[str, Path], Tensor] = {}  # features of styles, which many pairs share
    of_styles: dict[str, list[Tensor]] = {network: [] for network in judges.sets}
    for trio in tqdm(trios, desc="pairs", disable=not progress, dynamic_ncols=True):
        pictures = open_trio(trio)
        for network, features in judges.sets.items():
            if (network, trio.style) not in seen:
                seen[network, trio.style] = features.see(pictures.style)[0].cpu()
            of_styles[network].append(seen[network, trio.style])
        beside = {"content": pictures.content, "style": pictures.style}
        others = {name: judge.see(beside[judge.to], max(pictures.result.size)) for name, judge in judges.pairs.items()}
        for name, way in made_by.items():
            _measure_one(found[name], judges, pictures, way(pictures), others)
    return found, {network: torch.stack(rows) for network, rows in of_styles.items()}


def open_trio(trio: Trio) -> Pictures:
    """The three pictures, the content at the result's size.

    Raises:
        UserError: one cannot be read.
    """
    result = load_image(trio.result)
    return Pictures(result, fitted(load_image(trio.content), result.size), load_image(trio.style))


def _measure_one(found: Found, judges: Judges, pictures: Pictures, made: Image.Image, others: dict[str, Any]) -> None:
    """All numbers of one picture; beside the content it has the content's size."""
    own = {"content": fitted(made, pictures.content.size), "style": made}
    side = max(pictures.result.size)
    for name, judge in judges.pairs.items():
        distance = judge.distance.compare(judge.see(own[judge.to], side), others[name])
        found.values.setdefault(name, []).append(distance)
    for network, features in judges.sets.items():
        found.features.setdefault(network, []).append(features.see(made)[0].cpu())


def summary(found: Found, styles: dict[str, Tensor], judges: Judges, options: EvaluateOptions) -> dict[str, Number]:
    """Each measure over all pairs: means of pairs with bootstrap intervals, distances of sets with jackknife ones."""
    values = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in found.values.items()}
    numbers = {name: Number(float(rows.mean()), bootstrap(rows)) for name, rows in values.items()}
    for network in judges.sets:
        made, reference = torch.stack(found.features[network]).double(), styles[network].double()
        kept = [torch.arange(len(made)), *leave_out(len(made))]  # all of them first
        fid, infinity, kid = SETS[network]
        of_sets = {title: [distance(made[rows], reference[rows]) for rows in kept]
                   for title, distance in ((fid, frechet_distance), (kid, kernel_distance))}  # fmt: skip
        if infinity is not None:
            beyond = len(made) > FIRST_POINT
            of_sets[infinity] = [frechet_infinity(made[r], reference[r]) for r in kept] if beyond else of_sets[fid]
        content = values.get(CONTENT_METRICS[options.content_metric][0])
        if infinity is not None and content is not None:
            fids = of_sets[infinity if options.mode == "art_fid_inf" else fid]
            of_sets["ArtFID"] = [
                art_fid(float(content[rows].mean()), one) for rows, one in zip(kept, fids, strict=True)
            ]
        for title, (value, *without) in of_sets.items():
            numbers[title] = Number(value, jackknife(value, without))
    return numbers
