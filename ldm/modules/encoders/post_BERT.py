"""LDM's BERT text encoder with small trainable parts: an adapter in front of its layers, a transformer behind them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ldm.checkpoint import load_weights, read_metadata, save_state_dict
from ldm.modules.encoders.adapters import BottleneckAdapter, LightTransformer
from ldm.modules.encoders.base import EmbeddingChange
from ldm.modules.encoders.bert import TransformerEmbedder
from ldm.modules.encoders.multilingual import ForeignReader
from ldm.modules.encoders.pre_BERT import MultilingualTextEmbedder
from ldm.util import ConfigError, UserError, parse_sizes, whole_number

KIND = "text adapters"
SIZES = ("adapter_dim", "post_layers", "post_dim", "post_heads", "adapter_scale")  # what a file says of itself


class AdapterBERTEmbedder(MultilingualTextEmbedder):
    """A BERT text encoder in whose path lie a bottleneck adapter, after the token vectors, and a light transformer.

    Both begin at zero and change nothing until they are trained, alone or with a placeholder: the encoder's own weights
    keep their keys and are frozen. ``adapters_on = False``, or the block ``without_adapters``, is the base model. The
    empty prompt is never changed: guidance would lead away from what the adapters learned.

    Args:
        adapter_dim: width inside the adapter; 0 leaves it out.
        post_layers, post_dim, post_heads: depth, width and heads of the light transformer; 0 layers leave it out.
        adapter_scale: of what both add; below 1 they learn more slowly than a placeholder at the same rate.
        adapter_lr: learning rate of both, as a multiple of the run's, which a placeholder has.
        adapter_dropout: in both, in training.
        adapter_drop: share of the prompts in training for which both stand aside, drawn for each prompt anew (Huang et
            al. 2016, "stochastic depth"). A word that is learned beside them learns from these prompts alone, and they
            learn from the others: the word is whole without them.
        adapter_ckpt: a file of ``save_adapters`` to begin with.
        adapters_on: whether they take part.
        train_adapters: whether they learn, beside or instead of the vectors of a placeholder.
        bert: the parameters of ``BERTEmbedder``, and of ``MultilingualTextEmbedder`` for prompts in other languages.

    Raises:
        ConfigError: ``adapter_drop`` is no share of which something is left.
        UserError: ``adapter_ckpt`` does not fit.
    """

    def __init__(
        self,
        adapter_dim: int = 64,
        post_layers: int = 1,
        post_dim: int = 64,
        post_heads: int = 4,
        adapter_scale: float = 1.0,
        adapter_lr: float = 1.0,
        adapter_dropout: float = 0.0,
        adapter_drop: float = 0.0,
        adapter_ckpt: str | None = None,
        adapters_on: bool = True,
        train_adapters: bool = True,
        **bert: Any,
    ) -> None:
        if not 0 <= adapter_drop < 1:
            raise ConfigError(f"adapter_drop is a share from 0 to below 1, got {adapter_drop}")
        super().__init__(**bert)
        self.sizes = dict(zip(SIZES, (adapter_dim, post_layers, post_dim, post_heads, adapter_scale), strict=True))
        adapter: nn.Module = nn.Identity()
        post: nn.Module = nn.Identity()
        if adapter_dim:
            adapter = BottleneckAdapter(self.width, adapter_dim, adapter_dropout, adapter_scale)
        if post_layers:
            post = LightTransformer(self.width, post_dim, post_layers, post_heads, adapter_dropout, adapter_scale)
        self.text_adapters = nn.ModuleDict({"adapter": adapter, "post": post})
        self.below = nn.ModuleList()  # text_adapters of other encoders, which x passes first; see ``over``
        self.amounts: tuple[float, ...] = (1.0,)  # of what those below and its own add
        self._first: tuple[MultilingualTextEmbedder, ...] = ()  # in a tuple, so that it is no child
        self.added_rate = adapter_lr
        self.adapter_drop = adapter_drop
        self.adapters_on = adapters_on
        self.train_adapters = train_adapters
        if adapter_ckpt is not None:
            self.load_adapters(adapter_ckpt)

    def encode_tokens(self, tokens: Tensor, embedding_manager: EmbeddingChange | None = None) -> Tensor:
        if not self.adapters_on:
            return super().encode_tokens(tokens, embedding_manager)

        chosen = self._chosen(tokens)

        def adapted(part: str, x: Tensor) -> Tensor:
            for adapters, amount in zip([*self.below, self.text_adapters], self.amounts, strict=True):
                layer = adapters[part]
                x = x if isinstance(layer, nn.Identity) else torch.where(chosen, layer(x, amount), x)
            return x

        def change(tokens: Tensor, embedded: Tensor) -> Tensor:
            filled = embedded if embedding_manager is None else embedding_manager(tokens, embedded)
            if self._takes_turns:
                filled = torch.where(chosen, filled.detach(), filled)
            return adapted("adapter", filled)

        return adapted("post", super().encode_tokens(tokens, change))

    @property
    def reader(self) -> ForeignReader:
        return self._first[0].reader if self._first else super().reader

    @property
    def _takes_turns(self) -> bool:
        """Whether each prompt teaches either the word or the adapters."""
        return bool(self.text_adapters.training and self.adapter_drop)

    def _chosen(self, tokens: Tensor) -> Tensor:
        """[B, 1, 1], the prompts that are changed: those that are not empty, and in training a share of these."""
        chosen = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
        if self.tokenizer is not None and tokens.shape[1] == self.max_length:  # ids may be given at another length
            chosen = (tokens != self.tokenize("").to(tokens.device)).any(dim=1)
        if self._takes_turns:
            chosen &= torch.rand(len(tokens), device=tokens.device) >= self.adapter_drop
        return chosen[:, None, None]

    @contextlib.contextmanager
    def without_adapters(self) -> Iterator[None]:
        """Within the block this is the base encoder."""
        before, self.adapters_on = self.adapters_on, False
        try:
            yield
        finally:
            self.adapters_on = before

    def save_adapters(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Write the adapters, without the encoder, to a small ``.safetensors`` file.

        Raises:
            UserError: it cannot be written.
        """
        weights = {key: value.detach().float().cpu() for key, value in self.text_adapters.state_dict().items()}
        about = {"kind": KIND, "width": str(self.width), "sizes": json.dumps(self.sizes)}
        save_state_dict(weights, path, {**(metadata or {}), **about})

    def load_adapters(self, path: str | os.PathLike[str]) -> None:
        """Take adapters from a file of ``save_adapters``.

        Raises:
            UserError: no such file, something else is in it, or adapters of another shape.
        """
        width, sizes = sizes_in(path)
        _check_width(width, self.width, f"the adapters in '{path}'")
        if sizes != self.sizes:
            raise UserError(f"the adapters in '{path}' have the sizes {sizes}; the configuration says {self.sizes}")
        load_weights(self.text_adapters, path, strict=True)

    @classmethod
    def around(cls, encoder: TransformerEmbedder, path: str | os.PathLike[str]) -> AdapterBERTEmbedder:
        """The encoder with the adapters of a file; its weights are shared, not copied.

        Raises:
            UserError: as ``load_adapters``.
        """
        adapted = cls._sharing(encoder, sizes_in(path)[1])
        adapted.load_adapters(path)
        adapted.text_adapters.to(encoder.device, encoder.token_embedding.weight.dtype).eval().requires_grad_(False)
        return adapted

    def over(self, encoder: TransformerEmbedder, amount: float = 1.0) -> AdapterBERTEmbedder:
        """Another encoder with these adapters, on top of those that it may have; all weights are shared.

        Args:
            encoder: stays as it is.
            amount: a factor of what these adapters add.

        Raises:
            UserError: its width is another one.
        """
        _check_width(self.width, encoder.width, "the adapters")
        adapted = self._sharing(encoder, self.sizes)
        adapted.text_adapters = self.text_adapters
        adapted.amounts = (amount,)
        if isinstance(encoder, AdapterBERTEmbedder) and encoder.adapters_on:
            adapted.below.extend([*encoder.below, encoder.text_adapters])
            adapted.amounts = (*encoder.amounts, amount)
        return adapted

    @classmethod
    def _sharing(cls, encoder: TransformerEmbedder, sizes: Mapping[str, Any]) -> AdapterBERTEmbedder:
        """An encoder with the transformer of another, and new adapters."""
        adapted = cls(
            n_embed=encoder.width, n_layer=0, vocab_size=1, max_seq_len=encoder.max_length, use_tokenizer=False, **sizes
        )
        adapted.transformer, adapted.tokenizer = encoder.transformer, encoder.tokenizer
        if isinstance(encoder, MultilingualTextEmbedder):
            adapted.aligner, adapted.language, adapted._first = encoder.aligner, encoder.language, (encoder,)
        adapted.training, adapted.frozen = encoder.training, encoder.frozen
        return adapted


def _check_width(made_for: int, here: int, what: str) -> None:
    if made_for != here:
        raise UserError(f"{what} were made for a text encoder of width {made_for}; this model's has {here}")


def sizes_in(path: str | os.PathLike[str]) -> tuple[int, dict[str, Any]]:
    """The width of the encoder that a file's adapters are for, and their sizes as ``AdapterBERTEmbedder`` takes them.

    Raises:
        UserError: no such file, or something else is in it.
    """
    about = read_metadata(path)
    if about.get("kind") != KIND:
        raise UserError(f"'{path}' holds no adapters of a text encoder")
    sizes = parse_sizes(about.get("sizes", ""), f"what '{path}' says of its sizes", SIZES)
    return whole_number(about.get("width", ""), f"the width in '{path}'"), sizes
