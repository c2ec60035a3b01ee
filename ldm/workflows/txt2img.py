"""Prompts to pictures: what the command ``txt2img.py`` does, as a function."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image

from ldm.pictures.images import make_grid
from ldm.pictures.numbered import save_numbered
from ldm.util import UserError
from ldm.workflows.generate import generate
from ldm.workflows.languages import report_reading, speaking
from ldm.workflows.plan import make_plan
from ldm.workflows.request import Txt2ImgOptions, read_request
from ldm.workflows.studio import Studio, open_studio
from ldm.workflows.watch import Cancelled, Watch

__all__ = ["Made", "Txt2ImgOptions", "txt2img"]

log = logging.getLogger(__name__)


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
    is saved as soon as its batch is done, so an interruption loses one batch at most.

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
    with studio.lock, speaking(studio.model, options.lang):
        if options.adapter_path:
            use_adapters(studio.model, options.adapter_path)
        if options.embedding_path:
            use_words(options, studio.model, request.prompts)
        report_reading(studio.model, request.prompts)
        try:
            for batch in request.batches:
                watch.check()
                images = generate(studio, plan, batch, watch, progress=options.progress)
                for image, prompt, seed in zip(images, batch.prompts, batch.seeds, strict=True):
                    about = {"prompt": prompt, "seed": seed, **asdict(plan)}
                    path = None if options.skip_save else save_numbered(image, Path(options.outdir) / "samples", about)
                    made.append(Made(image, prompt, seed, path))
                    watch.result(made[-1])
        except Cancelled:
            log.info("stopped after %d pictures", len(made))
    images = [one.image for one in made]
    if images and not options.skip_grid:
        prompts = request.prompts if len(request.prompts) > 1 else request.prompts[0]
        sheet = make_grid(images, columns=options.n_rows or options.n_samples)
        about = {"prompt": prompts, "seed": request.seed, **asdict(plan)}
        save_numbered(sheet, options.outdir, about, prefix="grid-", digits=4)
    return images
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


