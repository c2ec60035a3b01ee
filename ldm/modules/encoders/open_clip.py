"""Text encoders on CLIP's original text tower: Stable Diffusion v2's, and the one vector that OpenAI's CLIP gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ldm.modules.encoders.base import EmbeddingChange, TextEncoder, check_length
from ldm.modules.encoders.bpe import CLIP_VOCABULARY, OPEN_CLIP_MARKERS, load_bpe, unescape
from ldm.modules.encoders.clip import read_text_config
from ldm.modules.encoders.clip_towers import TEXT_SIZES, TextSizes, TextTower, sizes_of
from ldm.modules.encoders.subword import SubwordTokenizer
from ldm.util import ConfigError

LAYERS = {"last": 0, "penultimate": 1}


class FrozenOpenCLIPEmbedder(TextEncoder):
    """Text -> context [B, N, D] from OpenCLIP's text tower; the weights are in the diffusion checkpoint.

    Args:
        arch: which tower, such as "ViT-H-14".
        version: which of OpenCLIP's weights; "openai" stands for the activation that OpenAI's weights need. A folder
            that holds a text model for transformers gives the sizes and the vocabulary.
        device: accepted for old configurations; a module is where it is moved to.
        max_length: N.
        freeze: no gradients, always in evaluation mode.
        layer: "last", or "penultimate" to leave out the last block; the final norm is applied to both.
        tokenizer: where the byte-pair vocabulary is, see ``load_bpe``.
        config: the fields of ``TextSizes``; ``arch`` is then a mere name.

    Raises:
        ConfigError: an unknown ``arch`` or ``layer``, or a wrong ``max_length``.
    """

    family = "openclip"
    last_is_dropped = True  # whether a folder for transformers leaves out the blocks that are not run

    def __init__(
        self,
        arch: str = "ViT-H-14",
        version: str = "laion2b_s32b_b79k",
        device: str = "cuda",
        max_length: int = 77,
        freeze: bool = True,
        layer: str = "last",
        tokenizer: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if layer not in LAYERS:
            raise ConfigError(f"FrozenOpenCLIPEmbedder has no layer '{layer}'; known: {', '.join(LAYERS)}")
        folder = Path(version) if config is None and Path(version).is_dir() else None
        config = config if folder is None else _sizes_in(folder, LAYERS[layer] if self.last_is_dropped else 0)
        sizes = sizes_of(arch, TEXT_SIZES, TextSizes, config)
        check_length(max_length, sizes.context_length)
        self.layer = layer
        self.model = TextTower(sizes, quick_gelu=version == "openai")
        source = tokenizer or (CLIP_VOCABULARY if folder is None else version)
        self.tokenizer = SubwordTokenizer(
            source, load_bpe, OPEN_CLIP_MARKERS, max_length=max_length, vocab_size=sizes.vocab_size, clean=unescape
        )
        if freeze:
            self.freeze()

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.model.token_embedding

    @property
    def reads_chunks(self) -> bool:
        return True

    def unread_parameters(self) -> Iterable[nn.Parameter]:
        blocks = self.model.transformer.resblocks
        left_out = blocks[len(blocks) - LAYERS[self.layer] :]
        return [*left_out.parameters(), self.model.text_projection, self.model.logit_scale]

    def encode_tokens(self, tokens: Tensor, embedding_manager: EmbeddingChange | None = None) -> Tensor:
        return self.model(tokens, skip_last=LAYERS[self.layer], change=embedding_manager)

    def encode_with_transformer(self, tokens: Tensor) -> Tensor:
        """Token ids [B, N] -> context [B, N, D]; the name that older code calls."""
        return self.encode_tokens(tokens)


class FrozenOpenCLIPEmbedder2(FrozenOpenCLIPEmbedder):
    """Stable Diffusion XL's second text encoder: a layer's states as they are, and a vector of the whole text.

    Args:
        always_return_pooled: give that vector [B, embed_dim] beside the context: the last block's state at the end
            marker, after the final norm, in the space shared with pictures.
        legacy: apply the final norm to the context, too; not together with the vector.

    Raises:
        ConfigError: as ``FrozenOpenCLIPEmbedder``, or both of these.
    """

    last_is_dropped = False
    legacy = True

    def __init__(
        self,
        arch: str = "ViT-H-14",
        version: str = "laion2b_s32b_b79k",
        device: str = "cuda",
        max_length: int = 77,
        freeze: bool = True,
        layer: str = "last",
        always_return_pooled: bool = False,
        legacy: bool = True,
        tokenizer: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if always_return_pooled and legacy:
            raise ConfigError("FrozenOpenCLIPEmbedder2 with always_return_pooled needs legacy: false")
        super().__init__(arch, version, device, max_length, freeze, layer, tokenizer, config)
        self.returns_pooled = always_return_pooled
        self.legacy = legacy

    @property
    def pooled_width(self) -> int:
        return self.model.text_projection.shape[1]

    def unread_parameters(self) -> Iterable[nn.Parameter]:
        if self.returns_pooled:
            return [self.model.logit_scale]
        norm = [] if self.legacy else [*self.model.ln_final.parameters()]
        return [*super().unread_parameters(), *norm]

    def encode_tokens(self, tokens: Tensor, embedding_manager: EmbeddingChange | None = None) -> Tensor:
        return self._context(self.model.last_states(tokens, embedding_manager))

    def encode_both(
        self, tokens: Tensor, embedding_manager: EmbeddingChange | None = None
    ) -> tuple[Tensor, Tensor]:
        states = self.model.last_states(tokens, embedding_manager)
        return self._context(states), self.model.project(self.model.ln_final(states[1]), tokens)

    def _context(self, states: tuple[Tensor, Tensor]) -> Tensor:
        state = states[0] if self.layer == "penultimate" else states[1]
        return self.model.ln_final(state) if self.legacy else state


def _sizes_in(folder: Path, unused_layers: int) -> dict[str, int]:
    """The sizes that a text model for transformers has; such a folder leaves out the blocks that are not run."""
    config = read_text_config(folder)
    return {
        "embed_dim": config.projection_dim or config.hidden_size,
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "layers": config.num_hidden_layers + unused_layers,
        "context_length": config.max_position_embeddings,
        "vocab_size": config.vocab_size,
    }


class FrozenCLIPTextEmbedder(TextEncoder):
    """Text -> ``n_repeat`` equal context vectors [B, n_repeat, D]: its place in the space that CLIP shares with images.

    Args:
        version: one of OpenAI's models, such as "ViT-L/14".
        n_repeat: how often the one vector is given.
        normalize: vectors of length 1.
    """

    family = "openclip"

    def __init__(
        self,
        version: str = "ViT-L/14",
        device: str = "cuda",
        max_length: int = 77,
        n_repeat: int = 1,
        normalize: bool = True,
        tokenizer: str = CLIP_VOCABULARY,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        sizes = sizes_of(version, TEXT_SIZES, TextSizes, config)
        check_length(max_length, sizes.context_length)
        self.n_repeat = n_repeat
        self.normalize = normalize
        self.model = TextTower(sizes, quick_gelu=True)
        self.tokenizer = SubwordTokenizer(
            tokenizer, load_bpe, OPEN_CLIP_MARKERS, max_length=max_length, vocab_size=sizes.vocab_size, clean=unescape
        )
        self.freeze()

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.model.token_embedding

    def encode_tokens(self, tokens: Tensor, embedding_manager: EmbeddingChange | None = None) -> Tensor:
        vector = self.model.project(self.model(tokens, change=embedding_manager), tokens)
        if self.normalize:
            vector = nn.functional.normalize(vector, dim=-1)
        return vector[:, None].expand(-1, self.n_repeat, -1)
