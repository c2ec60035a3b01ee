"""Prompts in other languages: a multilingual encoder and an aligner in front of a model's own English text encoder."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.checkpoint.transformers_folder import quiet_transformers
from ldm.checkpoint.transformers_trust import check_named
from ldm.languages import check_language, detect_language, simplified
from ldm.modules.encoders.aligner import Aligner, load_aligner
from ldm.modules.encoders.base import EmbeddingChange, TextEncoder
from ldm.modules.encoders.learned_words import placeholders_of, split_at
from ldm.util import UserError

log = logging.getLogger(__name__)

AUTO = "auto"


@dataclass(frozen=True)
class States:
    """What a multilingual encoder makes of B sentences."""

    states: Tensor  # [B, M, E], zero where there is no token
    mask: Tensor  # [B, M] bool, True where there is one
    slots: list[list[tuple[int, str]]]  # for each sentence: token number and placeholder


class MultilingualEncoder(nn.Module):
    """Any encoder that transformers reads, with its tokenizer.

    Placeholders, which the tokenizer does not know, stand in its sentences as its mask token.

    Args:
        source: a folder, or a hub id, which is looked for in the local cache before the network.
        max_length: tokens that are kept of a sentence.

    Raises:
        UserError: there is no such encoder, or its tokenizer has neither a mask token nor one for the unknown.
    """

    def __init__(self, source: str, max_length: int = 128) -> None:
        super().__init__()
        self.source = source
        self.tokenizer, model = _from_pretrained(source)
        self.model = model.get_encoder() if model.config.is_encoder_decoder else model
        for name, parameter in self.model.named_parameters():
            if name.startswith("pooler."):  # token states are all that is read, so there is nothing for it to learn
                parameter.requires_grad_(False)
        limits = [self.tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", max_length)]
        self.max_length = int(min([max_length, *limits]))
        self.slot = self.tokenizer.mask_token or self.tokenizer.unk_token
        if self.slot is None:
            raise UserError(f"the tokenizer of '{source}' has no mask token to stand for learned words")

    @property
    def width(self) -> int:
        """E, of the token states."""
        return int(self.model.config.hidden_size)

    def forward(self, texts: Sequence[str], placeholders: Sequence[str] = ()) -> States:
        """Sentences, with placeholders in them, -> token states."""
        device = next(self.model.parameters()).device
        taken = [_take_out(text, placeholders, self.slot) for text in texts]
        batch = self.tokenizer(
            [text for text, _ in taken], padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        slot = self.tokenizer.convert_tokens_to_ids(self.slot)
        slots = []
        for row, (_, names) in zip(ids, taken, strict=True):
            places = (row == slot).nonzero().flatten().tolist()
            slots.append(list(zip(places, names, strict=False)))  # a long sentence may have lost its last ones
        return States(states.float() * mask[..., None], mask.bool(), slots)


def _take_out(text: str, placeholders: Sequence[str], slot: str) -> tuple[str, list[str]]:
    """The text with every placeholder replaced by ``slot``, and the placeholders in order."""
    pieces = list(split_at(text.replace(slot, " "), placeholders))  # what a person writes is not a slot
    names = [name for _, name in pieces if name is not None]
    return f" {slot} ".join(before for before, _ in pieces), names


def _simplified(text: str, placeholders: Sequence[str]) -> str:
    """A text in simplified characters; learned words in it stay as they are written."""
    if detect_language(text) != "zh":
        return text
    pieces = split_at(text, placeholders)
    return "".join(simplified(before) + (name or "") for before, name in pieces)


def _from_pretrained(source: str) -> tuple[Any, Any]:
    """Tokenizer and model, from a folder, the local cache or the network, in this order; weights in float32."""
    from transformers import AutoModel, AutoTokenizer  # imported here: it takes seconds, and English does without

    if not Path(source).exists() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise UserError(f"there is no folder '{source}' with a multilingual encoder")
    if Path(source).is_dir():
        check_named(Path(source))
    problem: Exception | None = None
    for local in (True, False):
        if not local and Path(source).exists():
            break
        try:
            with quiet_transformers():
                given: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
                tokenizer = AutoTokenizer.from_pretrained(source, **given)
                model = AutoModel.from_pretrained(source, dtype=torch.float32, **given)
        except (OSError, ValueError, KeyError) as error:
            problem = error
        else:
            return tokenizer, model.eval()
    reason = " ".join(str(problem).split())[:160]
    raise UserError(f"'{source}' gives no multilingual encoder with its tokenizer: {reason}") from problem


@dataclass(frozen=True)
class Reading:
    """B foreign sentences as the English encoder's input."""

    tokens: Tensor  # [B, N] the nearest English tokens, and those of placeholders; which vectors to replace
    vectors: Tensor  # [B, N, D] before positions


