"""Contents in the manner of styles (StyleID, Chung et al. 2024): what ``run_styleid.py`` does, as a function."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ldm.control import MixReport, Sites
from ldm.models.diffusion.noise import ImageNoise
from ldm.pictures.colour import keep_colour
from ldm.pictures.images import save_image, tensor_to_image
from ldm.pictures.sizing import USUAL_SIDE, Picture, Sizing, look_at, open_mask, sizing_for
from ldm.util import UserError
from ldm.workflows.inversion.cache import Capture, InversionCache, Needs
from ldm.workflows.inversion.invert import Inversion
from ldm.workflows.memory import peak_memory
from ldm.workflows.record import is_finished, tensor_hash, write_record
from ldm.workflows.restyle.contact_sheet import contact_sheet
from ldm.workflows.restyle.pairs import Pair, shard
from ldm.workflows.restyle.plan import (
    Recipe,
    StyleIDOptions,
    attention_sites,
    check,
    detail_sites,
    find_pairs,
    recipe,
    sampled_timesteps,
)
from ldm.workflows.restyle.stylise import start_noise, stylise
from ldm.workflows.studio import Studio, open_studio

log = logging.getLogger(__name__)

SHEET = "contact_sheet.png"
HALF = torch.float16  # of features; enough for a picture's 8 bits
SAID = 5  # problems that are named in full


@dataclass(frozen=True, eq=False)
class Job:
    """A pair with all that its result depends on."""

    pair: Pair
    content: Picture
    styles: tuple[Picture, ...]
    masks: Tensor | None  # [styles, H, W]
    recipe: Recipe
    parameters: dict[str, Any]

    @property
    def pictures(self) -> list[Picture]:
        return [self.content, *self.styles]

    def goes_with(self, other: Job) -> bool:
        """Whether both can be made in one batch."""
        return (
            self.content.size == other.content.size
            and [style.sha256 for style in self.styles] == [style.sha256 for style in other.styles]
            and self.recipe == other.recipe
            and (self.masks is None) == (other.masks is None)
        )


@dataclass(frozen=True)
class Result:
    """A finished picture; ``skipped`` when it was there before."""

    pair: Pair
    path: Path
    skipped: bool


@dataclass(frozen=True)
class Setting:
    """A studio and what of it does not change within a run."""

    studio: Studio
    fingerprint: str
    sites: Sites
    detail: Sites
    timesteps: tuple[float, ...]
    sizing: Sizing
    context: Any

    def about(self) -> dict[str, str]:
        """What everything that the model computes depends on."""
        return {"model": self.fingerprint, "precision": self.studio.effective_precision}

    @property
    def model(self) -> Any:
        return self.studio.model


def styleid(options: StyleIDOptions, model: Any = None) -> list[Result]:
    """Restyle every content with every style (or the pairs of a file), save the pictures, and say where they are.

    Each result is ``<output_path>/<content>_stylized_<style>.png`` with a JSON file of that name beside it. A result
    whose JSON has exactly the parameters that are asked for is finished and skipped. With RANK and WORLD_SIZE in the
    environment (torchrun) this process makes its share of the pairs.

    Args:
        model: a loaded LatentDiffusion; None loads what the options name.

    Raises:
        UserError: an option does not fit, and nothing has been written; or some pictures or masks could not be used,
            and all pairs without them are finished.
    """
    started = time.perf_counter()
    check(options)
    everything = find_pairs(options)
    pairs = shard(everything, os.environ)
    studio = Studio.of(model, options.precision) if model is not None else open_studio(
        options.ckpt, options.model_config, device=options.device, precision=options.precision
    )  # fmt: skip
    setting = make_setting(options, studio)
    jobs, problems = make_jobs(options, setting, pairs)
    out = Path(options.output_path)
    finished = [job for job in jobs if is_finished(*files(out, job.pair), job.parameters)]
    if finished:
        names = ", ".join(job.pair.name for job in finished[:5]) + (", ..." if len(finished) > 5 else "")
        log.info("skipped, because finished: %d of %d (%s)", len(finished), len(pairs), names)
    todo = [job for job in jobs if job not in finished]
    cache = make_cache(options, setting, todo)
    quiet = not options.progress or os.environ.get("RANK", "0") != "0"
    with tqdm(total=len(todo), desc="pairs", disable=quiet, dynamic_ncols=True) as bar:
        for group in batches(todo, options.batch):
            bar.set_postfix_str(group[0].pair.name, refresh=True)
            make_group(options, setting, cache, group, quiet)
            bar.update(len(group))
    if not options.no_sheet:
        contact_sheet(everything, out, out / SHEET)
    log.info(
        "%d made, %d skipped in %.1f s; %d pictures inverted, %d inversions read; peak memory %s",
        len(todo), len(finished), time.perf_counter() - started, cache.inverted, cache.read, peak_memory(),
    )  # fmt: skip
    if problems:
        raise UserError(in_short(problems))
    return [Result(job.pair, files(out, job.pair)[0], job in finished) for job in jobs]


def files(out: Path, pair: Pair) -> tuple[Path, Path]:
    """Where a result and its record go."""
    return out / f"{pair.name}.png", out / f"{pair.name}.json"


def make_setting(options: StyleIDOptions, studio: Studio) -> Setting:
    """Settle layers, steps and sizes for a model.

    Raises:
        UserError: an option does not fit it.
    """
    model = studio.model
    with torch.no_grad():
        context = model.get_learned_conditioning([""])
    return Setting(
        studio=studio,
        fingerprint=studio.fingerprint,
        sites=attention_sites(model, options.attn_layer),
        detail=detail_sites(model),
        timesteps=tuple(sampled_timesteps(options, model.schedule)),
        sizing=sizing_for(model, options.H, options.W, options.crop, options.longest or usual_side(studio.inference)),
        context=context,
    )


def usual_side(inference: Mapping[str, Any]) -> int:
    """The longest side without options: 512, or what the model's YAML says it was trained at, if that is more."""
    return max(USUAL_SIDE, *(int(inference.get(name) or 0) for name in ("height", "width")))


