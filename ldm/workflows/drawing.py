"""The pictures of a request, whatever they begin from: batch after batch, saved with their parameters."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image, Resampling
from torch import nn

from ldm.additions.base import Addition, applied
from ldm.additions.reading import read_others
from ldm.modules.tiling import tiled
from ldm.pictures.images import fit_size, image_to_tensor, make_grid, save_image
from ldm.pictures.numbered import free_path, save_numbered
from ldm.util import TakenError, UserError, check_there, writable_folder
from ldm.workflows.basis import Basis
from ldm.workflows.batches import Batch
from ldm.workflows.correcting import Correction, correction_for
from ldm.workflows.expectations import report_prompts
from ldm.workflows.generate import Outcome, generate_edited, generate_guided
from ldm.workflows.guide.boxed import with_boxes
from ldm.workflows.guide.steer import Steered, steered
from ldm.workflows.guide.wishes import Wish
from ldm.workflows.languages import speaking
from ldm.workflows.learned_words import files_of, report_words
from ldm.workflows.long_prompts import check_long, read_whole, report_cut, without_breaks
from ldm.workflows.loras import Loras, read_all, worn
from ldm.workflows.plan import Plan, latent_size
from ldm.workflows.prompts import read_prompt
from ldm.workflows.refiner import Refiner, refiner_for
from ldm.workflows.request import Request, Txt2ImgOptions
from ldm.workflows.studio import Studio
from ldm.workflows.watch import Watch, until_cancelled

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """A finished picture; ``path`` is None where pictures are not saved."""

    image: Image
    prompt: str
    seed: int
    path: Path | None
    boxed: Image | None = None  # with the boxes that were asked for over it
    source: Image | None = None  # what an edit began from
    about: Mapping[str, Any] = field(default_factory=dict)  # its parameters, as they are written into a file


@dataclass(frozen=True)
class Task:
    """A request's pictures at one size, from one beginning.

    Attributes:
        name: what the names of its files begin with.
        place: where its picture goes, if it is the only one and has a name of its own.
        refiner: what finishes its pictures.
        correction: what puts right what has settled.
    """

    plan: Plan
    basis: Basis = field(default_factory=Basis)
    name: str = ""
    place: Path | None = None
    refiner: Refiner | None = None
    correction: Correction | None = None

    def about(self) -> dict[str, Any]:
        """What is written into each of its pictures."""
        finish = {} if self.refiner is None else self.refiner.about()
        return {**self.plan.about(), **self.basis.about, **finish}


def draw(
    options: Txt2ImgOptions, request: Request, studio: Studio, tasks: Iterable[Task], watch: Watch[Made]
) -> list[Image]:
    """Make all pictures of a request for each task, save them and a sheet of them, and return them in order.

    Learned words, adapters and LoRAs are on the model for this request only.

    Raises:
        UserError: an option does not fit, and nothing has been written; or the model gave no picture; or somebody has
            deleted some of the pictures meanwhile.
    """
    made: list[Made] = []
    about: dict[str, Any] = {}
    tasks = finished_by(refiner_for(options, studio), options, request, studio, tasks)
    with studio.lock, until_cancelled():
        loras = read_all(options, studio, request.prompts)
        additions = read_others(studio.model, options.embedding_path, options.adapter_path, loras.everything)
        for task in tasks:
            correction = correction_for(studio, latent_size(studio, task.plan)) if task.plan.settle else None
            task = replace(task, correction=correction)
            with (
                applied(studio.model, additions),
                speaking(studio.model, options.lang, request.read_prompts),
                read_whole(studio.model, task.plan.long_prompts),
                tiled(*_parts_to_tile(studio.model, options.tiling)),
            ):
                if not about:
                    _report(studio.model, request, additions, taught=bool(loras.everything))
                    if options.settle and not task.plan.settle:
                        log.warning("--settle is for pictures of prompts alone: these end where their walk does")
                about = {**task.about(), **loras.about(*request.prompts)}
                for one in _pictures(options, request, studio, task, loras, watch):
                    made.append(one)
                    watch.result(one)
    images = [one.image for one in made]
    if images and not options.skip_grid:
        prompts = request.prompts if len(request.prompts) > 1 else request.prompts[0]
        sheet = make_grid(images, columns=options.n_rows or options.n_samples)
        about = {"prompt": prompts, "seed": request.seed, **about}
        save_numbered(sheet, options.outdir, about, prefix="grid-", digits=4)
    check_there(one.path for one in made if one.path is not None)
    return images


def finished_by(
    refiner: Refiner | None, options: Txt2ImgOptions, request: Request, studio: Studio, tasks: Iterable[Task]
) -> Iterator[Task]:
    """Tasks whose model is told the sizes that options name, and whose pictures a refiner finishes, if there is one.

    Only pictures of prompts alone settle at the end; of others, the plan does not say so any more.

    Raises:
        UserError: the model is told no sizes.
    """
    told = options.told(studio.model, *([] if refiner is None else [refiner.studio.model]))
    away = options.told_away(studio.model)
    for task in tasks:
        own = task.basis
        given, about = {**told, **own.given}, {**told, **own.about}
        alone = own.of_prompts_alone and request.guide is None and request.edit is None and refiner is None
        plan = task.plan if alone else replace(task.plan, settle=0)
        yield replace(
            task, plan=plan, basis=replace(own, given=given, away=away, about=about), refiner=refiner
        )  # fmt: skip


def _pictures(
    options: Txt2ImgOptions, request: Request, studio: Studio, task: Task, loras: Loras, watch: Watch[Made]
) -> Iterator[Made]:
    """Batch after batch, each saved as soon as it is done."""
    guide, plan = None, task.plan
    if request.guide is not None:
        size = latent_size(studio, plan)
        guide = steered(request.guide, studio.model, request.read_prompts, size, studio.inference)
    with contextlib.closing(worn(studio.model, loras, request.batches)) as parts:
        for batch, read in parts:
            watch.check()
            # of weights with a LoRA it knows nothing; what words change comes before them
            correction = None if loras.of(batch.prompts[0]) else task.correction
            if request.edit is not None:
                outcome = generate_edited(studio, plan, read, request.edit, watch, options.progress)
            else:
                how = (guide, watch, options.progress, task.basis, task.refiner)
                outcome = generate_guided(studio, plan, read, *how, correction)
            if options.hires is not None:
                again = None if guide is None or guide.regions is None else guide
                outcome = _larger(options, studio, task, (read, outcome, again), watch)
            for row in range(len(outcome.images)):
                about = {**batch.about(row), **task.about(), **_about_extras(options)}
                about |= loras.about(batch.prompts[row]) | ({} if correction is None else correction.about)
                if guide is not None:
                    about |= guide.about(studio.model, read.prompts[row]) | outcome.steering.about(row)
                if request.edit is not None:
                    about |= request.edit.about()
                wishes = () if guide is None else guide.wishes_of(read.prompts[row])
                yield _finished(options, outcome, row, about, wishes, task)


def _larger(
    options: Txt2ImgOptions,
    studio: Studio,
    task: Task,
    made: tuple[Batch, Outcome, Steered | None],
    watch: Watch[Made],
) -> Outcome:
    """The pictures of a batch made larger and painted over, with the same seeds, and in the same regions if there are.

    Raises:
        UserError: a part of a picture is to be made, whose other pixels are not to change.
    """
    if task.basis.mask is not None or options.hires is None:
        raise UserError("--hires paints over whole pictures; to fill a part of one, leave it out")
    batch, first, guide = made
    factor = int(studio.model.first_stage_model.factor)
    width, height = fit_size(
        round(task.plan.width * options.hires), round(task.plan.height * options.hires), factor
    )  # fmt: skip
    large = [image.resize((width, height), Resampling.LANCZOS) for image in first.images]
    steps = options.hires_steps or task.plan.steps
    plan = replace(task.plan, width=width, height=height, steps=steps, settle=0)
    basis = replace(
        task.basis, image=torch.stack([image_to_tensor(image) for image in large]), strength=options.hires_strength
    )  # fmt: skip
    second = generate_guided(studio, plan, batch, guide, watch, options.progress, basis)
    return replace(first, images=second.images)


def _parts_to_tile(model: Any, wanted: bool) -> list[nn.Module]:
    """The network and the decoder, where pictures are to fit together; the encoder pads on one side only."""
    first_stage = model.first_stage_model
    decoder = [getattr(first_stage, name) for name in ("post_quant_conv", "decoder") if hasattr(first_stage, name)]
    return [model.model.diffusion_model, *(decoder or [first_stage])] if wanted else []


def _about_extras(options: Txt2ImgOptions) -> dict[str, Any]:
    """What a picture's parameters say of a second pass and of tiles."""
    about: dict[str, Any] = {"tiling": True} if options.tiling else {}
    if options.hires is not None:
        about |= {"hires": options.hires, "hires_strength": options.hires_strength}
    return about