class ForeignReader:
    """A multilingual encoder and an aligner: sentences in other languages as input of one English encoder."""

    def __init__(self, encoder: MultilingualEncoder, aligner: Aligner) -> None:
        """Raises UserError: the two do not belong together."""
        if encoder.width != aligner.sizes.source_width:
            raise UserError(
                f"the aligner reads states of width {aligner.sizes.source_width}, but those of '{encoder.source}' "
                f"have {encoder.width}; take the encoder that it was trained with"
            )
        self.encoder = encoder
        self.aligner = aligner

    @classmethod
    def from_file(cls, path: str | Path) -> ForeignReader:
        """The aligner in ``path`` with the encoder that it names; a folder beside the file goes before a hub id."""
        aligner, about = load_aligner(path)
        beside = Path(path).parent / about["encoder"]
        encoder = MultilingualEncoder(str(beside) if beside.is_dir() else about["encoder"])
        return cls(encoder.eval().requires_grad_(False), aligner)

    def check(self, english: TextEncoder) -> None:
        """Raises UserError: the aligner was made for an encoder of other sizes."""
        made_for = (self.aligner.sizes.length, self.aligner.sizes.target_width)
        here = (english.max_length, english.width)
        if made_for != here:
            raise UserError(
                f"the aligner was made for a text encoder of {made_for[0]} tokens of width {made_for[1]}; "
                f"this model's has {here[0]} of width {here[1]}"
            )

    def to(self, device: torch.device) -> ForeignReader:
        """The same, with its weights on ``device``."""
        self.encoder.to(device)
        self.aligner.to(device)
        return self

    def read(self, texts: Sequence[str], table: Tensor, placeholders: Mapping[str, int]) -> Reading:
        """Foreign sentences -> input of the English encoder.

        Args:
            texts: B sentences.
            table: [V, D], the English encoder's token vectors.
            placeholders: learned words, and the token ids that stand for them.
        """
        found = self.encoder([_simplified(text, tuple(placeholders)) for text in texts], tuple(placeholders))
        vectors, places = self.aligner(found.states, found.mask)
        distances = torch.cdist(vectors.detach(), table.detach().float())
        own = [token for token in placeholders.values() if token >= 0]
        distances[..., own] = torch.inf  # no word may be taken for a learned one
        tokens = distances.argmin(dim=-1)
        for row, slots in enumerate(found.slots):
            for place, name in assign(places[row], slots):
                tokens[row, place] = placeholders[name]
        return Reading(tokens, vectors)


