"""How good a film model is on the rendered world: films from held-out first frames, beside what costs nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ldm.finite import check_finite
from ldm.metrics.intervals import bootstrap
from ldm.models.diffusion.noise import ImageNoise
from ldm.moved import moved_along
from ldm.pictures.film import Film as Frames
from ldm.pictures.film import film_sheet, write_film
from ldm.pictures.images import save_image
from ldm.util import UserError
from ldm.workflows.film_course import path_given, takes_path
from ldm.workflows.film_options import VideoOptions
from ldm.workflows.record import write_record
from ldm.workflows.studio import Studio
from ldm.workflows.video import VideoPlan, film_latents, make_plan
from ldm.world.film import Film, FilmWorld, paint_film
from ldm.world.film_judge import FilmTable, judge_film

Array = NDArray[np.float32]

FPS = 7.0  # of all films that are judged
KINDS = ("true films", "the film model", "frame by frame", "the first frame, still")
MOVED = "the first frame, moved"  # all of it: a row beside a model that is shown just that
AT_ONCE = 16
# of a plan, which films of a table do not follow
NOT_ASKED = ("prompt", "motion", "heading", "manner", "decoding_t", "decoding_overlap")


def held_out_films(count: int, seed: int, size: int, frames: int, shapes: float = 0.5) -> list[Film]:
    """What films of held-out pairs of a thing and a background were to show, all at the same frames a second.

    Films whose true render the judge misreads, such as a brown moon before brown, are passed over: what it would say of
    them says nothing of a model.
    """
    world = FilmWorld("heldout", frames=frames, size=size, length=4 * count, seed=seed, shapes=shapes)
    every = (replace(film, course=replace(film.course, fps=FPS)) for film in world.films(range(4 * count)))
    clear = (film for film in every if judge_film(paint_film(film, frames, size), film).right == 1)
    return list(itertools.islice(clear, count))


@torch.no_grad()
def made_by(
    studio: Studio, films: Sequence[Film], plan: VideoPlan, seed: int, alone: bool = False
) -> list[Array]:
    """What a film model makes of the first frame of each film, [T, size, size, 3] in [-1, 1].

    Args:
        plan: how, but for the motion, which is each film's.
        seed: of the first film; each has its own.
        alone: every frame as a picture on its own, without the temporal layers and what copies.

    Raises:
        UserError: what came out is not finite.
    """
    model, size = studio.model, size_of(studio)
    cells = size // model.first_stage_model.factor
    made: list[Array] = []
    for start in range(0, len(films), AT_ONCE):
        part = films[start : start + AT_ONCE]
        first = np.stack([paint_film(film, 1, size)[0] for film in part])
        noise = ImageNoise(range(seed + start, seed + start + len(part)))
        given: dict[str, Any] = {"image": torch.from_numpy(first).permute(0, 3, 1, 2), "frames": plan.frames,
                                 "fps": plan.fps, "motion": torch.tensor([film.course.motion for film in part]),
                                 "cond_aug": plan.cond_aug, "noise": noise,
                                 **path_given(model, list(map(picture_of, first)),
                                              [film.course for film in part], plan.frames)}  # fmt: skip
        if alone:
            given["stills"] = torch.ones(len(part), plan.frames)
        with studio.mixed():
            condition = model.condition([""] * len(part), size=(cells, cells), **given)
            pictures = model.decode_first_stage(film_latents(studio, plan, condition, noise, given["image"]))
        check_finite(model, pictures)
        made += list(pictures.clamp(-1, 1).permute(0, 2, 3, 1).cpu().numpy().reshape(len(part), -1, size, size, 3))
    return made


def moved_firsts(studio: Studio, films: Sequence[Film], frames: int) -> list[Array]:
    """What a model that takes a path is shown of each film beside its first frame, [T, size, size, 3] in [-1, 1]."""
    first = np.stack([paint_film(film, 1, size_of(studio))[0] for film in films])
    path = path_given(studio.model, list(map(picture_of, first)), [film.course for film in films], frames)["path"]
    moved = moved_along(torch.from_numpy(first).permute(0, 3, 1, 2), path)
    return list(moved.permute(0, 1, 3, 4, 2).numpy())


def size_of(studio: Studio) -> int:
    """The side of the pictures that a model was trained on."""
    return int(studio.inference.get("height", studio.model.image_size * studio.model.first_stage_model.factor))


def film_table(
    studio: Studio, count: int = 128, settings: VideoOptions | None = None, seed: int = 0, folder: Path | None = None,
    examples: int = 4, shapes: float = 0.5,
) -> dict[str, FilmTable]:  # fmt: skip
    """A row for the film model and one for each thing beside it; by the names of ``KINDS``, and ``MOVED``.

    Args:
        settings: frames, steps, guidance, sampler, start; None: as the model is usually asked. Motion and frames
            a second are those of the films, and there is no prompt.
        seed: which films, and their noise.
        folder: where some films, as GIFs and sheets, and the numbers go; None for nowhere.
        examples: how many films of each kind.
        shapes: share of geometric shapes among the things.

    Raises:
        UserError: as ``make_plan`` and ``made_by``, or a file cannot be written.
    """
    if count < 2:
        raise UserError(f"a table needs 2 films or more, got {count}")
    plan = replace(make_plan(settings or VideoOptions(), studio), fps=FPS, prompt="")
    frames = plan.frames
    size = size_of(studio)
    films = held_out_films(count, seed, size, frames, shapes)
    true = [paint_film(film, frames, size) for film in films]
    of_kind = {
        KINDS[0]: true,
        KINDS[1]: made_by(studio, films, plan, seed),
        KINDS[2]: made_by(studio, films, plan, seed, alone=True),
        KINDS[3]: [np.repeat(film[:1], frames, axis=0) for film in true],
    }
    if takes_path(studio.model):
        of_kind[MOVED] = moved_firsts(studio, films, frames)
    table = {kind: FilmTable.of([judge_film(*pair) for pair in zip(made, films, strict=True)], films)
             for kind, made in of_kind.items()}  # fmt: skip
    if folder is not None:
        keep(folder, of_kind, examples)
        asked = {name: value for name, value in asdict(plan).items() if name not in NOT_ASKED}
        write_record(
            folder / "films.json",
            {**asked, "count": count, "seed": seed, "size": size, "shapes": shapes},
            {"table": {kind: asdict(row) for kind, row in table.items()}, "films": [asdict(film) for film in films]},
        )
    return table


def keep(folder: Path, of_kind: dict[str, list[Array]], examples: int) -> None:
    """Write the first films of each kind as a GIF, all beside each other, and as a sheet."""
    for kind, made in of_kind.items():
        name = kind.replace(",", "").replace(" ", "-")
        rows = np.concatenate(made[:examples], axis=2)
        wide = Frames([picture_of(frame) for frame in rows], FPS)
        write_film(wide, folder / f"{name}.gif")
        save_image(film_sheet(wide, columns=1), folder / f"{name}.png")


def picture_of(frame: Array) -> Image.Image:
    """A frame [H, W, 3] in [-1, 1] as a picture."""
    return Image.fromarray(((frame + 1) * 127.5).round().astype(np.uint8))


def as_markdown(table: dict[str, FilmTable]) -> str:
    """The table, the share of right things by frame, and how far films are from one another."""
    lines = ["| | films | thing right | rank correlation of motion | change of background | last frame on course |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for kind, row in table.items():
        correlation = "–" if math.isnan(row.correlation) else f"{row.correlation:.2f}"
        lines.append(
            f"| {kind} | {row.films} | {100 * row.right:.1f} % | {correlation} | {row.change:.2f} of 255 | "
            f"{100 * row.on_course:.0f} % |"
        )
    frames = len(table[KINDS[1]].right_by_frame)
    lines += ["", f"| thing right in frame | {' | '.join(str(number + 1) for number in range(frames))} |",
              "|---" * (frames + 1) + "|"]  # fmt: skip
    for kind in (KINDS[1], KINDS[2]):
        shares = " | ".join(f"{100 * share:.0f} %" for share in table[kind].right_by_frame)
        lines.append(f"| {kind} | {shares} |")
    return "\n".join([*lines, "", by_film(table[KINDS[1]])])


def by_film(row: FilmTable) -> str:
    """How far a film model's films are from one another, in words."""
    rights = torch.tensor(row.right_of_films)
    low, high = bootstrap(rights)
    return (
        f"With films drawn again with replacement, {100 * row.right:.1f} % is {100 * low:.1f} to {100 * high:.1f} % "
        f"(95 %). Right in every frame: {int((rights == 1).sum())} of {row.films} films; "
        f"in less than half of them: {int((rights < 0.5).sum())}."
    )