def _report(model: Any, request: Request, additions: Sequence[Addition], taught: bool) -> None:
    """Say how the prompts of a request are read, and what of them is not; ``taught``: a LoRA is put on, too.

    Raises:
        UserError: a long prompt comes with what does not go together with it.
    """
    report_words(model, additions, request.texts)
    read = [read_prompt(model, text) for text in request.texts]
    report_cut(model, [one.text for one in read])
    others = {
        "boxes": request.guide is not None,
        "edits of a prompt": request.edit is not None,
    }
    check_long(model, [one.text for one in read], others)
    if others["edits of a prompt"] and model.embedding_manager is not None and model.embedding_manager.beside(0):
        raise UserError("edits of a prompt do not go together with words beside the context; leave one of them out")
    texts = [without_breaks(model, text) for text in request.texts]
    report_prompts(model, texts, files_of(additions), taught=taught)


def _finished(
    options: Txt2ImgOptions, outcome: Outcome, row: int, about: Mapping[str, Any], wishes: Sequence[Wish], task: Task
) -> Made:
    """A picture with what belongs to it, saved if pictures are."""
    image = outcome.images[row]
    boxed = with_boxes(image, wishes) if wishes else None
    source = None if outcome.sources is None else outcome.sources[row]
    path = None if options.skip_save else _save(image, options, about, task)
    for folder, beside in (("boxes", boxed), ("source", source)):
        if beside is not None and path is not None:
            save_image(beside, writable_folder(Path(options.outdir) / folder, "--outdir") / path.name, about)
    return Made(image, about["prompt"], about["seed"], path, boxed, source, about)


def _save(image: Image, options: Txt2ImgOptions, about: Mapping[str, Any], task: Task) -> Path:
    """Under the next number, or in the picture's own place if nothing is there yet."""
    if task.place is None:
        return save_numbered(image, Path(options.outdir) / "samples", about, prefix=task.name)
    while True:
        path = free_path(task.place)
        try:
            save_image(image, path, about, new=True)
        except TakenError:
            continue
        return path