def make_jobs(options: StyleIDOptions, setting: Setting, pairs: Sequence[Pair]) -> tuple[list[Job], list[str]]:
    """Every pair with its pictures, masks and parameters; and one sentence for each pair that cannot be made.

    Raises:
        UserError: none can be made.
    """
    looked: dict[Path, Picture | UserError] = {}

    def picture(path: Path) -> Picture:
        if path not in looked:
            try:
                looked[path] = look_at(path, setting.sizing)
            except UserError as error:
                looked[path] = error
        found = looked[path]
        if isinstance(found, UserError):
            raise found
        return found

    jobs, problems = [], []
    for pair in pairs:
        try:
            content, styles = picture(pair.content), tuple(picture(style) for style in pair.styles)
            masks = open_masks(options, pair, content)
        except UserError as error:
            log.warning("left out %s: %s", pair.name, error)
            problems.append(str(error))
            continue
        made = recipe(options, pair, setting.sites, len(setting.timesteps))
        jobs.append(Job(pair, content, styles, masks, made, parameters(setting, made, content, styles, masks)))
    problems = list(dict.fromkeys(problems))
    if problems and not jobs:
        raise UserError(in_short(problems))
    return jobs, problems


def in_short(problems: Sequence[str]) -> str:
    rest = len(problems) - SAID
    return "; ".join(problems[:SAID]) + (f"; and {rest} more" if rest > 0 else "")


def open_masks(options: StyleIDOptions, pair: Pair, content: Picture) -> Tensor | None:
    """The masks [styles, H, W] of a pair at its content's size; everything where --pi or --mix are given without any.

    Raises:
        UserError: see ``open_mask``.
    """
    if pair.masks:
        return torch.stack([open_mask(path, content, content.sizing.crop is not None) for path in pair.masks])
    if len(pair.styles) == 1 and (options.pi is not None or options.mix is not None):
        return torch.ones(1, *content.size)
    return None


def parameters(
    setting: Setting, made: Recipe, content: Picture, styles: Sequence[Picture], masks: Tensor | None
) -> dict[str, Any]:
    """All that a result depends on, for its record."""
    return {
        **made.parameters(),
        **setting.about(),
        "width": content.size[1],
        "height": content.size[0],
        "content": content.sha256,
        "styles": [style.sha256 for style in styles],
        "masks": None if masks is None else tensor_hash(masks),
    }