def assign(places: Tensor, slots: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Each placeholder's position in the English sequence, from logits [M, N]; the surest first, none taken twice."""
    scores = torch.stack([places[token].softmax(dim=-1) for token, _ in slots]) if slots else places[:0]
    scores = scores.detach().clone()
    taken = []
    for _ in range(min(scores.shape)):
        which, position = divmod(int(scores.argmax()), scores.shape[1])
        taken.append((position, slots[which][1]))
        scores[which], scores[:, position] = -1.0, -1.0
    return taken


class Multilingual(TextEncoder):
    """Mixed into a text encoder, it makes it read other languages; English goes the old way.

    The encoder's weights keep their keys: the aligner is no submodule. It is read from its file at the first foreign
    prompt. ``language`` says which way prompts go: "auto" looks at each prompt's script, a language is taken as given.
    """

    aligner: str | None = None  # the aligner's file
    language = AUTO
    _reader: ForeignReader | None = None

    @property
    def reader(self) -> ForeignReader:
        """What reads foreign prompts, loaded at the first use.

        Raises:
            UserError: the configuration names no aligner, or one that was made for another model.
        """
        if self._reader is None:
            if self.aligner is None:
                raise UserError(
                    "this model reads English only: its text encoder's configuration names no 'aligner'; "
                    "docs/languages.md says how to train one"
                )
            reader = ForeignReader.from_file(self.aligner)
            reader.check(self)
            self._reader = reader
        return self._reader

    @contextlib.contextmanager
    def speaking(self, language: str) -> Iterator[None]:
        """Within the block prompts are in ``language``: "auto", "en", "ko" or "zh".

        Raises:
            UserError: another one.
        """
        before, self.language = self.language, check_language(language, AUTO)
        try:
            yield
        finally:
            self.language = before

    def is_foreign(self, text: str) -> bool:
        """Whether a prompt takes the way through the aligner; an empty one never does."""
        language = detect_language(text) if self.language == AUTO else self.language
        return bool(text.strip()) and language != "en"

    def forward(self, text: str | Sequence[str] | Tensor, embedding_manager: EmbeddingChange | None = None) -> Tensor:
        """Texts in any language, or English token ids [B, N], -> context [B, N, D]; see ``TextEncoder.forward``."""
        if isinstance(text, Tensor):
            return super().forward(text, embedding_manager)
        texts = [text] if isinstance(text, str) else list(text)
        foreign = [row for row, sentence in enumerate(texts) if self.is_foreign(sentence)]
        if not foreign:
            return super().forward(texts, embedding_manager)
        learned = placeholders_of(embedding_manager)
        reading = self.reading([texts[row] for row in foreign], learned)
        tokens = self.tokenize(texts, learned).to(self.device)
        tokens[foreign] = reading.tokens

        def change(tokens: Tensor, embedded: Tensor) -> Tensor:
            embedded = embedded.clone()
            embedded[foreign] = reading.vectors.to(embedded.dtype)
            return embedded if embedding_manager is None else embedding_manager(tokens, embedded)

        return self.encode_tokens(tokens, change)

    def fits(self, text: str, words: Any = None) -> bool:
        if not self.is_foreign(text):
            return super().fits(text, words)
        encoder = self.reader.encoder
        return len(encoder.tokenizer(text)["input_ids"]) <= encoder.max_length

    def translate(self, texts: Sequence[str], placeholders: Sequence[str] = ()) -> list[str]:
        """The English that foreign sentences are read as: the nearest tokens, for people to look at."""
        with torch.no_grad():
            reading = self.reading(texts, placeholders)
        names = {self.placeholder_id(name): name for name in placeholders}
        return [self._decoded(row, names) for row in reading.tokens.tolist()]

    def _decoded(self, row: Sequence[int], names: Mapping[int, str]) -> str:
        """Ids as text; learned words that are no tokens under their own names."""
        tokenizer: Any = self.tokenizer
        parts: list[str] = []
        for learned, group in itertools.groupby(row, key=lambda token: token < 0):
            ids = list(group)
            parts += [names[token] for token in ids] if learned else tokenizer.decode(torch.tensor([ids]))
        return " ".join(filter(None, parts))

    def reading(self, texts: Sequence[str], placeholders: Sequence[str] = ()) -> Reading:
        """Foreign sentences as this encoder's input; see ``ForeignReader.read``."""
        known = {name: self.placeholder_id(name) for name in placeholders}
        return self.reader.to(self.device).read(texts, self.token_embedding.weight, known)
