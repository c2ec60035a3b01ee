"""Prompts to pictures: what the command ``txt2img.py`` does, as a function."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.languages import check_language
from ldm.util import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

DEFAULTS = {"steps": 50, "guidance_scale": 7.5, "sampler": "ddim"}
PROMPT = "a red circle on a blue background"


@dataclass
class Txt2ImgOptions:
    """What to make, how, and where to put it. None means: as the model's YAML says under ``inference:``, else usual.

    Each picture has a seed of its own, ``seed`` + its number, so that it can be made again alone.
    """

    prompt: str = PROMPT
    negative_prompt: str = ""  # what guidance leads away from
    lang: str = "auto"  # of the prompts: en, ko, zh, or auto, by each one's script
    from_file: str | None = None  # one prompt a line, in place of ``prompt``
    outdir: str = "outputs/txt2img-samples"
    skip_grid: bool = False  # no contact sheet
    skip_save: bool = False  # no single pictures
    ckpt: str | None = None  # None: the small model of this repository
    config: str | None = None  # None: config.yaml beside the checkpoint
    embedding_path: str | Sequence[str] | None = None  # files of learned words; "path=<new>" renames the one inside
    adapter_path: str | None = None  # adapters of the text encoder that were learned with the words
    steps: int | None = None  # 50
    sampler: str | None = None  # ddim
    eta: float = 0.0  # fresh noise in DDIM: 0 none, 1 as DDPM
    guidance_scale: float | None = None  # 7.5; 1 is without guidance, at half the work
    height: int | None = None  # pixels; the size that the model was trained at
    width: int | None = None
    channels: int | None = None  # of the latent; only checked
    factor: int | None = None  # of a latent's size to the picture's; only checked
    seed: int = 42
    fixed_code: bool = False  # the same start noise for every batch
    n_iter: int = 1  # batches for a prompt, or passes over the file
    n_samples: int = 4  # pictures in a batch
    n_rows: int = 0  # columns of the contact sheet; 0: n_samples
    precision: str = "autocast"  # full, autocast (mixed on a GPU), bf16, fp16
    device: str | None = None  # None: a GPU if there is one
    progress: bool = True


@dataclass(frozen=True)
class Plan:
    """The options with nothing left open; what is written into each picture."""

    negative_prompt: str
    steps: int
    sampler: str
    eta: float
    guidance_scale: float
    width: int
    height: int
    model: str
    precision: str


@dataclass(frozen=True)
class Batch:
    """Pictures that are made together: their prompts and seeds."""

    prompts: list[str]
    seeds: list[int]


def txt2img(options: Txt2ImgOptions, model: Any = None) -> list[Image]:
    """Make pictures from prompts, save them with their parameters, and return them in order.

    Files are ``<outdir>/samples/00000.png`` and on, and ``<outdir>/grid-0000.png``; none is ever overwritten. A picture
    is saved as soon as its batch is done, so an interruption loses one batch at most.

    Args:
        options: see ``Txt2ImgOptions``.
        model: a loaded LatentDiffusion, for example of ``ldm.workflows.models.open_model``; None loads what the options
            name.

    Raises:
        UserError: an option does not fit; nothing has been written then.
    """
    prompts = read_prompts(options)
    check(options)
    inference: dict[str, Any] = {}
    name = type(model).__name__
    if model is None:
        from ldm.workflows.models import find_files, open_model

        name = "/".join(find_files(options.ckpt, options.config)[0].parts[-2:])
        model, inference = open_model(
            options.ckpt, options.config, device=options.device, precision=options.precision
        )
    plan = make_plan(options, model, inference, name)
    if options.adapter_path:
        use_adapters(model, options.adapter_path)
    if options.embedding_path:
        use_words(options, model, prompts)

    from ldm.pictures.images import next_numbered_path, save_image
    from ldm.workflows.languages import report_reading, speaking

    images: list[Image] = []
    with speaking(model, options.lang):
        report_reading(model, prompts)
    for batch in batches(options, prompts):
        with speaking(model, options.lang):
            made = generate(model, plan, batch, progress=options.progress)
        images += made
        if not options.skip_save:
            for image, prompt, seed in zip(made, batch.prompts, batch.seeds, strict=True):
                path = next_numbered_path(Path(options.outdir) / "samples", ".png")
                save_image(image, path, {"prompt": prompt, "seed": seed, **asdict(plan)})
    if not options.skip_grid:
        save_grid(options, plan, images, prompts)
    return images


def read_prompts(options: Txt2ImgOptions) -> list[str]:
    """The prompts of the options, or the lines of their file that are not blank.

    Raises:
        UserError: the file is missing, not text, or has no prompt.
    """
    if options.from_file is None:
        return [options.prompt]
    path = Path(options.from_file)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the prompt file '{path}': {error}") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"the prompt file '{path}' is empty; it should hold one prompt a line")
    return prompts


def check(options: Txt2ImgOptions) -> None:
    """Refuse what can be refused before a model is loaded.

    Raises:
        UserError: an unknown sampler or language, an eta that the sampler does not take, or a count below 1.
    """
    check_language(options.lang, "auto")
    from ldm.models.diffusion.sampling import step_rule

    if options.sampler is not None:
        step_rule(options.sampler, options.eta)
    for name in ("n_iter", "n_samples"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if options.n_rows < 0:
        raise UserError(f"--n_rows must not be negative, got {options.n_rows}")


def make_plan(options: Txt2ImgOptions, model: Any, inference: dict[str, Any], name: str) -> Plan:
    """Options first, then the model's ``inference:`` section, then what is usual. ``name`` is for the record.

    Raises:
        UserError: the size, the sampler or the number of steps does not fit the model.
    """
    from ldm.models.diffusion.sampling import step_rule
    from ldm.pictures.images import check_size

    factor = model.first_stage_model.factor
    for flag, given, own in (("--C", options.channels, model.channels), ("--f", options.factor, factor)):
        if given is not None and given != own:
            raise UserError(f"{flag} {given} does not fit the model, whose latents have {own}")
    size = latent_size(model)
    usual = {**DEFAULTS, "height": size[0] * factor, "width": size[1] * factor, **inference}

    def choose(option: str) -> Any:
        given = getattr(options, option)
        return usual[option] if given is None else given

    plan = Plan(
        negative_prompt=options.negative_prompt,
        steps=int(choose("steps")),
        sampler=str(choose("sampler")),
        eta=options.eta,
        guidance_scale=float(choose("guidance_scale")),
        width=int(choose("width")),
        height=int(choose("height")),
        model=name,
        precision=options.precision,
    )
    check_size(plan.width, plan.height, factor)
    step_rule(plan.sampler, plan.eta).levels(model.schedule, plan.steps)
    return plan


def latent_size(model: Any) -> tuple[int, int]:
    """(height, width) of the latents that the model was trained on."""
    size = model.image_size
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def use_adapters(model: Any, path: str) -> None:
    """Put the learned adapters of a file around the model's text encoder.

    Raises:
        UserError: the file holds none, or they are for another text encoder.
    """
    from ldm.modules.encoders.bert import TransformerEmbedder
    from ldm.modules.encoders.post_BERT import AdapterBERTEmbedder

    if not isinstance(model.cond_stage_model, TransformerEmbedder):
        kind = type(model.cond_stage_model).__name__
        raise UserError(f"the adapters in '{path}' are for a BERT text encoder, not for this model's {kind}")
    model.cond_stage_model = AdapterBERTEmbedder.around(model.cond_stage_model, path)


def use_words(options: Txt2ImgOptions, model: Any, prompts: Sequence[str]) -> None:
    """Give the model the learned words of the options' files, and say which prompt uses which.

    Raises:
        UserError: as ``ldm.workflows.learned_words.load_words``.
    """
    from ldm.workflows.learned_words import load_words, report_words

    paths = options.embedding_path
    assert paths is not None
    words = load_words(model, [paths] if isinstance(paths, str) else paths)
    report_words(model, words, [*prompts, *filter(None, [options.negative_prompt])])


def batches(options: Txt2ImgOptions, prompts: Sequence[str]) -> Iterator[Batch]:
    """The pictures to make, batch by batch.

    One prompt gives ``n_iter`` batches of ``n_samples`` pictures; a file gives each of its prompts ``n_iter`` times, in
    batches of ``n_samples``.
    """
    row = list(prompts) if options.from_file is not None else list(prompts) * options.n_samples
    made = 0
    for _ in range(options.n_iter):
        for start in range(0, len(row), options.n_samples):
            part = row[start : start + options.n_samples]
            first = options.seed + (0 if options.fixed_code else made)
            yield Batch(part, list(range(first, first + len(part))))
            made += len(part)


def generate(model: Any, plan: Plan, batch: Batch, progress: bool = False) -> list[Image]:
    """The pictures of one batch. Each depends on its prompt, its seed and the plan alone."""
    import torch

    from ldm.models.diffusion.noise import ImageNoise
    from ldm.models.diffusion.sampling import sample
    from ldm.pictures.images import tensor_to_image
    from ldm.workflows.models import autocast

    factor = model.first_stage_model.factor
    shape = (model.channels, plan.height // factor, plan.width // factor)
    noise = ImageNoise(batch.seeds)
    with torch.no_grad(), autocast(model.device, plan.precision):
        alike = len(set(batch.prompts)) == 1
        cond = model.get_learned_conditioning(batch.prompts[:1] if alike else batch.prompts)
        guided = plan.guidance_scale != 1 and cond is not None
        uncond = model.get_learned_conditioning([plan.negative_prompt]) if guided else None
        latents = sample(
            model,
            noise.draw(shape).to(model.device),
            cond,
            steps=plan.steps,
            sampler=plan.sampler,
            guidance_scale=plan.guidance_scale,
            uncond=uncond,
            eta=plan.eta,
            noise=lambda: noise.draw(shape),
            progress=progress,
        )
        return [tensor_to_image(image) for image in model.decode_first_stage(latents)]


def save_grid(options: Txt2ImgOptions, plan: Plan, images: Sequence[Image], prompts: Sequence[str]) -> None:
    """All pictures on one sheet, ``<outdir>/grid-0000.png``."""
    from ldm.pictures.images import make_grid, next_numbered_path, save_image

    path = next_numbered_path(options.outdir, ".png", prefix="grid-", digits=4)
    about = {"prompt": list(prompts) if len(prompts) > 1 else prompts[0], "seed": options.seed, **asdict(plan)}
    save_image(make_grid(images, columns=options.n_rows or options.n_samples), path, about)
