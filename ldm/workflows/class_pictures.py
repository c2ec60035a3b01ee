"""Class pictures for DreamBooth: what the base model draws for a class, as many as are missing from a folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ldm.checkpoint.loading import without_learning
from ldm.pictures.images import list_images
from ldm.pictures.numbered import save_numbered
from ldm.shipped import here_or_shipped
from ldm.util import UserError
from ldm.workflows.models import choose_device, model_of
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.txt2img import Made, txt2img
from ldm.workflows.watch import Watch

log = logging.getLogger(__name__)

STEPS, GUIDANCE_SCALE = 50, 10.0  # of XavierXiao's advice: DDIM, eta 0


def make_class_pictures(
    folder: str | Path, class_word: str, count: int, document: DictConfig, ckpt: str | Path, seed: int = 0
) -> int:
    """Make pictures of "a photo of a <class>" until a folder has ``count``; how many were made.

    Pictures of any origin count. The seed of a picture is ``seed`` and its number, so that what is made later differs.

    Args:
        document: the configuration whose ``model:`` is to be trained.
        ckpt: the weights that it begins from.

    Raises:
        UserError: the model cannot be opened, or the folder cannot be written.
    """
    folder = Path(folder)
    try:
        there = len(list_images(folder))
    except UserError:
        there = 0
    if there >= count:
        return 0
    plain: Any = OmegaConf.to_container(document.model, resolve=True)
    base = OmegaConf.create({"model": without_learning(plain)})
    model = model_of(here_or_shipped(ckpt), base, choose_device(None))
    prompt = f"a photo of a {class_word}"
    log.info("'%s' has %d class pictures: making %d of '%s'", folder, there, count - there, prompt)

    def keep(made: Made) -> None:
        save_numbered(made.image, folder, {"prompt": made.prompt, "seed": made.seed})

    options = Txt2ImgOptions(
        prompt=prompt, steps=STEPS, sampler="ddim", guidance_scale=GUIDANCE_SCALE, n_samples=1, n_iter=count - there,
        seed=seed if seed < 0 else seed + there, skip_grid=True, skip_save=True,
    )  # fmt: skip
    return len(txt2img(options, model, Watch(on_result=keep)))
