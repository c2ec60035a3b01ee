"""Films in the manner of styles: each frame is a content, and what does not move in the film stays as it was."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from ldm.pictures.film import MOST_FRAMES, Film, is_film, read_film
from ldm.pictures.numbered import free_path
from ldm.pictures.sizing import Frame, Picture, digest, look_at
from ldm.shipped import SAMPLES
from ldm.util import UserError
from ldm.workflows.film_files import film_files, write_film_files
from ldm.workflows.inversion.cache import InversionCache, Needs
from ldm.workflows.memory import peak_memory
from ldm.workflows.record import is_finished, write_record
from ldm.workflows.restyle.draft import Draft
from ldm.workflows.restyle.features import add_needs, cache_for
from ldm.workflows.restyle.group import groups, restyle
from ldm.workflows.restyle.jobs import Job, in_short, make_job
from ldm.workflows.restyle.pairs import Pair, make_pairs, pictures_at, shard
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.results import Result
from ldm.workflows.restyle.setting import Setting
from ldm.workflows.restyle.steady import STEADY
from ldm.workflows.watch import Watch, until_cancelled

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FilmJob:
    """A film with a style: a job for each frame, and all that the result depends on."""

    pair: Pair
    frames: Sequence[Job]
    fps: float
    steady: float
    parameters: dict[str, Any]


def films_of(options: StyleIDOptions) -> list[Path]:
    """The films that contents are; none where contents are pictures.

    A file is a film if it is one. A folder is one of pictures, unless ``film`` says that it holds films, or is one.

    Raises:
        UserError: ``film`` without contents, or what is for films alone where there is none.
    """
    place = None if options.cnt is None else Path(options.cnt)
    found: list[Path] = []
    if place is not None and place.is_dir() and options.film:
        found = sorted(path for path in place.iterdir() if is_film(path) and not path.name.startswith("."))
        found = found or [place]
    elif place is not None and not place.is_dir() and (options.film or is_film(place)):
        found = [place]
    if not found:
        only = {"--film": options.film or None, "--steady": options.steady, "--num_frames": options.num_frames,
                "--fps": options.fps}  # fmt: skip
        wrong = [flag for flag, value in only.items() if value is not None]
        if wrong:
            raise UserError(f"{wrong[0]} is for films: --cnt film.mp4, or --cnt FOLDER --film for a folder of frames")
    return found


def check_films(options: StyleIDOptions, films: Sequence[Path]) -> None:
    """Refuse what films do not take.

    Raises:
        UserError: an option for pictures alone; or none of the films can be used, of which the first says why.
    """
    others = {"--pairs": options.pairs, "--masks": options.masks, "--pi": options.pi, "--mix": options.mix}
    if options.masks is not None and tuple(options.masks) == ("none",):
        del others["--masks"]
    wrong = [flag for flag, value in others.items() if value is not None]
    if wrong:
        raise UserError(f"{wrong[0]} is for contents that are pictures; a film is restyled with one style at a time")
    if options.sty is None:
        raise UserError("--cnt and --sty belong together: give both")
    errors = list[UserError]()
    for path in films:
        try:
            opened(path, replace(options, num_frames=2))
        except UserError as error:
            errors.append(error)
    if len(errors) == len(films):
        raise errors[0]


def opened(path: Path, options: StyleIDOptions, setting: Setting | None = None) -> Film:
    """The film of a path, at the size that a setting says.

    Raises:
        UserError: it cannot be read, or has fewer than two frames.
    """
    film = read_film(path, options.num_frames or MOST_FRAMES, None if setting is None else setting.sizing)
    if len(film.frames) < 2:
        raise UserError(f"'{path}' has one frame, and a film has two or more; a picture would be right as .png or .jpg")
    return Film(film.frames, options.fps or film.fps)


def restyle_films(
    options: StyleIDOptions, setting: Setting, films: Sequence[Path], watch: Watch[Result], quiet: bool
) -> tuple[dict[Pair, Result], InversionCache, list[str]]:
    """Every film with every style, this process' share of them; what is finished stays.

    Returns the results, the cache, and a sentence for each film and style that cannot be used.

    Raises:
        UserError: no style can be used, the disk is full, memory is not enough, or the model gave no picture.
    """
    pairs = shard(make_pairs(films, pictures_at(options.sty or SAMPLES / "sty", "style"), ()), os.environ)
    maker = FilmMaker(options, setting, watch, quiet)
    with until_cancelled():
        for path in films:
            maker.restyle(path, [pair for pair in pairs if pair.content == path])
    problems = list(dict.fromkeys(maker.problems))
    if problems and not maker.results:
        raise UserError(in_short(problems))
    return maker.results, maker.cache, problems


class FilmMaker:
    """Restyles films one after the other; styles are inverted once."""

    def __init__(self, options: StyleIDOptions, setting: Setting, watch: Watch[Result], quiet: bool) -> None:
        self.options, self.setting, self.watch, self.quiet = options, setting, watch, quiet
        self.needs = dict[str, Needs]()
        self.cache = cache_for(options, setting, self.needs, watch=watch)
        self.styles = dict[Path, Picture]()
        self.results = dict[Pair, Result]()
        self.problems = list[str]()

    def restyle(self, path: Path, pairs: Sequence[Pair]) -> None:
        """A film with each of its styles.

        Raises:
            UserError: as ``restyle_films``.
            Cancelled: the watch does not want the rest.
        """
        jobs = self.jobs(path, pairs)
        for job in jobs:
            for frame in job.frames:
                add_needs(self.needs, frame)
                self.cache.uses[frame.content.sha256] += 1
        for job in jobs:
            self.watch.check()
            self.results[job.pair] = result = self.one(job)
            log.info("%s %s", "skipped, because finished:" if result.skipped else "made", result.path)
            self.watch.result(result)

    def jobs(self, path: Path, pairs: Sequence[Pair]) -> list[FilmJob]:
        """What is to be made of a film; a film or style that cannot be used is noted."""
        try:
            film = opened(path, self.options, self.setting) if pairs else Film([])
        except UserError as error:
            log.warning("left out %s: %s", path, error)
            self.problems.append(str(error))
            return []
        sizing = self.setting.sizing
        frames = [Frame(path, sizing, film.size, film.size, digest(image), image) for image in film.frames]
        jobs = list[FilmJob]()
        for pair in pairs:
            try:
                (style,) = (self.style(path) for path in pair.styles)
            except UserError as error:
                log.warning("left out %s: %s", pair.name, error)
                self.problems.append(str(error))
                continue
            jobs.append(film_job(self.options, self.setting, pair, frames, style, film.fps))
        return jobs

    def style(self, path: Path) -> Picture:
        """A style, looked at once. Raises UserError if it cannot be read."""
        if path not in self.styles:
            self.styles[path] = look_at(path, self.setting.sizing)
        return self.styles[path]

    def one(self, job: FilmJob) -> Result:
        """A film, written in all formats; frames that an earlier run has made are not made again."""
        options, folder, began = self.options, Path(self.options.output_path), time.perf_counter()
        place = free_path(folder / f"{job.pair.name}.json", lambda path: is_finished(path, path, job.parameters))
        files = film_files(folder, place.stem, options.formats)
        if all(is_finished(file, place, job.parameters) for file in files):
            return Result(job.pair, files[0], skipped=True)
        draft = Draft(folder / f"{place.stem}.part", job.steady, job.parameters)
        images = self.frames(job, draft)
        write_film_files(Film(images, job.fps), files, job.parameters)
        about = {
            "files": [file.name for file in files], "content": str(job.pair.content),
            "styles": [str(style) for style in job.pair.styles], "model": self.setting.studio.name,
            "device": str(self.setting.studio.device), "features": options.features, "batch": options.batch,
            "seconds": round(time.perf_counter() - began, 2), "peak_memory": peak_memory(),
        }  # fmt: skip
        write_record(place, job.parameters, about)
        draft.remove()
        return Result(job.pair, files[0], skipped=False)

    def frames(self, job: FilmJob, draft: Draft) -> list[Image.Image]:
        """All frames of a film; each portion is kept as soon as it is made."""
        images, steady = draft.read()
        bar = tqdm(total=len(job.frames), initial=len(images), desc=job.pair.name, disable=self.quiet,
                   dynamic_ncols=True, unit="frame")  # fmt: skip
        with bar:
            for group in groups(job.frames[len(images) :], self.options.batch):
                self.watch.check()
                made = restyle(self.setting, self.cache, group, self.watch, not self.quiet, steady)
                draft.add(len(images), made, steady)
                images += made
                bar.update(len(made))
        return images


def film_job(
    options: StyleIDOptions, setting: Setting, pair: Pair, frames: Sequence[Frame], style: Picture, fps: float
) -> FilmJob:
    """A job with all that its result depends on."""
    jobs = [make_job(options, setting, pair, frame, (style,), None) for frame in frames]
    share = STEADY if options.steady is None else options.steady
    whole = hashlib.sha256("".join(frame.sha256 for frame in frames).encode()).hexdigest()
    parameters = {**jobs[0].parameters, "content": whole, "frames": len(frames), "fps": fps, "steady": share}
    return FilmJob(pair, jobs, fps, share, parameters)
