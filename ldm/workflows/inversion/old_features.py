"""Features of the original StyleID: a pickled list of dictionaries, one a step, read as data and checked."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.checkpoint import read_file
from ldm.control import FeatureStore, Save, Sites, attention_mode, sites
from ldm.control.seam import Mode
from ldm.models.diffusion.guidance import expand_condition
from ldm.models.diffusion.loop import Level, ask
from ldm.util import UserError
from ldm.workflows.inversion.invert import Inversion, unet_of

LATENT = "z_enc"
NAME = re.compile(r"(?:layer|output_block)_?(\d+)_(?:self_attn_)?([qkv])")  # decoder block, feature
SAME = 0.9  # cosine similarity; rounding and a sampled posterior leave more than 0.99, another model less than 0.5


def read_old_features(
    path: str | os.PathLike[str], model: Any, context: Any, clean: Tensor, dtype: torch.dtype | None = torch.float16
) -> Inversion:
    """An inversion with its features from an old file, in which nothing is executed.

    Index i of the list is that of the level, the noisiest first (50 steps: 981 - 20 i). An entry holds ``z_enc``, the
    latent [1 C h w] after the step at that level, and tensors [heads, positions, width] of decoder blocks.

    Args:
        clean: the picture's latent [1, C, h, w], where the inversion began; the file does not have it.
        dtype: what features are kept in; None: as they are.

    Raises:
        UserError: the file cannot be read, is of another kind, or was made of another picture or by another model.
    """
    entries = _entries(path)
    levels = model.schedule.upwards(len(entries))[:-1]
    if len(levels) != len(entries):
        raise UserError(f"'{path}' is of a model with a table of betas, as the original StyleID knows; this is another")
    after = [_latent(entry, index, path, clean) for index, entry in enumerate(entries)]
    seen = [*after[1:], clean.float().cpu()]
    store = FeatureStore(dtype)
    found: dict[int, Sites] = {}
    for level in levels:
        for name, feature in entries[level.index].items():
            match = NAME.fullmatch(str(name))
            if match is None or not isinstance(feature, Tensor):
                continue
            block = int(match[1])
            found[block] = found.get(block) or sites(unet_of(model), block)
            whole = feature[None] if feature.ndim == 3 else feature
            store.put(found[block].names[0], level.index, match[2], whole.cpu(), level.told)
    if not len(store):
        raise UserError(f"'{path}' holds no features: keys like output_block_6_self_attn_q or layer6_q were expected")
    visited = {level.index: seen[level.index] for level in levels}
    inversion = Inversion(visited, {level.index: level.told for level in levels}, after[0], store)
    _check(path, inversion, store, model, context)
    return inversion


def _entries(path: str | os.PathLike[str]) -> Sequence[Mapping[str, Any]]:
    value = read_file(path)
    if not isinstance(value, list) or not value or not all(isinstance(entry, Mapping) for entry in value):
        raise UserError(f"'{path}' holds no features of the original StyleID: a list of dictionaries, one a step")
    return value


def _latent(entry: Mapping[str, Any], index: int, path: str | os.PathLike[str], clean: Tensor) -> Tensor:
    latent = entry.get(LATENT)
    if not isinstance(latent, Tensor):
        raise UserError(f"entry {index} of '{path}' has no latent '{LATENT}', so the inversion cannot be taken over")
    if latent.shape[-3:] != clean.shape[-3:] or latent.numel() != clean.numel():
        (high, wide), (h, w) = latent.shape[-2:], clean.shape[-2:]
        raise UserError(
            f"'{path}' has latents of {wide}x{high}, this picture gives {w}x{h}: "
            "the original cut out a square of 512x512, so --crop may be missing"
        )
    return latent.float().cpu().reshape(clean.shape)


@torch.no_grad()
def _check(path: str | os.PathLike[str], inversion: Inversion, store: FeatureStore, model: Any, context: Any) -> None:
    """Compare features at one level with what the model computes, and the first step with that from the picture."""
    own = FeatureStore(dtype=None)
    levels = model.schedule.upwards(len(inversion.visited))
    noisiest = next(level for level in reversed(levels) if level.index in store.told)
    _ask(model, inversion, noisiest, context, {Sites(tuple(store.sites)): Save(own)})
    for key in (key for key in store if key[1] == noisiest.index):
        kept, computed = store.get(*key), own.get(*key).cpu()
        if kept.shape != computed.shape or _similarity(kept, computed) < SAME:
            site, _, name = key
            raise UserError(f"'{path}' was made by another model: its {name} of '{site}' is not what this one computes")
    clean, there = levels[:2]
    out = _ask(model, inversion, clean, context, {}).cpu()
    expected = there.noised(*model.schedule.estimate(out, inversion.seen(clean), clean))
    if _similarity(inversion.after(clean), expected) < SAME:
        raise UserError(f"'{path}' is of another picture: its latents do not begin with this one's")


def _ask(model: Any, inversion: Inversion, level: Level, context: Any, modes: dict[Sites, Mode]) -> Tensor:
    """The network's output for the latent that it saw at a level."""
    with attention_mode(unet_of(model), modes):
        return ask(model, inversion.seen(level).to(model.device), level, expand_condition(context, 1))


def _similarity(a: Tensor, b: Tensor) -> float:
    return float(F.cosine_similarity(a.flatten().float(), b.flatten().float(), dim=0))
