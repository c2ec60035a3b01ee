"""Contents in the manner of styles (StyleID, Chung et al. 2024): what ``run_styleid.py`` does, as a function."""

from __future__ import annotations

import glob
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ldm.util import UserError, check_there
from ldm.workflows.inversion.cache import InversionCache
from ldm.workflows.loras import wearing
from ldm.workflows.memory import peak_memory
from ldm.workflows.restyle.checks import checked
from ldm.workflows.restyle.contact_sheet import contact_sheet
from ldm.workflows.restyle.features import make_cache
from ldm.workflows.restyle.films import check_films, films_of, restyle_films
from ldm.workflows.restyle.group import groups, restyle
from ldm.workflows.restyle.jobs import Job, in_short, make_jobs
from ldm.workflows.restyle.pairs import Pair
from ldm.workflows.restyle.plan import StyleIDOptions, find_pairs, say_masks
from ldm.workflows.restyle.prompted import restyle_prompts
from ldm.workflows.restyle.recipe import Recipe
from ldm.workflows.restyle.results import Result, finished, save_result
from ldm.workflows.restyle.setting import Setting, make_setting
from ldm.workflows.restyle.usual import as_usual
from ldm.workflows.studio import Studio, open_studio
from ldm.workflows.watch import Watch, until_cancelled

__all__ = ["Result", "StyleIDOptions", "styleid"]

log = logging.getLogger(__name__)

SHEET = "contact_sheet.png"


def styleid(options: StyleIDOptions, model: Any = None, watch: Watch[Result] | None = None) -> list[Result]:
    """Restyle every content with every style (or the pairs of a file), save the pictures, and say where they are.

    Each result is ``<output_path>/<content>_stylized_<style>.png`` with a JSON file of that name beside it (of a film
    there are an .mp4, .gif, .webp and a sheet in place of the picture, see ``ldm.workflows.restyle.films``); where a
    result of other parameters has that name, it stays, and the new one gets the next number. A result whose JSON has
    exactly the parameters that are asked for is finished and skipped. With RANK and WORLD_SIZE in the
    environment (torchrun) this process makes its share of the pairs.

    Args:
        model: a ``Studio``, or a LatentDiffusion, for example of ``ldm.workflows.models.open_model``; None opens what
            the options name.
        watch: is told of steps and results, and may end the run: then those so far are returned.

    Raises:
        UserError: an option does not fit, and nothing has been written; or some pictures or masks could not be used,
            and all pairs without them are finished; or results have been deleted meanwhile.
    """
    started = time.perf_counter()
    watch = watch or Watch()
    options = checked(options)
    films = films_of(options)
    if films:
        check_films(options, films)
    everything, pairs = ([], []) if options.prompted or films else find_pairs(options, os.environ)
    problems: list[str] = []
    say_masks(options, everything)
    studio = Studio.of(model, options.precision) if model is not None else open_studio(
        options.ckpt, options.model_config, device=options.device, precision=options.precision
    )  # fmt: skip
    quiet = not options.progress or os.environ.get("RANK", "0") != "0"
    options = as_usual(options, studio.inference)
    with studio.lock, wearing(options, studio) as loras:
        setting = make_setting(options, studio, loras)
        if options.prompted:
            jobs, results, cache = restyle_prompts(options, setting, watch)
            everything = [job.pair for job in jobs]
        elif films:
            jobs, (results, cache, problems) = [], restyle_films(options, setting, films, watch, quiet)
        else:
            jobs, problems = make_jobs(options, setting, pairs)
            results, cache = restyle_pictures(options, setting, jobs, watch, quiet)
    if not options.no_sheet and not films:
        save_sheet(options, setting, everything, jobs, results)
    skipped = sum(result.skipped for result in results.values())
    log.info(
        "%d made, %d skipped in %.1f s; inverted: %d, read from inversions that were kept: %d; peak memory %s",
        len(results) - skipped, skipped, time.perf_counter() - started, cache.inverted, cache.read, peak_memory(),
    )  # fmt: skip
    if problems:
        raise UserError(in_short(problems))
    check_there(result.path for result in results.values())
    return [*results.values()] if films else [results[job.pair] for job in jobs if job.pair in results]


def restyle_pictures(
    options: StyleIDOptions, setting: Setting, jobs: Sequence[Job], watch: Watch[Result], quiet: bool
) -> tuple[dict[Pair, Result], InversionCache]:
    """The results of jobs, those that were there among them; as many as the watch wants.

    Raises:
        UserError: a picture has gone, memory is not enough, or the model gave no picture.
    """
    results = finished(options, jobs)
    todo = [job for job in jobs if job.pair not in results]
    cache = make_cache(options, setting, todo, watch)
    with until_cancelled(), tqdm(total=len(todo), desc="pairs", disable=quiet, dynamic_ncols=True) as bar:
        for group in groups(todo, options.batch):
            watch.check()
            bar.set_postfix_str(group[0].pair.name, refresh=True)
            began = time.perf_counter()
            images = restyle(setting, cache, group, watch=watch, progress=not quiet)
            seconds = (time.perf_counter() - began) / len(group)
            for job, image in zip(group, images, strict=True):
                results[job.pair] = save_result(options, setting, job, image, seconds)
                watch.result(results[job.pair])
            bar.update(len(group))
    return results, cache


def save_sheet(
    options: StyleIDOptions,
    setting: Setting,
    pairs: Sequence[Pair],
    jobs: Sequence[Job],
    results: Mapping[Pair, Result],
) -> None:
    """The sheet of all pairs; of those that other processes make (torchrun), their newest pictures so far.

    Raises:
        UserError: the disk is full.
    """
    out = Path(options.output_path)
    paths = {pair: results[pair].path for pair in pairs if pair in results}
    for pair in pairs:
        there = [out / f"{pair.name}.png", *out.glob(f"{glob.escape(pair.name)}-[0-9].png")]
        there = [path for path in there if path.is_file()]
        if pair not in paths and there:
            paths[pair] = max(there, key=lambda path: path.stat().st_mtime)
    alone = len({job.pair for job in jobs}) == len(pairs)
    about = {
        "pairs": [pair.name for pair in pairs],
        "recipe": Recipe.of(options).parameters(),
        "size": [options.H, options.W, options.longest, options.crop],
        **setting.about(),
        "results": [job.parameters for job in jobs] if alone else None,
    }
    contact_sheet(pairs, paths, out / SHEET, about)
