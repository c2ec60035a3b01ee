"""Contents that prompts make, in the manner of styles: each is generated once and restyled with every style."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ldm.models.diffusion.noise import ImageNoise
from ldm.pictures.images import save_image
from ldm.pictures.numbered import free_path
from ldm.pictures.sizing import Picture, Sizing, look_at
from ldm.seeds import settled_seed
from ldm.shipped import SAMPLES
from ldm.texts import read_lines
from ldm.util import UserError
from ldm.workflows.inversion.cache import InversionCache, Needs
from ldm.workflows.inversion.invert import Inversion
from ldm.workflows.pictures import pictures_of
from ldm.workflows.plan import check_needs, usual_settings
from ldm.workflows.prompts import conditions
from ldm.workflows.record import has_parameters
from ldm.workflows.restyle.features import cache_for
from ldm.workflows.restyle.generated import UnderPrompt, generated
from ldm.workflows.restyle.group import finished as finish
from ldm.workflows.restyle.jobs import Job, make_job
from ldm.workflows.restyle.pairs import Pair, picture_names, pictures_at, shard
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.results import Result, finished, save_result
from ldm.workflows.restyle.setting import Setting
from ldm.workflows.restyle.start import beginning
from ldm.workflows.restyle.stylise import stylise
from ldm.workflows.watch import Watch, until_cancelled

FOLDER = "contents"  # of the output folder, where generated contents are
LONGEST_NAME = 60


@dataclass(frozen=True)
class Wish:
    """A content that is to be generated.

    Attributes:
        name: of its file, without a suffix.
    """

    prompt: str
    seed: int
    name: str


def prompts_of(options: StyleIDOptions) -> list[str]:
    """The prompts of ``cnt_prompt``, then those of ``cnt_prompts``: a file with one a line, or a folder of such files.

    Raises:
        UserError: a file cannot be read, or there is no prompt in it.
    """
    given = [options.cnt_prompt] if isinstance(options.cnt_prompt, str) else list(options.cnt_prompt or ())
    if options.cnt_prompts is None:
        return given
    place = Path(options.cnt_prompts)
    files = sorted(place.glob("*.txt")) if place.is_dir() else [place]
    found = [line for file in files for line in read_lines(file, "prompt file")]
    if not found:
        raise UserError(f"there is no prompt in '{place}': a text file with one a line, or a folder of such, is right")
    return [*given, *found]


def wishes(prompts: Sequence[str], seed: int) -> list[Wish]:
    """A wish for each prompt, the seeds counting up; names that would be alike get their number."""
    names = [re.sub(r"[^\w-]+", "_", prompt).strip("_")[:LONGEST_NAME].rstrip("_") or "content" for prompt in prompts]
    several = {name for name, count in Counter(names).items() if count > 1}
    return [
        Wish(prompt, seed + i, f"{name}_{i + 1}" if name in several else name)
        for i, (prompt, name) in enumerate(zip(prompts, names, strict=True))
    ]


def restyle_prompts(
    options: StyleIDOptions, setting: Setting, watch: Watch[Result], environment: Mapping[str, str] | None = None
) -> tuple[list[Job], dict[Pair, Result], InversionCache]:
    """Generate the contents of all prompts, this process' share of them, and restyle each with every style.

    A content is ``<output_path>/contents/<name>.png``; results are as those of pictures. What is finished stays.

    Raises:
        UserError: the model needs more than a prompt, or a style cannot be read.
    """
    check_needs(setting.model)
    paths = pictures_at(SAMPLES / "sty" if options.sty is None else options.sty, "style")
    styles = {path: look_at(path, setting.sizing) for path in paths}
    names = picture_names(paths)
    what = "" if options.without_attn_injection else ("qkv" if options.share else "kv")
    cache = cache_for(options, setting, {style.sha256: Needs(what) for style in styles.values()}, None, watch)
    jobs, results = list[Job](), dict[Pair, Result]()
    everything = wishes(prompts_of(options), settled_seed(options.seed or 0))
    with until_cancelled():
        for wish in shard(everything, environment or os.environ):
            watch.check()
            maker = Maker(options, setting, cache, wish, watch)
            its = [maker.job(style, names[path]) for path, style in styles.items()]
            jobs += its
            results |= finished(options, its)
            for job in [job for job in its if job.pair not in results]:
                watch.check()
                began = time.perf_counter()
                image = maker.restyled(job)
                results[job.pair] = save_result(options, setting, job, image, time.perf_counter() - began)
                watch.result(results[job.pair])
    return jobs, results, cache


class Maker:
    """One content, generated when it is first needed, and its restylings."""

    def __init__(
        self, options: StyleIDOptions, setting: Setting, cache: InversionCache, wish: Wish, watch: Watch[Result]
    ) -> None:
        usual = usual_settings(setting.studio)
        self.options, self.setting, self.cache, self.wish, self.watch = options, setting, cache, wish, watch
        self.scale = float(usual["guidance_scale"] if options.scale is None else options.scale)
        size = setting.sizing.crop or (int(usual["height"]), int(usual["width"]))
        factor = setting.sizing.factor
        self.size = (size[0] // factor * factor, size[1] // factor * factor)  # height and width in pixels
        self.latent_size = (self.size[0] // factor, self.size[1] // factor)
        self._made: tuple[Tensor, Inversion, UnderPrompt] | None = None

    def about(self) -> dict[str, Any]:
        """What the content depends on besides the model and the steps."""
        return {"prompt": self.wish.prompt, "seed": self.wish.seed, "scale": self.scale, "size": list(self.size)}

    def content(self) -> Path:
        """The content's file; it is generated if it is not there."""
        how = self.options
        about = {**self.about(), **self.setting.about(), "steps": how.save_feat_steps, "fast": how.fast}
        place = Path(how.output_path) / FOLDER / f"{self.wish.name}.png"
        path = free_path(place, lambda there: has_parameters(there, about))
        if not path.exists():
            (image,) = pictures_of(self.setting.studio, self._generated()[0])
            save_image(image, path, about)
        return path

    def job(self, style: Picture, name: str) -> Job:
        """What is to be made of the content with a style, which is called ``name`` in the result's."""
        content = self.content()
        pair = Pair(content, (style.path,), (), f"{self.wish.name}_stylized_{name}")
        picture = look_at(content, Sizing(self.setting.sizing.factor, max(self.size)))
        job = make_job(self.options, self.setting, pair, picture, (style,), None)
        return replace(job, parameters={**job.parameters, "from_prompt": self.about()})

    def _generated(self) -> tuple[Tensor, Inversion, UnderPrompt]:
        if self._made is None:
            model, setting = self.setting.model, self.setting
            guided = self.scale != 1
            with torch.no_grad():
                cond, uncond = conditions(model, [self.wish.prompt], "", self.latent_size, guided)
            asked = UnderPrompt(model, cond, uncond, self.scale)
            needs = Needs("" if self.options.without_attn_injection else "q", bool(self.options.detail))
            with setting.studio.mixed():
                latent, walk = generated(
                    asked, (model.channels, *self.latent_size), self.wish.seed,
                    replace(self.options, start_step=setting.steps), self.cache.capture, needs,
                    self.watch.steps(model, "content"), self.options.progress,
                )  # fmt: skip
            self._made = latent, walk, asked
        return self._made

    @torch.no_grad()
    def restyled(self, job: Job) -> Image.Image:
        """The result of a job with this content."""
        _, content, asked = self._generated()
        styles, setting = self.cache.get(job.styles), self.setting
        start = beginning(asked.schedule, content, styles, job.recipe)
        fresh = ImageNoise([job.recipe.seed or 0])
        with setting.studio.mixed():
            latent = stylise(
                asked, start.to(setting.studio.device), content, styles, asked.cond, job.recipe,
                sites=setting.sites, residuals=setting.detail, noise=lambda: fresh.draw(content.noise.shape[1:]),
                callback=self.watch.steps(setting.model, "sampling"), progress=self.options.progress,
            )  # fmt: skip
        (image,) = pictures_of(setting.studio, latent)
        return finish(image, job)
