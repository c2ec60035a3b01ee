"""LDM's text encoders: a transformer over BERT's word pieces, trained together with the diffusion model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from ldm.modules.encoders.base import AbstractEncoder, EmbeddingChange, TextEncoder, TextTokenizer
from ldm.modules.encoders.subword import SubwordTokenizer
from ldm.modules.encoders.wordpiece import MARKERS, load_wordpiece
from ldm.modules.x_transformer import Encoder, TransformerWrapper


class BERTTokenizer(AbstractEncoder):
    """Text -> word-piece ids [CLS] ... [SEP] [PAD]..., long, on the CPU.

    Args:
        device: accepted for old configurations; the embedder sends the ids to its own weights.
        vq_interface: ``encode`` answers in the form of a quantising encoder, (None, None, [None, None, ids]).
        max_length: the length of every row; longer texts lose their end.
        tokenizer: a vocab.txt, a tokenizer.json, a folder with one of them, or a hub id; read at the first use.
        vocab_size: the number of vectors that the encoder has, against which the vocabulary is checked.
    """

    def __init__(
        self,
        device: str = "cuda",
        vq_interface: bool = True,
        max_length: int = 77,
        tokenizer: str = "bert-base-uncased",
        vocab_size: int | None = None,
    ) -> None:
        super().__init__()
        self.vq_interface = vq_interface
        self.max_length = max_length
        self.words = SubwordTokenizer(tokenizer, load_wordpiece, MARKERS, max_length, vocab_size)

    @property
    def unknown(self) -> int | None:
        return self.words.unknown

    def pieces(self, text: str) -> list[int]:
        return self.words.pieces(text)

    def rows(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        return self.words.rows(pieces)

    def forward(self, text: str | Sequence[str]) -> Tensor:
        """Texts -> ids [B, max_length]."""
        return self.words(text)

    def encode(self, text: str | Sequence[str]) -> Any:
        tokens = self(text)
        return (None, None, [None, None, tokens]) if self.vq_interface else tokens

    def decode(self, tokens: Tensor) -> list[str]:
        """Ids [B, N] -> texts without the markers."""
        return self.words.decode(tokens)


class TransformerEmbedder(TextEncoder):
    """Token ids -> context [B, N, n_embed]: a transformer encoder with 8 heads of 64 channels.

    Args:
        n_embed: D, the width of the context.
        n_layer: attention and feed-forward pairs.
        vocab_size: token vectors.
        max_seq_len: N, positions.
        device: accepted for old configurations; a module is where it is moved to.
        embedding_dropout: on token vectors + positions, in training.
    """

    family = "bert"
    tokenizer: TextTokenizer | None

    def __init__(
        self,
        n_embed: int,
        n_layer: int,
        vocab_size: int,
        max_seq_len: int = 77,
        device: str = "cuda",
        embedding_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.tokenizer = None
        self.transformer = TransformerWrapper(
            num_tokens=vocab_size,
            max_seq_len=max_seq_len,
            attn_layers=Encoder(dim=n_embed, depth=n_layer),
            emb_dropout=embedding_dropout,
        )

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.transformer.token_emb

    @property
    def max_length(self) -> int:
        return self.transformer.max_seq_len

    def unread_parameters(self) -> Iterable[nn.Parameter]:
        return self.transformer.to_logits.parameters()

    def encode_tokens(self, tokens: Tensor, embedding_manager: EmbeddingChange | None = None) -> Tensor:
        embedded = self.token_embedding(tokens.clamp(min=0))  # learned words may have negative ids
        if embedding_manager is not None:
            embedded = embedding_manager(tokens, embedded)
        return self.transformer.encode_embedded(embedded)


class BERTEmbedder(TransformerEmbedder):
    """Text -> context [B, N, n_embed]: BERT's tokenizer in front of a ``TransformerEmbedder``.

    Args:
        use_tokenizer: False for an encoder that is given token ids only.
        tokenizer: where the vocabulary is, see ``BERTTokenizer``.
    """

    def __init__(
        self,
        n_embed: int,
        n_layer: int,
        vocab_size: int = 30522,
        max_seq_len: int = 77,
        device: str = "cuda",
        use_tokenizer: bool = True,
        embedding_dropout: float = 0.0,
        tokenizer: str = "bert-base-uncased",
    ) -> None:
        super().__init__(n_embed, n_layer, vocab_size, max_seq_len, device, embedding_dropout)
        if use_tokenizer:
            self.tokenizer = BERTTokenizer(
                vq_interface=False, max_length=max_seq_len, tokenizer=tokenizer, vocab_size=vocab_size
            )
