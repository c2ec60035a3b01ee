"""Where attention looks: a picture is inverted, or made of a prompt, and the network is asked again at chosen steps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ldm.control import FeatureStore, Save, SaveResidual, Sites, attention_mode
from ldm.control.seam import Mode
from ldm.models.diffusion.guidance import expand_condition
from ldm.models.diffusion.loop import Level, Snapshot, ask, beginning
from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.sampling import sample
from ldm.pictures.images import check_size
from ldm.pictures.sizing import Picture
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.inversion.empty_prompt import EmptyPrompt
from ldm.workflows.inversion.invert import invert_with_features, unet_of
from ldm.workflows.look.inspection import Size, Spot, cells, grid_of
from ldm.workflows.pictures import pictures_of
from ldm.workflows.studio import Studio


@dataclass(frozen=True)
class Course:
    """A picture's way through the noise: the latent [1, C, h, w] that the network saw, and the level, by timestep."""

    image: Image.Image
    visited: Mapping[float, Tensor]
    levels: Mapping[float, Level]
    context: Any

    @property
    def size(self) -> Size:
        """(height, width) of the picture."""
        return self.image.height, self.image.width

    @property
    def latent(self) -> Size:
        """(height, width) of the latent."""
        height, width = next(iter(self.visited.values())).shape[-2:]
        return height, width


@torch.no_grad()
def course_of_picture(model: Any, picture: Picture, prompt: str, steps: int, progress: bool = False) -> Course:
    """The DDIM inversion of a picture under a prompt, which may be empty, by a Studio or a model.

    Raises:
        UserError: the number of steps does not fit the schedule.
    """
    studio = Studio.of(model, "full")
    model = studio.model
    with studio.lock:
        z = clean_latent(model, picture.tensor())
        size = (z.shape[-2], z.shape[-1])
        context = model.condition([prompt], size=size) if prompt else EmptyPrompt(model).at(size)
        inversion = invert_with_features(model, z, context, steps=steps, progress=progress)
    levels = {level.told: level for level in model.schedule.upwards(steps)[:-1] if level.noise}
    visited = {timestep: inversion.seen(level) for timestep, level in levels.items()}
    return Course(picture.image(), visited, levels, context)


@torch.no_grad()
def course_of_prompt(
    model: Any, prompt: str, size: Size, *, steps: int, seed: int, guidance_scale: float, noise_scale: float = 1.0,
    progress: bool = False,
) -> Course:
    """A picture made of a prompt by DDIM, of a size (height, width); what is looked at is the side with the prompt.

    Args:
        noise_scale: times the start noise.

    Raises:
        UserError: the size or the number of steps does not fit the model, or it gave no picture.
    """
    studio = Studio.of(model, "full")
    model = studio.model
    factor = int(model.first_stage_model.factor)
    check_size(size[1], size[0], factor)
    shape = (model.channels, size[0] // factor, size[1] // factor)
    noise = noise_scale * ImageNoise([seed]).draw(shape).to(model.device)
    after: dict[Level, Tensor] = {}

    def keep(step: Snapshot) -> None:
        after[step.level] = step.x

    with studio.lock:
        context = model.condition([prompt], size=shape[1:])
        uncond = model.unconditional(context) if guidance_scale != 1 else None
        z = sample(
            model, noise, context, steps=steps, guidance_scale=guidance_scale, uncond=uncond, callback=keep,
            progress=progress,
        )  # fmt: skip
        (image,) = pictures_of(studio, z)
    levels = {level.told: level for level in after}
    start = beginning(noise, next(iter(after)))
    visited = {next(iter(levels)): start} | {later.told: after[here] for here, later in itertools.pairwise(after)}
    return Course(image, visited, levels, context)


@torch.no_grad()
def look(model: Any, course: Course, modes: Mapping[Sites, Mode], timesteps: Sequence[float]) -> None:
    """Ask the network of a Studio or a model again at some timesteps, under modes that keep what it does."""
    studio = Studio.of(model, "full")
    model, context = studio.model, expand_condition(course.context, 1)
    for timestep in timesteps:
        with studio.lock, attention_mode(unet_of(model), dict(modes)):
            ask(model, course.visited[timestep].to(model.device), course.levels[timestep], context)


def attention_to(
    model: Any, course: Course, layers: Sites, timesteps: Sequence[float], heads: Sequence[int] | None, *,
    spots: Sequence[Spot] = (), words: Sequence[int] = (),
) -> dict[tuple[str, float], NDArray[np.float32]]:  # fmt: skip
    """Maps [rows, columns] by layer and timestep, means over the heads.

    With ``spots`` it is where the queries at those places look (self-attention; each map sums to 1), with ``words`` how
    much each place looks at these positions of the context (cross-attention; a part of 1 at each place).
    """
    store = FeatureStore(dtype=torch.float32, device="cpu")
    positions = queries_at(model, course, layers, spots)
    modes = {Sites((site,)): Save(store, "probs", heads=heads, queries=positions[site]) for site in layers}
    look(model, course, modes, timesteps)
    maps = {}
    for site, timestep in itertools.product(layers, timesteps):
        probs = store.at(site, timestep, "probs")[0].mean(dim=0)
        flat = probs[:, list(words)].sum(dim=1) if words else probs.mean(dim=0)
        maps[site, timestep] = flat.reshape(grid_of(course.latent, flat.numel())).numpy()
    return maps


def queries_at(model: Any, course: Course, layers: Sites, spots: Sequence[Spot]) -> dict[str, list[int] | None]:
    """The positions of some places at each layer, found by asking the network once; None (all) without any place."""
    if not spots:
        return dict.fromkeys(layers)
    store = FeatureStore(device="cpu")
    timestep = next(iter(course.visited))
    look(model, course, {layers: Save(store, "q", heads=[0])}, [timestep])
    grids = {site: grid_of(course.latent, store.at(site, timestep, "q").shape[2]) for site in layers}
    return {site: cells(spots, course.size, grid) for site, grid in grids.items()}


def features_of(
    model: Any, course: Course, layers: Sites, timesteps: Sequence[float], heads: Sequence[int] | None, name: str
) -> dict[tuple[str, float], tuple[Tensor, Size]]:
    """q, k or v of all heads side by side, or what a residual block adds: [positions, width] with its grid."""
    store = FeatureStore(dtype=torch.float32, device="cpu")
    mode = SaveResidual(store) if name == "residual" else Save(store, name, heads=heads)
    look(model, course, {layers: mode}, timesteps)
    found: dict[tuple[str, float], tuple[Tensor, Size]] = {}
    for site, timestep in itertools.product(layers, timesteps):
        feature = store.at(site, timestep, name)[0]
        if name == "residual":
            _, height, width = feature.shape
            found[site, timestep] = (feature.flatten(1).T, (height, width))
        else:
            values = feature.transpose(0, 1).flatten(1)
            found[site, timestep] = (values, grid_of(course.latent, values.shape[0]))
    return found


def keep(
    model: Any, course: Course, layers: Sites, timesteps: Sequence[float], heads: Sequence[int] | None,
    spots: Sequence[Spot] = (),
) -> FeatureStore:  # fmt: skip
    """q and k whole, and sim, the scaled logits, of the queries at some places (of all without any)."""
    store = FeatureStore(dtype=torch.float16, device="cpu")
    positions = queries_at(model, course, layers, spots)
    sims = {Sites((site,)): Save(store, "sim", heads=heads, queries=positions[site]) for site in layers}
    with attention_mode(unet_of(model), {layers: Save(store, "qk", timesteps, heads)}):
        look(model, course, sims, timesteps)
    return store
