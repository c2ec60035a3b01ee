"""Text to rows of token ids, for any subword vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ldm.shipped import here_or_shipped
from ldm.util import UserError


@dataclass(frozen=True)
class Markers:
    """The tokens that have a meaning of their own; ``pad`` may be an id."""

    start: str
    end: str
    pad: str | int
    unknown: str


class SubwordTokenizer:
    """Texts -> [start] pieces [end] [pad]..., every row ``max_length`` long; a longer text loses its last pieces.

    Args:
        source: where the vocabulary is: a file, a folder, or a hub id; read at the first use.
        load: reads ``source``.
        markers: the names of the special tokens.
        max_length: ids in a row.
        vocab_size: the number of vectors that the encoder has, against which the vocabulary is checked.
        clean: changes a text before it is taken apart.
    """

    def __init__(
        self,
        source: str,
        load: Callable[[str], Tokenizer],
        markers: Markers,
        max_length: int = 77,
        vocab_size: int | None = None,
        clean: Callable[[str], str] | None = None,
    ) -> None:
        self.source = source
        self.max_length = max_length
        self._load = load
        self._markers = markers
        self._vocab_size = vocab_size
        self._clean = clean
        self._loaded: Tokenizer | None = None

    @property
    def backend(self) -> Tokenizer:
        """The library's tokenizer, read when it is first needed.

        Raises:
            UserError: it cannot be read, lacks a special token, or has more tokens than the encoder has vectors.
        """
        if self._loaded is None:
            tokenizer = self._load(self.source)
            size = max(tokenizer.get_vocab().values(), default=-1) + 1
            if self._vocab_size is not None and size > self._vocab_size:
                raise UserError(
                    f"tokenizer '{self.source}' has {size} tokens, but the text encoder has vectors for "
                    f"{self._vocab_size}; the two must belong together"
                )
            tokenizer.no_truncation()
            tokenizer.no_padding()
            self._loaded = tokenizer
        return self._loaded

    @property
    def unknown(self) -> int | None:
        """The id that stands for text outside the vocabulary; None where the vocabulary has no such token.

        Raises:
            UserError: as ``backend``.
        """
        return self.backend.token_to_id(self._markers.unknown)

    def __call__(self, text: str | Sequence[str]) -> Tensor:
        """Texts -> ids [B, max_length], long, on the CPU."""
        texts = [text] if isinstance(text, str) else list(text)
        return self.rows([self.pieces(text) for text in texts])

    def rows(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        """The ids of texts alone -> ids [B, max_length], with markers, cut and padded."""
        return torch.tensor([self._row(row) for row in pieces], dtype=torch.long)

    def pieces(self, text: str) -> list[int]:
        """The ids of the text alone."""
        text = self._clean(text) if self._clean else text
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Tensor) -> list[str]:
        """Ids [B, N] -> texts without the special tokens."""
        return self.backend.decode_batch(tokens.tolist())

    def _row(self, pieces: Sequence[int]) -> list[int]:
        start, end, pad = (self._id(token) for token in (self._markers.start, self._markers.end, self._markers.pad))
        row = [start, *pieces[: self.max_length - 2], end]
        return row + [pad] * (self.max_length - len(row))

    def _id(self, token: str | int) -> int:
        found = token if isinstance(token, int) else self.backend.token_to_id(token)
        if found is None:
            raise UserError(f"tokenizer '{self.source}' has no token {token}, which this text encoder needs")
        return found


def local_path(source: str, suffixes: Sequence[str]) -> Path | None:
    """``source`` as an existing file or folder; None when it can only be a hub id.

    Raises:
        UserError: it is written like a path, by its suffix or its first character, and nothing is there.
    """
    path = here_or_shipped(Path(source).expanduser())
    if path.exists():
        return path
    if path.suffix in suffixes or path.is_absolute() or source.startswith("."):
        raise UserError(f"tokenizer '{source}' does not exist; give a {' or '.join(suffixes)} file, or their folder")
    return None


def tokenizer_from_json(path: Path) -> Tokenizer:
    """Read a tokenizer.json, the library's own format.

    Raises:
        UserError: it is something else.
    """
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception whatever is wrong with the file
        raise UserError(f"'{path}' is not a tokenizer.json: {error}") from error
