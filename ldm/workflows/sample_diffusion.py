"""Pictures of no prompt, many of them: what ``scripts/sample_diffusion.py`` does, as a function."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ldm.pictures.images import save_image
from ldm.pictures.numbered import free_path
from ldm.runs import LAST
from ldm.seeds import settled_seed
from ldm.shipped import here_or_shipped
from ldm.util import UserError, atomic_write, writable_folder
from ldm.workflows.batches import Batch, batches
from ldm.workflows.files import CONFIG, WEIGHTS
from ldm.workflows.generate import generate
from ldm.workflows.plan import Plan, make_plan
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio, open_studio

log = logging.getLogger(__name__)

IN_A_FOLDER = ("model.ckpt", WEIGHTS, "last.ckpt", *LAST)
SHIPPED_OUTPUT = "outputs/sample_diffusion"


@dataclass
class SampleDiffusionOptions:
    """How many pictures of which model, and how; the defaults are those of latent diffusion's command."""

    resume: str | None = None  # a checkpoint, its folder, or that of a run; None: the small model
    config: str | None = None  # None: config.yaml beside the weights, or what the run kept
    n_samples: int = 50_000
    batch_size: int = 10
    steps: int = 50
    eta: float = 1.0  # fresh noise in DDIM: 0 none, 1 as DDPM
    vanilla: bool = False  # every step of the training, as DDPM
    logdir: str | None = None  # None: beside the checkpoint
    seed: int = 42
    precision: str = "autocast"
    device: str | None = None
    progress: bool = True


def sample_diffusion(options: SampleDiffusionOptions, model: Any = None) -> Path:
    """Make pictures of no prompt (of the empty one, without guidance), and return the folder that they are in.

    They are ``<logdir>/samples/<time>/img/sample_000000.png`` and on, each saved with its batch, and as one array
    [N, H, W, 3] in ``numpy``; picture n has the seed ``seed`` + n, at any batch size.

    Args:
        options: see ``SampleDiffusionOptions``.
        model: a ``Studio`` or a LatentDiffusion; None opens what the options name.

    Raises:
        UserError: a file or a number does not fit, or the model needs more than nothing.
    """
    for name in ("n_samples", "batch_size"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(options, name)}")
    seed = settled_seed(options.seed, options.n_samples)
    ckpt, config = weights_of(options.resume, options.config)
    home = Path(options.logdir or (SHIPPED_OUTPUT if ckpt is None else _home(ckpt)))
    writable_folder(home, "--logdir")
    studio = Studio.of(model, options.precision) if model is not None else open_studio(
        ckpt, config, device=options.device, precision=options.precision
    )  # fmt: skip
    plan = _plan(options, studio)
    folder = free_path(home / "samples" / time.strftime("%Y-%m-%d-%H-%M-%S"))
    row = [""] * options.n_samples
    arrays: list[NDArray[np.uint8]] = []
    with studio.lock, tqdm(total=options.n_samples, desc="pictures", disable=not options.progress) as bar:
        for batch in batches(row, options.batch_size, 1, seed):
            arrays += list(_saved(studio, plan, batch, folder / "img", first=len(arrays)))
            bar.update(len(batch.prompts))
    shape = "x".join(map(str, (len(arrays), *arrays[0].shape)))
    path = writable_folder(folder / "numpy", "--logdir") / f"{shape}-samples.npz"
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, np.stack(arrays))
    return folder


def weights_of(resume: str | None, config: str | None) -> tuple[Path | None, Path | None]:
    """The checkpoint and the configuration that ``resume`` means; (None, None) for the small model.

    Raises:
        UserError: there is no checkpoint in the folder.
    """
    if resume is None:
        if config is not None:
            raise UserError(f"--config '{config}' needs the weights that go with it: add -r CHECKPOINT")
        return None, None
    place = Path(here_or_shipped(resume))
    if not place.is_dir() or (place / "model_index.json").is_file():
        ckpt, kept = place, sorted(place.parent.parent.glob("configs/*-project.yaml"))
    else:
        found = next((place / name for name in IN_A_FOLDER if (place / name).is_file()), None)
        if found is None:
            raise UserError(f"there is no checkpoint in '{place}': {', '.join(IN_A_FOLDER)} would be right")
        ckpt, kept = found, sorted(place.glob("configs/*-project.yaml"))
    if config is not None:
        return ckpt, Path(config)
    return ckpt, None if (ckpt.parent / CONFIG).is_file() or not kept else kept[-1]


def _home(ckpt: Path) -> Path:
    """The folder of a checkpoint, or of the run that it is of."""
    return ckpt.parent.parent if ckpt.parent.name == "checkpoints" else ckpt.parent


def _plan(options: SampleDiffusionOptions, studio: Studio) -> Plan:
    """Without guidance; ``vanilla`` is DDPM's posterior step by step, which an ancestral step of Euler's is."""
    chosen = Txt2ImgOptions(
        prompt="", steps=options.steps, eta=options.eta, sampler="ddim", guidance_scale=1.0, settle=0
    )
    if options.vanilla:
        chosen = replace(chosen, steps=int(studio.model.num_timesteps), eta=0.0, sampler="euler_ancestral")
    return make_plan(chosen, studio)


def _saved(studio: Studio, plan: Plan, batch: Batch, folder: Path, first: int) -> Iterator[NDArray[np.uint8]]:
    """The pictures of a batch [H, W, 3], each saved under its number."""
    writable_folder(folder, "--logdir").mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(generate(studio, plan, batch)):
        about = {"prompt": "", "seed": batch.seeds[number], **plan.about()}
        save_image(image, folder / f"sample_{first + number:06}.png", about)
        yield np.asarray(image)
