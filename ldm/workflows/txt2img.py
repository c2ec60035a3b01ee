"""Prompts to pictures: what the command ``txt2img.py`` does, as a function."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image

from ldm.additions.base import applied
from ldm.additions.reading import read_others
from ldm.pictures.images import make_grid
from ldm.pictures.numbered import save_numbered
from ldm.workflows.expectations import report_prompts
from ldm.workflows.generate import generate
from ldm.workflows.languages import speaking
from ldm.workflows.learned_words import files_of, report_words
from ldm.workflows.loras import read_all, worn
from ldm.workflows.plan import make_plan
from ldm.workflows.request import Txt2ImgOptions, read_request
from ldm.workflows.studio import Studio, open_studio
from ldm.workflows.watch import Watch, until_cancelled

__all__ = ["Made", "Txt2ImgOptions", "txt2img"]


@dataclass(frozen=True)
class Made:
    """A finished picture; ``path`` is None where pictures are not saved."""

    image: Image
    prompt: str
    seed: int
    path: Path | None


def txt2img(options: Txt2ImgOptions, model: Any = None, watch: Watch[Made] | None = None) -> list[Image]:
    """Make pictures from prompts, save them with their parameters, and return them in order.

    Files are ``<outdir>/samples/00000.png`` and on, and ``<outdir>/grid-0000.png``; none is ever overwritten. A picture
    is saved as soon as its batch is done, so an interruption loses one batch at most. Learned words and adapters are on
    the model for this request only.

    Args:
        options: see ``Txt2ImgOptions``.
        model: a ``Studio``, or a LatentDiffusion, for example of ``ldm.workflows.models.open_model``; None opens what
            the options name.
        watch: is told of steps and pictures, and may end the request: then the pictures so far are returned.

    Raises:
        UserError: an option does not fit, and nothing has been written; or the model gave no picture.
    """
    watch = watch or Watch()
    request = read_request(options)
    studio = Studio.of(model, options.precision) if model is not None else open_studio(
        options.ckpt, options.config, device=options.device, precision=options.precision
    )  # fmt: skip
    plan = make_plan(options, studio)
    made: list[Made] = []
    with studio.lock, until_cancelled():
        loras = read_all(options, studio, request.prompts)
        additions = read_others(studio.model, options.embedding_path, options.adapter_path, loras.everything)
        with applied(studio.model, additions), speaking(studio.model, options.lang, request.read_prompts):
            report_words(studio.model, additions, request.texts)
            report_prompts(studio.model, request.texts, files_of(additions))
            with contextlib.closing(worn(studio.model, loras, request.batches)) as parts:
                for batch, read in parts:
                    watch.check()
                    images = generate(studio, plan, read, watch, progress=options.progress)
                    for image, prompt, seed in zip(images, batch.prompts, batch.seeds, strict=True):
                        about = {"prompt": prompt, "seed": seed, **asdict(plan), **loras.about(prompt)}
                        folder = Path(options.outdir) / "samples"
                        path = None if options.skip_save else save_numbered(image, folder, about)
                        made.append(Made(image, prompt, seed, path))
                        watch.result(made[-1])
    images = [one.image for one in made]
    if images and not options.skip_grid:
        prompts = request.prompts if len(request.prompts) > 1 else request.prompts[0]
        about = {"prompt": prompts, "seed": request.seed, **asdict(plan), **loras.about(*request.prompts)}
        sheet = make_grid(images, columns=options.n_rows or options.n_samples)
        save_numbered(sheet, options.outdir, about, prefix="grid-", digits=4)
    return images
