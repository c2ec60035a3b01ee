"""Prompts to conditions, with the weights that people give words in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ldm.modules.encoders.conditioner import GeneralConditioner
from ldm.modules.encoders.learned_words import placeholders_of
from ldm.modules.encoders.long_prompts import chunks_of, places_in_chunks, positions_before
from ldm.modules.encoders.long_prompts import equally_long as repeated
from ldm.modules.encoders.multilingual import Multilingual
from ldm.modules.encoders.prompt_weights import Span, Weighted, read_weights
from ldm.util import UserError
from ldm.workflows.guide.places import encoder_of, pieces_of, places, row_of
from ldm.workflows.long_prompts import in_chunks

MEAN_KEPT = ("clip", "openclip")  # families whose context has a mean that weights would shift; BERT's has none


def read_prompt(model: Any, prompt: str) -> Weighted:
    """A prompt's text and weights; what is a learned word of the model stays as it is.

    Raises:
        UserError: a weight that means nothing.
    """
    return read_weights(prompt, placeholders_of(model.embedding_manager))


def conditions(
    model: Any,
    prompts: Sequence[str],
    negative_prompt: str,
    size: tuple[int, int],
    guided: bool,
    away: Mapping[str, Any] | None = None,
    **given: Any,
) -> tuple[Any, Any]:
    """What pictures of ``size`` (h, w of their latents) are led to, and what away from (None if not ``guided``).

    Args:
        given: what the model's condition takes besides.
        away: what guidance leads away from besides the negative prompt.

    Raises:
        UserError: weights that mean nothing, or for words that have no place of their own.
    """
    read = [read_prompt(model, prompt) for prompt in prompts]
    plain = model.condition([one.text for one in read], size=size, **given)
    if not guided:
        return weighted(model, plain, read), None
    negative = read_prompt(model, negative_prompt)
    plain, other = equally_long(plain, model.unconditional(plain, negative.text, **(away or {})))
    return weighted(model, plain, read), other if other is None else weighted(model, other, [negative] * len(read))


def equally_long(condition: Any, away: Any) -> tuple[Any, Any]:
    """Two conditions whose contexts [B, N, D] guidance can put side by side: each as often as both are equally long."""
    if away is None or "c_crossattn" not in condition:
        return condition, away
    pairs = zip(condition["c_crossattn"], away["c_crossattn"], strict=True)
    here, there = zip(*(repeated(pair, dim=1) for pair in pairs), strict=True)
    return {**condition, "c_crossattn": list(here)}, {**away, "c_crossattn": list(there)}


def weighted(model: Any, condition: dict[str, Any], read: Sequence[Weighted]) -> dict[str, Any]:
    """A condition with the words' weights on its contexts [B, N, D]; as it is where no word has any.

    Each token's vector is multiplied by its weight. In CLIP's contexts, whose mean is not 0, that of each chunk of each
    encoder is then brought back to what it was: so the programs do it whose users' weights these are, but picture by
    picture.

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
    rows = [token_weights(model, one, length) for one in read]
    weights = torch.stack([row.repeat(context.shape[1] // len(row)) for row in rows]).to(context)
    before = context.unflatten(1, (-1, length))
    after = before * weights.unflatten(1, (-1, length))[..., None]
    if kept:
        encoder = model.cond_stage_model
        several = encoder.context_widths if isinstance(encoder, GeneralConditioner) else [context.shape[2]]
        pairs = zip(before.split(several, dim=3), after.split(several, dim=3), strict=True)
        after = torch.cat([_with_mean_of(own, changed) for own, changed in pairs], dim=3)
    same = (weights == 1).unflatten(1, (-1, length)).all(dim=2)
    return torch.where(same[..., None, None], before, after).flatten(1, 2)


def _with_mean_of(wanted: Tensor, changed: Tensor) -> Tensor:
    """Chunks [B, K, N, D] in proportion to ``changed``, each with the mean that it has in ``wanted``."""
    means = [chunks.float().mean(dim=(2, 3), keepdim=True) for chunks in (wanted, changed)]
    return changed * (means[0] / means[1]).to(changed)


def token_weights(model: Any, read: Weighted, length: int) -> Tensor:
    """The weight of each of a context's places, float32: of ``length``, or of so many for each chunk of a long prompt
    and for each word that has a part beside the context.

    Raises:
        UserError: a word of a prompt in another language is not found in what that is read as.
    """
    if in_chunks(model):
        return _in_chunks(model, read)
    weights = torch.ones(length)
    for span in read.spans:
        for place in _places_of(model, read.text, span):
            if place < length - 1:
                weights[place] = span.weight
    return torch.cat([weights, *_weights_beside(model, read.text, weights)])


def _weights_beside(model: Any, text: str, weights: Tensor) -> Iterator[Tensor]:
    """Those of the parts [N] that a prompt's words have beside its context, each as its word in ``weights`` [N]."""
    words = model.embedding_manager
    beside = {} if words is None else words.beside(0)
    row = row_of(model, text) if beside else []
    for name in beside:
        if words.token(name) in row:
            yield weights[row.index(words.token(name))].expand(len(weights))


def _in_chunks(model: Any, read: Weighted) -> Tensor:
    encoder, words = encoder_of(model), model.embedding_manager
    weights = torch.ones(len(chunks_of(encoder, read.text, words)) * encoder.max_length)
    places = places_in_chunks(encoder, read.text, words)
    for span in read.spans:
        first, end = (positions_before(encoder, read.text[:cut], words) for cut in (span.start, span.end))
        weights[places[first:end]] = span.weight
    return weights


def _places_of(model: Any, text: str, span: Span) -> Sequence[int]:
    """Where in the context the tokens of a part of a text are; none for signs without any."""
    words, encoder = text[span.start : span.end], encoder_of(model)
    if isinstance(encoder, Multilingual) and encoder.is_foreign(text):
        found = places(model, text, words) if words.strip() else []
        return [place for occurrence in found for place in occurrence]
    first, end = (len(pieces_of(model, text[:cut])) for cut in (span.start, span.end))
    return range(1 + first, 1 + end)