def make_cache(options: StyleIDOptions, setting: Setting, jobs: Sequence[Job]) -> InversionCache:
    """The cache of a run, which knows what of each picture all jobs together will need."""
    needs: dict[str, Needs] = {}
    for job in jobs:
        attention = ("qkv" if job.recipe.mixed else "q") if job.recipe.attn_injection else ""
        own = Needs(attention, job.recipe.detail is not None)
        needs[job.content.sha256] = needs.get(job.content.sha256, Needs()) | own
        for style in job.styles:
            needs[style.sha256] = needs.get(style.sha256, Needs()) | Needs("kv" if attention else "")
    return InversionCache(
        setting.model,
        setting.context,
        options.ddim_inv_steps,
        Capture(setting.sites, setting.detail, setting.timesteps, HALF if options.precision == "autocast" else None),
        needs,
        setting.about(),
        options.features,
        Path(options.precomputed) if options.precomputed else None,
        room=int(options.feature_gb * 2**30),
        batch=options.batch,
        progress=options.progress,
        uses=Counter(picture.sha256 for job in jobs for picture in job.pictures),
    )


def batches(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    """Neighbours that can be made together, at most ``size`` of them."""
    group: list[Job] = []
    for job in jobs:
        if group and (len(group) == size or not group[0].goes_with(job)):
            yield group
            group = []
        group.append(job)
    if group:
        yield group


def make_group(
    options: StyleIDOptions, setting: Setting, cache: InversionCache, group: Sequence[Job], quiet: bool
) -> None:
    """Make, save and record the results of jobs that go together.

    Raises:
        UserError: a picture has gone, the disk is full, or memory is not enough.
    """
    started = time.perf_counter()
    try:
        images = restyle(setting, cache, group, progress=not quiet)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"not enough memory for {len(group)} picture(s) of {group[0].content.size[1]}x{group[0].content.size[0]}: "
            "a smaller --batch, another --features or a smaller size would need less"
        ) from error
    seconds = (time.perf_counter() - started) / len(group)
    for job, image in zip(group, images, strict=True):
        path, record = files(Path(options.output_path), job.pair)
        save_image(image, path, job.parameters)
        write_record(record, job.parameters, about(options, setting, job, seconds))


def about(options: StyleIDOptions, setting: Setting, job: Job, seconds: float) -> dict[str, Any]:
    """What a record says that the result does not depend on."""
    return {
        "result": f"{job.pair.name}.png",
        "content": str(job.pair.content),
        "styles": [str(style) for style in job.pair.styles],
        "masks": [str(mask) for mask in job.pair.masks],
        "model": setting.studio.name,
        "device": str(setting.model.device),
        "features": options.features,
        "batch": options.batch,
        "seconds": round(seconds, 2),
        "peak_memory": peak_memory(),
    }


@torch.no_grad()
def restyle(setting: Setting, cache: InversionCache, group: Sequence[Job], progress: bool = False) -> list[Image.Image]:
    """The pictures of jobs that go together: invert, AdaIN of the noise, sample under the mode, decode."""
    latents = restyled_latents(setting, cache, group, progress)
    cache.used(picture for job in group for picture in job.pictures)  # features go before decoding takes its memory
    with setting.studio.mixed():
        images = [tensor_to_image(image) for image in setting.model.decode_first_stage(latents)]
    if not group[0].recipe.keep_color:
        return images
    return [keep_colour(image, job.content.image()) for image, job in zip(images, group, strict=True)]


def restyled_latents(
    setting: Setting,
    cache: InversionCache,
    group: Sequence[Job],
    progress: bool = False,
    report: Callable[[MixReport], None] | None = None,
) -> Tensor:
    """The latents [B, C, h, w] of jobs that go together; ``report`` is told what a mix did, see ``ldm.control.Mix``."""
    model, first = setting.model, group[0].recipe
    device = model.device
    inversions = cache.get([*(job.content for job in group), *group[0].styles])
    content, styles = Inversion.join(inversions[: len(group)]), inversions[len(group) :]
    masks = None if group[0].masks is None else torch.stack([job.masks for job in group if job.masks is not None])
    start = content.noise
    if first.init_adain:
        start = start_noise(content.noise, [style.noise for style in styles], masks)
    fresh = ImageNoise([first.seed or 0] * len(group))
    with setting.studio.mixed():
        return stylise(
            model, start.to(device), content, styles, setting.context,
            steps=first.save_feat_steps, start_step=first.start_step, sites=setting.sites, inject=first.attn_injection,
            gamma=first.gamma, T=first.T, gamma_schedule=first.gamma_schedule,
            masks=masks, pi=first.pi, mix=first.mix, sharpen=first.sharpen,
            detail=first.detail, detail_sites=setting.detail,
            eta=first.ddim_eta, noise=lambda: fresh.draw(start.shape[1:]), report=report,
            progress=progress,
        )  # fmt: skip
