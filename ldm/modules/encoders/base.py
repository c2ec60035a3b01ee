"""What every conditioning encoder offers, and what textual inversion needs to know about a text encoder."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from ldm.modules.encoders.learned_words import placeholders_of, split_at, stand_in
from ldm.modules.encoders.long_prompts import long_context, tokens_of
from ldm.modules.encoders.needs import Need
from ldm.util import ConfigError, UserError


class EmbeddingChange(Protocol):
    """What an encoder calls between the token embedding and the positions; an EmbeddingManager is one."""

    def __call__(self, tokens: Tensor, embedded: Tensor) -> Tensor:
        """Token ids [B, N] and their vectors [B, N, D] -> the vectors to use; both may be changed in place."""
        ...


class TextTokenizer(Protocol):
    """Text to token ids, padded and cut to one length."""

    @property
    def max_length(self) -> int:
        """The number of ids in a row."""
        ...

    @property
    def unknown(self) -> int | None:
        """The id that stands for text outside the vocabulary."""
        ...

    def __call__(self, text: str | Sequence[str]) -> Tensor:
        """Texts -> ids [B, max_length], long, on the CPU, with the start and end markers."""
        ...

    def pieces(self, text: str) -> list[int]:
        """The ids of a text alone: no markers, no padding, not cut."""
        ...

    def rows(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        """What ``pieces`` gave for texts -> ids [B, max_length], as a call gives them."""
        ...


@runtime_checkable
class TokenSpace(Protocol):
    """What textual inversion needs from a text encoder, whichever family it belongs to."""

    @property
    def family(self) -> str:
        """Whose vocabulary and vectors these are: "bert", "clip" or "openclip"."""
        ...

    @property
    def width(self) -> int:
        """D, the length of a token vector."""
        ...

    @property
    def max_length(self) -> int:
        """N, the number of tokens in a prompt."""
        ...

    def tokenize(self, text: str | Sequence[str], placeholders: Sequence[str] = ()) -> Tensor:
        """Texts -> token ids [B, N]; learned words are found wherever they stand and have their ``placeholder_id``."""
        ...

    def placeholder_id(self, word: str) -> int:
        """The id of a learned word in rows of tokens: its own, or a negative number that no vocabulary has."""
        ...

    def token_of(self, word: str) -> int:
        """The id of a word that is exactly one token; a UserError otherwise."""
        ...

    def pieces_of(self, words: str) -> list[int]:
        """The ids of one or more words, at least one; a UserError where the vocabulary does not have them."""
        ...

    def vector_of(self, token: int) -> Tensor:
        """The vector [D] of a token, before positions, detached."""
        ...

    def initial_vector(self, token: int) -> Tensor:
        """The vector [D] from which textual inversion starts a placeholder when ``token`` is its initial word."""
        ...


class AbstractEncoder(nn.Module):
    """A module that turns a condition (text, label, picture) into what the network is conditioned on."""

    takes: Need | None = None  # what it encodes, where that is not a prompt

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """Condition -> what the network sees, here simply ``forward``."""
        return self(*args, **kwargs)


class IdentityEncoder(AbstractEncoder):
    """Gives back what it gets."""

    def forward(self, x: Any) -> Any:
        return x


class TextEncoder(AbstractEncoder):
    """Text or token ids -> context [B, N, D]; the shared half of the BERT, CLIP and OpenCLIP embedders.

    A subclass sets ``family`` and ``tokenizer`` (or None when it is given token ids only) and defines
    ``token_embedding`` and ``encode_tokens``.
    """

    family: str
    tokenizer: TextTokenizer | None
    frozen = False
    in_chunks = False  # whether longer prompts are encoded in chunks, see ``whole_prompts``
    returns_pooled = False  # whether ``outputs`` has a vector of the whole text, too

    @property
    @abstractmethod
    def token_embedding(self) -> nn.Embedding:
        """The table of token vectors."""

    @abstractmethod
    def encode_tokens(self, tokens: Tensor, embedding_manager: EmbeddingChange | None = None) -> Tensor:
        """Token ids [B, N] on the module's device -> context [B, N, D]."""

    @property
    def device(self) -> torch.device:
        """Where the weights are; tokens are sent there."""
        return self.token_embedding.weight.device

    @property
    def width(self) -> int:
        return self.token_embedding.embedding_dim

    @property
    def max_length(self) -> int:
        """N, the number of tokens in a prompt.

        Raises:
            UserError: there is no tokenizer, which knows it.
        """
        return self._need_tokenizer().max_length

    def forward(self, text: str | Sequence[str] | Tensor, embedding_manager: EmbeddingChange | None = None) -> Tensor:
        """Texts, or token ids [B, N], -> context [B, N, D].

        Args:
            text: one text, several, or token ids; ids are copied, so a manager never changes the caller's.
            embedding_manager: may replace token vectors before positions are added.

        Raises:
            UserError: the tokenizer's files cannot be found, or text was given where only ids can be encoded.
        """
        if isinstance(text, Tensor):
            return self.encode_tokens(text.to(self.device, copy=True), embedding_manager)
        if self.in_chunks:
            return long_context(self, [text] if isinstance(text, str) else text, embedding_manager)
        tokens = self.tokenize(text, placeholders_of(embedding_manager))
        return self.encode_tokens(tokens.to(self.device), embedding_manager)

    def encode(self, text: str | Sequence[str] | Tensor, embedding_manager: EmbeddingChange | None = None) -> Tensor:
        return self(text, embedding_manager=embedding_manager)

    def outputs(
        self, text: str | Sequence[str] | Tensor, embedding_manager: EmbeddingChange | None = None
    ) -> tuple[Tensor, ...]:
        """The context [B, N, D] of texts or token ids and, where ``returns_pooled``, a vector [B, D'] of each text.

        Of a prompt in chunks the vector is that of the first.
        """
        if not self.returns_pooled:
            return (self(text, embedding_manager),)
        ids = text if isinstance(text, Tensor) else self.tokenize(text, placeholders_of(embedding_manager))
        context, pooled = self.encode_both(ids.to(self.device, copy=True), embedding_manager)
        if self.in_chunks and not isinstance(text, Tensor):
            context = self(text, embedding_manager)
        return context, pooled

    def encode_both(
        self, tokens: Tensor, embedding_manager: EmbeddingChange | None = None
    ) -> tuple[Tensor, Tensor]:
        """Token ids [B, N] on the module's device -> context [B, N, D] and a vector of the whole text [B, D']."""
        raise UserError(f"{type(self).__name__} has no vector of a whole text")

    @property
    def pooled_width(self) -> int:
        """D', the length of the vector of a whole text."""
        raise UserError(f"{type(self).__name__} has no vector of a whole text")

    def tokenize(self, text: str | Sequence[str], placeholders: Sequence[str] = ()) -> Tensor:
        """Texts -> token ids [B, N] on the CPU; learned words are found wherever they stand, whatever is beside them.

        Args:
            text: one text or several.
            placeholders: the learned words; each has its ``placeholder_id`` in the rows.
        """
        tokenizer = self._need_tokenizer()
        if not placeholders:
            return tokenizer(text)
        texts = [text] if isinstance(text, str) else text
        ids = {name: self.placeholder_id(name) for name in placeholders}
        rows = []
        for one in texts:
            row: list[int] = []
            for before, name in split_at(one, placeholders):
                row += [*tokenizer.pieces(before), *([] if name is None else [ids[name]])]
            rows.append(row)
        return tokenizer.rows(rows)

    def placeholder_id(self, word: str) -> int:
        """The id of a learned word in rows of tokens: its own where it is one token that means nothing else.

        Any other word has a negative number, which ``token_embedding`` must not be asked for.

        Raises:
            UserError: there is nothing in the word.
        """
        if not word.strip():
            raise UserError("a placeholder needs at least one letter or sign, got an empty one")
        tokenizer = self._need_tokenizer()
        pieces = tokenizer.pieces(word)
        special = {tokenizer.unknown, *tokenizer("").flatten().tolist()}
        return pieces[0] if len(pieces) == 1 and pieces[0] not in special else stand_in(word)

    def token_of(self, word: str) -> int:
        """The id of a word that is exactly one token.

        Raises:
            UserError: the word is several tokens, none, or not in the vocabulary.
        """
        tokenizer = self._need_tokenizer()
        pieces = tokenizer.pieces(word)
        if len(pieces) != 1:
            raise UserError(f"'{word}' is {len(pieces)} tokens for this text encoder; give a word that is exactly one")
        if pieces[0] == tokenizer.unknown:
            raise UserError(f"'{word}' is not in the vocabulary of this text encoder; give a word that is")
        return pieces[0]

    def pieces_of(self, words: str) -> list[int]:
        """The ids of one or more words, without markers.

        Raises:
            UserError: there are none, or one is not in the vocabulary.
        """
        tokenizer = self._need_tokenizer()
        pieces = tokenizer.pieces(words)
        if not pieces or tokenizer.unknown in pieces:
            raise UserError(f"'{words}' is not in the vocabulary of this text encoder; give words that are")
        return pieces

    def vector_of(self, token: int) -> Tensor:
        return self.token_embedding.weight[token].detach().clone()

    def initial_vector(self, token: int) -> Tensor:
        return self.vector_of(token)

    @property
    def reads_chunks(self) -> bool:
        """Whether the network, trained on one context [B, N, D], makes sense of several side by side."""
        return False

    @contextlib.contextmanager
    def whole_prompts(self) -> Iterator[None]:
        """Within the block a prompt of more than N tokens is encoded in chunks, as context [B, K N, D].

        Raises:
            UserError: this kind of encoder is not used so.
        """
        if not self.reads_chunks:
            raise UserError(
                f"long prompts in chunks are for CLIP's text encoders; this model's, {type(self).__name__}, has one "
                f"length: leave out --long_prompts"
            )
        self.in_chunks = True
        try:
            yield
        finally:
            self.in_chunks = False

    def fits(self, text: str, words: Any = None) -> bool:
        """Whether a text is read to its end; ``words`` is what learned words come from."""
        length = sum(width for _, width in tokens_of(self, text, words))
        return length <= self.max_length - 2

    def open_tokenizer(self) -> None:
        """Read the tokenizer's files now and not at the first prompt, so that a missing one is told before any work.

        Raises:
            UserError: they cannot be found, or do not go with this encoder.
        """
        if self.tokenizer is not None:
            _ = self.tokenizer.unknown

    def unread_parameters(self) -> Iterable[nn.Parameter]:
        """Weights that files have and no context depends on: there is nothing for them to learn."""
        return ()

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As usual, but what no context depends on never learns: several processes would wait for its gradient."""
        super().requires_grad_(requires_grad)
        for parameter in self.unread_parameters():
            parameter.requires_grad_(False)
        return self

    def freeze(self) -> None:
        """No gradients, and evaluation mode for good: a later ``train()`` on a parent does not reach this module."""
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> TextEncoder:
        super().train(mode and not self.frozen)
        return self

    def _need_tokenizer(self) -> TextTokenizer:
        if self.tokenizer is None:
            raise UserError(
                f"{type(self).__name__} was built without a tokenizer, so it encodes token ids, not text; "
                "set 'use_tokenizer: true' in its configuration"
            )
        return self.tokenizer


def check_length(max_length: int, positions: int) -> None:
    """Raises ConfigError when ``max_length`` leaves no room between the markers or exceeds the positions."""
    if not 2 < max_length <= positions:
        raise ConfigError(
            f"'max_length' must lie between 3 and {positions}, the positions of this model, got {max_length}"
        )
