"""Results of restyling on the disk: a picture, and beside it the record that says that it is finished."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ldm.pictures.images import save_image
from ldm.pictures.numbered import free_path
from ldm.workflows.memory import peak_memory
from ldm.workflows.record import is_finished, is_of, write_record
from ldm.workflows.restyle.jobs import Job
from ldm.workflows.restyle.pairs import Pair
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.setting import Setting

log = logging.getLogger(__name__)

NAMED = 5  # finished results that are named


@dataclass(frozen=True)
class Result:
    """A finished picture; ``skipped`` when it was there before."""

    pair: Pair
    path: Path
    skipped: bool


def finished(options: StyleIDOptions, jobs: Sequence[Job]) -> dict[Pair, Result]:
    """Those that are there already, made with exactly the parameters that are asked for; they are named."""
    found = {}
    for job in jobs:
        picture = place_of(options, job)
        if is_finished(picture, picture.with_suffix(".json"), job.parameters):
            found[job.pair] = Result(job.pair, picture, skipped=True)
    if found:
        names = ", ".join(pair.name for pair in list(found)[:NAMED]) + (", ..." if len(found) > NAMED else "")
        log.info("skipped, because finished: %d of %d (%s)", len(found), len(jobs), names)
    return found


def place_of(options: StyleIDOptions, job: Job) -> Path:
    """Where a job's result is or will be: ``<name>.png``; ``<name>-2.png`` and on beside those of other parameters."""
    return free_path(Path(options.output_path) / f"{job.pair.name}.png", lambda path: is_of(path, job.parameters))


def save_result(options: StyleIDOptions, setting: Setting, job: Job, image: Image.Image, seconds: float) -> Result:
    """Save a picture, and then its record: what the result depends on, and what it does not.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    path = place_of(options, job)
    if path.stem != job.pair.name:
        log.info("%s.png is of other parameters and stays; the new one is %s", job.pair.name, path.name)
    save_image(image, path, job.parameters)
    about = {
        "result": path.name,
        "content": str(job.pair.content),
        "styles": [str(style) for style in job.pair.styles],
        "masks": [str(mask) for mask in job.pair.masks],
        "model": setting.studio.name,
        "device": str(setting.studio.device),
        "features": options.features,
        "batch": options.batch,
        "seconds": round(seconds, 2),
        "peak_memory": peak_memory(),
    }
    write_record(path.with_suffix(".json"), job.parameters, about)
    return Result(job.pair, path, skipped=False)
