"""Prompts to conditions, with the weights that people give words in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ldm.modules.encoders.learned_words import placeholders_of
from ldm.modules.encoders.long_prompts import equally_long as repeated
from ldm.modules.encoders.multilingual import Multilingual
from ldm.modules.encoders.prompt_weights import Span, Weighted, read_weights
from ldm.util import UserError
from ldm.workflows.guide.places import encoder_of, pieces_of, places

MEAN_KEPT = ("clip", "openclip")  # families whose context has a mean that weights would shift; BERT's has none


def read_prompt(model: Any, prompt: str) -> Weighted:
    """A prompt's text and weights; what is a learned word of the model stays as it is.

    Raises:
        UserError: a weight that means nothing.
    """
    return read_weights(prompt, placeholders_of(model.embedding_manager))


def conditions(
    model: Any, prompts: Sequence[str], negative_prompt: str, size: tuple[int, int], guided: bool, **given: Any
) -> tuple[Any, Any]:
    """What pictures of ``size`` (h, w of their latents) are led to, and what away from (None if not ``guided``).

    Args:
        given: what the model's condition takes besides.

    Raises:
        UserError: weights that mean nothing, or for words that have no place of their own.
    """
    read = [read_prompt(model, prompt) for prompt in prompts]
    plain = model.condition([one.text for one in read], size=size, **given)
    if not guided:
        return weighted(model, plain, read), None
    negative = read_prompt(model, negative_prompt)
    away = model.unconditional(plain, negative.text)
    plain, away = equally_long(plain, away)
    return weighted(model, plain, read), away if away is None else weighted(model, away, [negative] * len(read))


def equally_long(condition: Any, away: Any) -> tuple[Any, Any]:
    """Two conditions whose contexts [B, N, D] guidance can put side by side: each as often as both are equally long."""
    if away is None or "c_crossattn" not in condition:
        return condition, away
    pairs = zip(condition["c_crossattn"], away["c_crossattn"], strict=True)
    here, there = zip(*(repeated(pair, dim=1) for pair in pairs), strict=True)
    return {**condition, "c_crossattn": list(here)}, {**away, "c_crossattn": list(there)}


def weighted(model: Any, condition: dict[str, Any], read: Sequence[Weighted]) -> dict[str, Any]:
    """A condition with the words' weights on its contexts [B, N, D]; as it is where no word has any.

    Each token's vector is multiplied by its weight. In CLIP's contexts, whose mean is not 0, each picture's is then
    brought back to what it was: so the programs do it whose users' weights these are, but picture by picture.

    Raises:
        UserError: words for timesteps, whose context is not there yet; or no place for a weight.
    """
    if not any(one.spans for one in read):
        return condition
    kept = encoder_of(model).family in MEAN_KEPT
    contexts = [_weighted(context, model, read, kept) for context in condition["c_crossattn"]]
    return {**condition, "c_crossattn": contexts}


def _weighted(context: Tensor, model: Any, read: Sequence[Weighted], kept: bool) -> Tensor:
    if not context.is_floating_point():
        raise UserError("weights in a prompt do not go together with words for timesteps; leave one of them out")
    length = encoder_of(model).max_length
    if context.shape[1] % length:
        raise UserError("weights in a prompt mean nothing to this model, which does not see its words one by one")
    weights = torch.stack([token_weights(model, one, length) for one in read]).to(context)
    factors = weights.repeat(1, context.shape[1] // length)[..., None]
    changed = context * factors
    if kept:
        before, after = (values.float().mean(dim=(1, 2), keepdim=True) for values in (context, changed))
        changed = changed * (before / after).to(context)
    same = (weights == 1).all(dim=1)
    return torch.where(same[:, None, None], context, changed)


def token_weights(model: Any, read: Weighted, length: int) -> Tensor:
    """The weight of each of a context's ``length`` places, float32.

    Raises:
        UserError: a word of a prompt in another language is not found in what that is read as.
    """
    weights = torch.ones(length)
    for span in read.spans:
        for place in _places_of(model, read.text, span):
            if place < length - 1:
                weights[place] = span.weight
    return weights


def _places_of(model: Any, text: str, span: Span) -> Sequence[int]:
    """Where in the context the tokens of a part of a text are; none for signs without any."""
    words, encoder = text[span.start : span.end], encoder_of(model)
    if isinstance(encoder, Multilingual) and encoder.is_foreign(text):
        found = places(model, text, words) if words.strip() else []
        return [place for occurrence in found for place in occurrence]
    first, end = (len(pieces_of(model, text[:cut])) for cut in (span.start, span.end))
    return range(1 + first, 1 + end)
