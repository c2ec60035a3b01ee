"""The features that a restyling run will ask for, and the cache of inversions that keeps them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ldm.workflows.inversion.cache import Capture, InversionCache, Needs
from ldm.workflows.restyle.jobs import Job
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.setting import Setting
from ldm.workflows.restyle.steps import way_of
from ldm.workflows.watch import Watch

HALF = torch.float16  # of features; enough for a picture's 8 bits


def make_cache(
    options: StyleIDOptions, setting: Setting, jobs: Sequence[Job], watch: Watch[Any] | None = None
) -> InversionCache:
    """The cache of a run, which knows what of each picture all jobs together will need."""
    needs: dict[str, Needs] = {}
    for job in jobs:
        add_needs(needs, job)
    uses = Counter(picture.sha256 for job in jobs for picture in job.pictures)
    return cache_for(options, setting, needs, uses, watch)


def add_needs(needs: dict[str, Needs], job: Job) -> None:
    """Add to what is needed of each picture (by sha256) what a job needs."""
    injects = not job.recipe.without_attn_injection
    own = Needs(("qkv" if job.mixed else "q") if injects else "", bool(job.recipe.detail))
    needs[job.content.sha256] = needs.get(job.content.sha256, Needs()) | own
    for style in job.styles:
        its = Needs(("qkv" if job.recipe.share else "kv") if injects else "")
        needs[style.sha256] = needs.get(style.sha256, Needs()) | its


def cache_for(
    options: StyleIDOptions,
    setting: Setting,
    needs: Mapping[str, Needs],
    uses: Counter[str] | None = None,
    watch: Watch[Any] | None = None,
) -> InversionCache:
    """The cache that options describe, for pictures of which this is needed (by sha256).

    Raises:
        UserError: features on the disk without a folder.
    """
    about = setting.about()
    if options.negative is not None:
        about |= {"negative": options.negative, "negative_scale": f"{options.negative_scale:g}"}
    dtype = HALF if setting.studio.precision == "autocast" else None
    return InversionCache(
        setting.model,
        setting.context,
        options.ddim_inv_steps,
        Capture(setting.sites, setting.detail, setting.timesteps, dtype),
        needs,
        about,
        options.features,
        Path(options.precomputed) if options.precomputed else None,
        room=int(options.feature_gb * 2**30),
        batch=options.batch,
        way=way_of(setting.model.schedule, options),
        away=setting.away,
        scale=options.negative_scale,
        progress=options.progress,
        callback=(watch or Watch()).steps(setting.model, "inversion"),
        uses=uses or Counter(),
    )
