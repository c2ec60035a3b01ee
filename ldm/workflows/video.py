"""Films from first frames: for a picture, or each of a folder, an mp4, a GIF, a WebP and a sheet of its frames."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ldm.finite import check_finite
from ldm.models.diffusion.condition import Parts
from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.sampling import sample, step_rule
from ldm.models.portions import in_blended_chunks
from ldm.modules.diffusionmodules.guiders import Guider, LinearPredictionGuider, TrianglePredictionGuider
from ldm.pictures.film import Film
from ldm.pictures.images import centre_crop, check_size, image_to_tensor, load_image, tensor_to_image
from ldm.pictures.sizing import digest
from ldm.seeds import settled_seed
from ldm.shipped import TINY_FILM
from ldm.util import UserError, writable_folder
from ldm.workflows.film_course import NO_COURSE, course_of, path_given, takes_path
from ldm.workflows.film_files import film_files, write_film_files
from ldm.workflows.film_options import VideoOptions, check_options, checked_start, config_of, inputs_of, output_folder
from ldm.workflows.film_versions import VERSIONS
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.plan import checked_noise_scale
from ldm.workflows.record import is_finished, write_record
from ldm.workflows.studio import Studio, open_studio
from ldm.workflows.watch import Watch, until_cancelled

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoPlan:
    """The options of all films with nothing left open; what their records hold."""

    prompt: str
    frames: int
    steps: int
    fps: float
    motion: float
    heading: float | None
    manner: str | None
    cond_aug: float
    decoding_t: int
    decoding_overlap: int
    max_scale: float
    min_scale: float
    guider: str
    sampler: str
    noise_scale: float
    start_from: str
    precision: str
    model: str


@dataclass(frozen=True)
class VideoResult:
    """A film, where its files are, and whether it was there already."""

    film: Film | None
    files: list[Path]
    seed: int
    kept: bool = False


def video(
    options: VideoOptions, studio: Studio | None = None, watch: Watch[VideoResult] | None = None
) -> list[VideoResult]:
    """Make the films that are asked for; those whose files are there, made exactly so, are kept.

    Raises:
        UserError: a file, a size or a number does not fit, or the model makes no films; films that are finished stay.
    """
    check_options(options)
    inputs = inputs_of(options)
    folder = writable_folder(output_folder(options), "--output_folder")
    if studio is None:
        studio = film_studio(options.ckpt, config_of(options), options.device, options.precision)
    plan, watch = make_plan(options, studio), watch or Watch()
    first_seed = settled_seed(options.seed)
    results: list[VideoResult] = []
    with until_cancelled(), studio.lock:
        for number, (path, last) in enumerate(inputs):
            watch.check()
            result = one_film(studio, plan, options, path, last, first_seed + number, folder, watch)
            log.info("%s %s", "kept" if result.kept else "made", result.files[0])
            results.append(result)
            watch.result(result)
    return results


def film_studio(ckpt: str | None, config: str | None, device: str | None, precision: str) -> Studio:
    """The Studio of a checkpoint; of the small film model without one.

    Raises:
        UserError: a configuration without its weights, or as ``open_studio``.
    """
    if ckpt is None and config is not None:
        raise UserError(f"--config needs the weights that it describes: --ckpt FILE beside '{config}'")
    return open_studio(ckpt or TINY_FILM / "model.safetensors", config, device=device, precision=precision)


def one_film(
    studio: Studio, plan: VideoPlan, options: VideoOptions, path: Path, last: Path | None, seed: int, folder: Path,
    watch: Watch[Any],
) -> VideoResult:  # fmt: skip
    """The film of one picture, written as asked, or the one that is there."""
    image = sized(load_image(path), options, studio)
    end = None if last is None else sized(load_image(last), replace(options, crop=True, height=image.height,
                                                                   width=image.width), studio)  # fmt: skip
    way = {name: value[0].double().round(decimals=4).tolist() for name, value in
           path_of(studio, plan, image, seed).items()}  # fmt: skip
    about = {**record_of(plan), "seed": seed, "height": image.height, "width": image.width, "input": digest(image),
             "last": None if end is None else digest(end), **way}  # fmt: skip
    files = film_files(folder, path.stem, options.formats)
    record = folder / f"{path.stem}.json"
    if all(is_finished(file, record, about) for file in files):
        return VideoResult(None, files, seed, kept=True)
    film = make_film(studio, plan, image, seed, end, watch, options.progress)
    write_film_files(film, files, about)
    write_record(record, about, {"input": str(path), "files": [file.name for file in files]})
    return VideoResult(film, files, seed)


@torch.no_grad()
def make_film(
    studio: Studio,
    plan: VideoPlan,
    image: Image.Image,
    seed: int,
    last: Image.Image | None = None,
    watch: Watch[Any] | None = None,
    progress: bool = False,
) -> Film:
    """A film that begins with ``image``; it depends on that, the plan and the seed alone.

    Raises:
        UserError: what came out is not finite, or the model does not take a last frame.
        Cancelled: the watch does not want the rest.
    """
    model, noise = studio.model, ImageNoise([seed])
    factor = model.first_stage_model.factor
    size = (image.height // factor, image.width // factor)
    given: dict[str, Any] = {"image": image_to_tensor(image)[None], "frames": plan.frames, "fps": plan.fps,
                             "motion": plan.motion, "cond_aug": plan.cond_aug, "noise": noise}  # fmt: skip
    given |= path_of(studio, plan, image, seed)
    if last is not None:
        given["last_image"] = image_to_tensor(last)[None]
    with studio.mixed():
        condition = model.condition([plan.prompt], size=size, **given)
        latents = film_latents(studio, plan, condition, noise, given["image"], watch, progress)
    return Film(decoded(studio, latents, plan), plan.fps)


def path_of(studio: Studio, plan: VideoPlan, image: Image.Image, seed: int) -> dict[str, Tensor]:
    """The path [1, T, 4] of a film, as asked or drawn by its seed, from its first frame; {} for a model without one."""
    course = course_of(seed, plan.motion, plan.fps, plan.heading, plan.manner)
    return path_given(studio.model, [image], [course], plan.frames)


def film_latents(
    studio: Studio,
    plan: VideoPlan,
    condition: Parts,
    noise: ImageNoise,
    first: Tensor,
    watch: Watch[Any] | None = None,
    progress: bool = False,
) -> Tensor:
    """The latents [films T, C, h, w] of films from their condition and first frames [films, 3, H, W] in [-1, 1].

    ``noise`` draws for each film. Where latents still have some of the picture in them at the level where sampling
    starts, films from noise alone lose contrast; ``start_from="first"`` puts as much of the first frame there.
    """
    model = studio.model
    factor = model.first_stage_model.factor
    size = (first.shape[-2] // factor, first.shape[-1] // factor)
    x = plan.noise_scale * noise.draw((plan.frames, model.channels, *size)).flatten(0, 1).to(studio.device)
    start = None
    if plan.start_from == "first":
        levels = step_rule(plan.sampler).levels(model.schedule, plan.steps)
        start = len(levels) - 1  # all steps, of which ddim walks more than were asked for where 1000 cannot be divided
        x = levels[0].noised(clean_latent(model, first).repeat_interleave(plan.frames, dim=0), x)
    return sample(
        model, x, condition, steps=plan.steps, sampler=plan.sampler, start=start,
        guidance_scale=guider_of(plan).scale, uncond=model.unconditional(condition),
        callback=(watch or Watch()).steps(model, "sampling"), progress=progress,
    )  # fmt: skip


def decoded(studio: Studio, latents: Tensor, plan: VideoPlan) -> list[Image.Image]:
    """The pictures of a film's latents [T, C, h, w].

    Raises:
        UserError: a value that is not finite came out, of the network or of the decoder.
    """
    check_finite(studio.model, latents)
    with studio.mixed():
        frames = in_blended_chunks(
            studio.model.decode_first_stage, latents, min(plan.decoding_t, len(latents)),
            min(plan.decoding_overlap, len(latents) - 1),
        )  # fmt: skip
    check_finite(studio.model, frames)
    return [tensor_to_image(frame) for frame in frames]


def record_of(plan: VideoPlan) -> dict[str, Any]:
    """What a record says of a plan: nothing of what is as it always was before it could be asked for."""
    said, before = asdict(plan), {"noise_scale": 1, "start_from": "noise", "heading": None, "manner": None}
    return {name: value for name, value in said.items() if name not in before or value != before[name]}


def guider_of(plan: VideoPlan) -> Guider:
    """The guidance of each frame."""
    kind = TrianglePredictionGuider if plan.guider == "triangle" else LinearPredictionGuider
    return kind(plan.max_scale, plan.frames, plan.min_scale)


def make_plan(options: VideoOptions, studio: Studio) -> VideoPlan:
    """Options first, then the version, then the model's ``inference:`` section, then what is usual.

    Raises:
        UserError: the model makes no films.
    """
    model, inference = studio.model, {**studio.model.usual, **studio.inference}
    if "frames" not in {need.name for need in model.needs.optional}:
        raise UserError(f"'{studio.name}' makes pictures, not films; without --ckpt the small film model does")
    if options.last_path is not None and "last_image" not in {need.name for need in model.needs.optional}:
        raise UserError(f"'{studio.name}' takes a first frame only, no --last_path")
    if (options.heading, options.manner) != (None, None) and not takes_path(model):
        raise UserError(NO_COURSE.format(studio.name))
    version = VERSIONS.get(options.version or "")

    def choose(given: Any, of_version: Any, usual: Any) -> Any:
        return next(value for value in (given, of_version, usual) if value is not None)

    scale = float(inference.get("guidance_scale", 1.0))
    lowest = min(1.0, scale)
    if options.max_scale is None:  # what the YAML says of the first frame goes with what it says of the last
        lowest = float(inference.get("min_guidance_scale", lowest))
    return VideoPlan(
        prompt=options.prompt,
        frames=choose(options.num_frames, version and version.frames, model.frames),
        steps=choose(options.num_steps, version and version.steps, int(inference.get("steps", 25))),
        fps=float(options.fps_id + 1),
        motion=float(options.motion_bucket_id),
        heading=options.heading,
        manner=options.manner,
        cond_aug=options.cond_aug,
        decoding_t=options.decoding_t,
        decoding_overlap=options.decoding_overlap,
        max_scale=choose(options.max_scale, version and version.max_scale, scale),
        min_scale=choose(options.min_scale, version and version.min_scale, lowest),
        guider=options.guider,
        sampler=choose(options.sampler, None, str(inference.get("sampler", "euler"))),
        noise_scale=checked_noise_scale(choose(options.noise_scale, None, inference.get("noise_scale", 1.0))),
        start_from=checked_start(choose(options.start_from, None, inference.get("start_from", "noise"))),
        precision=studio.effective_precision,
        model=studio.name,
    )


def sized(image: Image.Image, options: VideoOptions, studio: Studio) -> Image.Image:
    """A picture at the size that its film has.

    With ``crop`` it is exactly ``height`` x ``width`` (or the model's own size), from the picture's middle. Else the
    picture is scaled so that it fits into that, its aspect kept, and its sides rounded to what the model divides.

    Raises:
        UserError: the model's factor does not divide the size.
    """
    factor, inference = int(studio.model.first_stage_model.factor), studio.inference
    size = studio.model.image_size
    rows, columns = (size, size) if isinstance(size, int) else size
    height = options.height or options.width or int(inference.get("height", rows * factor))
    width = options.width or options.height or int(inference.get("width", columns * factor))
    check_size(width, height, factor)
    if options.crop:
        return centre_crop(image, width, height)
    scale = min(width / image.width, height / image.height)
    sides = [max(factor, round(side * scale / factor) * factor) for side in (image.width, image.height)]
    return image if (image.width, image.height) == tuple(sides) else image.resize(
        (sides[0], sides[1]), Image.Resampling.LANCZOS
    )  # fmt: skip
