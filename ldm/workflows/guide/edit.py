"""Edits of a picture by its prompt: from one start noise, or on a photograph; see docs/guidance.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ldm.control import Sites, attention_mode, by_resolution, sites
from ldm.control.edit import Alignment, EditCross, EditSelf, WordMaps
from ldm.control.seam import Mode
from ldm.models.diffusion.guidance import can_join, expand_condition
from ldm.models.diffusion.loop import Before, Level, Snapshot
from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.sampling import sample, step_rule
from ldm.pictures.images import image_to_tensor
from ldm.util import UserError
from ldm.workflows.guide.places import places, row_of
from ldm.workflows.guide.reading import Edit
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.inversion.invert import Inversion, invert_with_features, unet_of
from ldm.workflows.prompts import conditions, read_prompt

BLEND_CELLS = 16  # of the larger side of the maps that a local blend looks at, at most
BLEND_FROM = 0.2  # of the steps: before that the maps say little
Callback = Callable[[Snapshot], None] | None


@dataclass(frozen=True)
class Walk:
    """How an edit is sampled: what of a ``Plan`` counts, with the shape of one latent."""

    steps: int
    sampler: str
    eta: float
    guidance_scale: float
    negative_prompt: str
    shape: tuple[int, int, int]
    noise_scale: float = 1.0
    progress: bool = False


def edited(
    model: Any, edit: Edit, prompts: Sequence[str], seeds: Sequence[int], walk: Walk, callback: Callback = None
) -> tuple[Tensor, Tensor]:
    """Clean latents [n, C, h, w] of some prompts' pictures, and of the same under the edit.

    Raises:
        UserError: a word that is not in its prompt, or a sampler that a photograph cannot be edited with.
    """
    pairs = [(prompt, edit.second(prompt)) for prompt in prompts]
    both = [*prompts, *(second for _, second in pairs)]
    condition, uncond = conditions(model, both, walk.negative_prompt, walk.shape[1:], walk.guidance_scale != 1)
    if uncond is not None and not can_join(uncond, expand_condition(condition, len(both))):
        raise UserError("an edit needs a negative prompt whose context is as long as the prompts'")
    levels = step_rule(walk.sampler, walk.eta).levels(model.schedule, walk.steps)
    course = None if edit.photo is None else _course(model, edit.photo, prompts, walk)
    noise = ImageNoise(list(seeds))
    first = walk.noise_scale * noise.draw(walk.shape).to(model.device)
    start = first if course is None else course.seen(levels[0])
    seen = _word_maps(model, edit, pairs)
    before: list[Before] = [] if course is None else [_on_course(course, len(prompts))]
    if seen is not None:
        before.append(_blend(seen, len(prompts), round(BLEND_FROM * (len(levels) - 1))))
    with attention_mode(unet_of(model), _modes(model, edit, pairs, seen, len(levels) - 1, walk.shape[1:])):
        x = sample(
            model, torch.cat([start, start]), condition, steps=walk.steps, sampler=walk.sampler, eta=walk.eta,
            guidance_scale=walk.guidance_scale, uncond=uncond, noise=lambda: noise.draw(walk.shape).repeat(2, 1, 1, 1),
            start=None if course is None else len(levels) - 1, before=before, callback=callback,
            progress=walk.progress,
        )  # fmt: skip
    if course is not None:
        x = torch.cat([next(iter(course.visited.values())), x[len(prompts) :]])
    if seen is not None:
        x = _blend(seen, len(prompts), 0)(x, levels[-1])
    return x[: len(prompts)], x[len(prompts) :]


def _course(model: Any, photo: Image.Image, prompts: Sequence[str], walk: Walk) -> Inversion:
    """A photograph's way through the noise under each of the prompts."""
    if walk.sampler != "ddim" or walk.eta:
        raise UserError("a photograph is edited along its DDIM inversion: --sampler ddim without --ddim_eta")
    image = image_to_tensor(photo)[None]
    z = clean_latent(model, image.to(model.device))
    texts = [read_prompt(model, prompt).text for prompt in prompts]
    context = model.condition(texts, size=walk.shape[1:])
    return invert_with_features(model, z.expand(len(prompts), -1, -1, -1), context, steps=walk.steps)


def _on_course(course: Inversion, pictures: int) -> Before:
    """Before each step the first pictures are where the inversion was, whatever guidance has made of them."""

    def back(x: Tensor, level: Level) -> Tensor:
        return torch.cat([course.seen(level).to(x), x[pictures:]])

    return back


def _blend(seen: WordMaps, pictures: int, since: int) -> Before:
    """Outside of the words' maps the second picture is the first."""

    def blended(x: Tensor, level: Level) -> Tensor:
        if level.index < max(since, 1) or not seen.sums:
            return x
        first, second = x[:pictures], x[pictures:]
        return torch.cat([first, torch.lerp(first, second, seen.masks((x.shape[-2], x.shape[-1])).to(x))])

    return blended


def _modes(
    model: Any, edit: Edit, pairs: Sequence[tuple[str, str]], seen: WordMaps | None, steps: int, size: tuple[int, int]
) -> Mapping[Sites, Mode]:
    unet = unet_of(model)
    alignments = [_alignment(model, edit, *pair) for pair in pairs]
    until = round(edit.cross_share * steps)
    looked_at = set(_blend_sites(unet, size)) if seen is not None else set()
    modes: dict[Sites, Mode] = {}
    for name in sites(unet, "*", "cross"):
        modes[Sites((name,))] = EditCross(alignments, until, seen if name in looked_at else None)
    modes[sites(unet, "*", "self")] = EditSelf(len(pairs), round(edit.self_share * steps))
    return modes


def _blend_sites(unet: Any, size: tuple[int, int]) -> Sites:
    """The finest maps that are no larger than ``BLEND_CELLS``; the coarsest where all are."""
    levels = by_resolution(unet)
    fitting = [factor for factor in levels if max(size) <= BLEND_CELLS * factor]
    return levels[min(fitting, default=max(levels))]


def _alignment(model: Any, edit: Edit, first: str, second: str) -> Alignment:
    texts = [read_prompt(model, prompt).text for prompt in (first, second)]
    rows = [row_of(model, text) for text in texts]
    weights = torch.ones(len(rows[1]))
    for word, weight in edit.weights.items():
        for place in {place for stand in places(model, texts[1], word) for place in stand}:
            weights[place] = weight
    return Alignment.of(rows[0], rows[1], weights)


def _word_maps(model: Any, edit: Edit, pairs: Sequence[tuple[str, str]]) -> WordMaps | None:
    """The places of the words that a local blend is about; of the words that differ where none are named."""
    if edit.blend is None:
        return None
    found = []
    for pair in pairs:
        texts = [read_prompt(model, prompt).text for prompt in pair]
        rows = [row_of(model, text) for text in texts]
        if edit.blend:
            named = [_named(model, text, edit.blend) for text in texts]
            if not any(named):
                words = ", ".join(edit.blend)
                raise UserError(f"neither '{texts[0]}' nor '{texts[1]}' has a word of --blend '{words}'")
        else:
            named = [[i for i, token in enumerate(a) if i >= len(b) or token not in b] for a, b in (rows, rows[::-1])]
            if not any(named):
                raise UserError("--blend alone takes the words that differ between the prompts, and none do: name some")
        found.append((named[0], named[1]))
    return WordMaps(found)


def _named(model: Any, text: str, words: Sequence[str]) -> list[int]:
    found: list[int] = []
    for word in words:
        try:
            found += [place for stand in places(model, text, word) for place in stand]
        except UserError:
            continue  # a word of the other prompt
    return found
