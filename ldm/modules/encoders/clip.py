"""Stable Diffusion v1's text encoder: CLIP's text model, from the transformers library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ldm.modules.encoders.base import EmbeddingChange, TextEncoder, check_length
from ldm.modules.encoders.bpe import CLIP_MARKERS, load_bpe, straightened
from ldm.modules.encoders.hub import hub_folder
from ldm.modules.encoders.subword import SubwordTokenizer
from ldm.util import ConfigError, UserError

if TYPE_CHECKING:
    from transformers import CLIPTextConfig

LAYERS = ("last", "pooled", "hidden")
MODEL_FILES = [["config.json", "model.safetensors"], ["config.json", "pytorch_model.bin"]]


def _sizes(width: int, layers: int, heads: int, projection: int, act: str = "quick_gelu") -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "projection_dim": projection,
        "hidden_act": act,
    }


KNOWN_VERSIONS = {
    "openai/clip-vit-base-patch32": _sizes(512, 12, 8, 512),
    "openai/clip-vit-base-patch16": _sizes(512, 12, 8, 512),
    "openai/clip-vit-large-patch14": _sizes(768, 12, 12, 768),
    "openai/clip-vit-large-patch14-336": _sizes(768, 12, 12, 768),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": _sizes(1024, 24, 16, 1024, "gelu"),
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": _sizes(1280, 32, 20, 1280, "gelu"),
}


class FrozenCLIPEmbedder(TextEncoder):
    """Text -> context [B, N, D] from CLIP's text model.

    The sizes of known versions are written here, so building one needs neither files nor a network: the weights are in
    the diffusion checkpoint, or come with ``load_pretrained``. A version that is a folder is read from there,
    unless this is built on the meta device.

    Args:
        version: a known version, a folder that transformers or diffusers saved, or another hub id.
        device: accepted for old configurations; a module is where it is moved to.
        max_length: N.
        freeze: no gradients, always in evaluation mode.
        layer: "last" (after the final norm), "pooled" (the end marker's state, N = 1) or "hidden".
        layer_idx: for "hidden": which of the states, 0 being the embeddings; without the final norm.
        tokenizer: where the byte-pair vocabulary is, see ``load_bpe``; ``version`` by default.
        config: sizes as transformers' CLIPTextConfig takes them; ``version`` is then a mere name.
        always_return_pooled: give the end marker's state [B, D], after the final norm, beside the context.

    Raises:
        ConfigError: an unknown ``layer``, a ``layer_idx`` that does not go with it, or a wrong ``max_length``.
        UserError: ``version`` is not known, no folder, and not to be had from the hub.
    """

    family = "clip"

    def __init__(
        self,
        version: str = "openai/clip-vit-large-patch14",
        device: str = "cuda",
        max_length: int = 77,
        freeze: bool = True,
        layer: str = "last",
        layer_idx: int | None = None,
        tokenizer: str | None = None,
        config: Mapping[str, Any] | None = None,
        always_return_pooled: bool = False,
    ) -> None:
        super().__init__()
        self.version = version
        self.transformer = ClipTextTower(_text_model(version, config))
        sizes = self.transformer.text_model.config
        _check_layer(layer, layer_idx, sizes.num_hidden_layers)
        check_length(max_length, sizes.max_position_embeddings)
        self.layer, self.layer_idx = layer, layer_idx
        self.returns_pooled = always_return_pooled
        self.tokenizer = SubwordTokenizer(
            tokenizer or version, load_bpe, CLIP_MARKERS, max_length=max_length, vocab_size=sizes.vocab_size,
            clean=straightened,
        )  # fmt: skip
        if freeze:
            self.freeze()

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.transformer.text_model.embeddings.token_embedding

    @property
    def reads_chunks(self) -> bool:
        return self.layer != "pooled"

    def unread_parameters(self) -> Iterable[nn.Parameter]:
        if self.layer != "hidden" or self.returns_pooled:
            return []
        tower, depth = self.transformer.text_model, self.transformer.text_model.config.num_hidden_layers
        used = self.layer_idx if self.layer_idx is not None and self.layer_idx >= 0 else depth + 1 + self.layer_idx
        return [*tower.encoder.layers[used:].parameters(), *tower.final_layer_norm.parameters()]

    def encode_tokens(self, tokens: Tensor, embedding_manager: EmbeddingChange | None = None) -> Tensor:
        return self._context(self._states(tokens, embedding_manager))

    def encode_both(
        self, tokens: Tensor, embedding_manager: EmbeddingChange | None = None
    ) -> tuple[Tensor, Tensor]:
        states = self._states(tokens, embedding_manager)
        return self._context(states), states.pooler_output

    def _states(self, tokens: Tensor, embedding_manager: EmbeddingChange | None) -> Any:
        with _output_changed(self.token_embedding, embedding_manager):
            return self.transformer(input_ids=tokens, output_hidden_states=self.layer == "hidden")

    def _context(self, states: Any) -> Tensor:
        if self.layer == "pooled":
            return states.pooler_output[:, None]
        return states.last_hidden_state if self.layer == "last" else states.hidden_states[self.layer_idx]

    @property
    def pooled_width(self) -> int:
        return self.transformer.text_model.config.hidden_size

    def initial_vector(self, token: int) -> Tensor:
        """The token's vector plus position 0's, as textual inversion on CLIP has always begun."""
        position = self.transformer.text_model.embeddings.position_embedding.weight[0]
        return self.vector_of(token) + position.detach()

    def load_pretrained(self) -> None:
        """Take the weights that ``version`` has on the hub, for training that does not begin from a checkpoint.

        Raises:
            UserError: they cannot be had.
        """
        advice = "download it and give the folder as 'version:' in the configuration of the text encoder"
        pretrained = _from_folder(hub_folder(self.version, MODEL_FILES, advice))
        self.transformer.text_model.load_state_dict(pretrained.state_dict(), strict=False)


class ClipTextTower(nn.Module):
    """transformers' CLIP text model one level down, under the keys that checkpoints have: ``text_model.*``.

    ``position_ids`` is in the state dict, as in released checkpoints; files without it, with it in another type, or
    without the ``text_model`` level load as well.
    """

    text_model: Any

    def __init__(self, text_model: nn.Module) -> None:
        super().__init__()
        self.text_model = text_model
        positions = torch.arange(self.text_model.config.max_position_embeddings, device="cpu")
        self.text_model.embeddings.register_buffer("position_ids", positions[None], persistent=True)
        self.register_load_state_dict_pre_hook(_to_released_keys)

    def forward(self, input_ids: Tensor, **options: Any) -> Any:
        """Token ids [B, N] -> transformers' output: last_hidden_state [B, N, D], pooler_output [B, D], ..."""
        return self.text_model(input_ids=input_ids, **options)


def _to_released_keys(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Bring a state dict of another layout to the keys of released checkpoints, before it is loaded."""
    level = prefix + "text_model."
    for key in [k for k in state_dict if k.startswith(prefix) and not k.startswith(level)]:
        state_dict[level + key.removeprefix(prefix)] = state_dict.pop(key)
    position_ids = module.get_buffer("text_model.embeddings.position_ids")
    state_dict[level + "embeddings.position_ids"] = position_ids


@contextmanager
def _output_changed(embedding: nn.Embedding, change: EmbeddingChange | None) -> Iterator[None]:
    """While inside, what ``embedding`` gives for token ids, of learned words negative, passes through ``change``."""
    if change is None:
        yield
        return
    asked: list[Tensor] = []

    def known(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        asked.append(args[0])
        return (args[0].clamp(min=0),)

    handles = [
        embedding.register_forward_pre_hook(known),
        embedding.register_forward_hook(lambda _, args, embedded: change(asked.pop(), embedded)),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _text_model(version: str, config: Mapping[str, Any] | None) -> nn.Module:
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
    )  # imported here: it takes seconds, and not all models need it

    if config is None and version not in KNOWN_VERSIONS and not Path(version).is_dir():
        advice = f"give a folder, or one of the known versions: {', '.join(KNOWN_VERSIONS)}"
        version = str(hub_folder(version, MODEL_FILES, advice))
    if config is None and Path(version).is_dir():
        return _from_folder(Path(version))
    sizes = KNOWN_VERSIONS[version] if config is None else config
    unknown = set(sizes) - set(CLIPTextConfig().to_dict())
    if unknown:
        raise ConfigError(f"'config' of the CLIP model '{version}' has '{min(unknown)}', which CLIPTextConfig does not")
    return CLIPTextModel(CLIPTextConfig(**sizes))


def _from_folder(folder: Path) -> nn.Module:
    """The text model that transformers saved in a folder, or diffusers in its ``text_encoder``; float32.

    On the meta device it has no weights: there a checkpoint follows, which brings them.
    """
    from transformers import CLIPTextModel

    nested = folder / "text_encoder"
    folder = nested if nested.is_dir() else folder
    config = read_text_config(folder)
    if torch.empty(0).is_meta:
        return CLIPTextModel(config)
    try:
        return CLIPTextModel.from_pretrained(folder, config=config, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise UserError(f"folder '{folder}' holds no CLIP text model that transformers can read: {error}") from error


def read_text_config(folder: Path) -> CLIPTextConfig:
    """The sizes of the CLIP text model that transformers saved in ``folder``.

    Raises:
        UserError: there is no config.json of such a model.
    """
    from transformers import CLIPTextConfig

    if not (folder / "config.json").is_file():  # transformers would take its own defaults instead
        raise UserError(f"folder '{folder}' holds no CLIP text model: there is no config.json with its sizes")
    try:
        return CLIPTextConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"'{folder / 'config.json'}' does not give the sizes of a CLIP text model: {error}") from error


def _check_layer(layer: str, layer_idx: int | None, depth: int) -> None:
    if layer not in LAYERS:
        raise ConfigError(f"FrozenCLIPEmbedder has no layer '{layer}'; known: {', '.join(LAYERS)}")
    if layer == "hidden" and (layer_idx is None or not -depth - 1 <= layer_idx <= depth):
        raise ConfigError(f"layer 'hidden' needs a 'layer_idx' between {-depth - 1} and {depth}, got {layer_idx}")
