"""What every kind of learned words is to a model: placeholders, what a prompt gets for them, how they are put on it.

Words may be the same in all layers of the UNet, have vectors for each layer, or depend on the timestep as well. For
layers the prompt is encoded once for each, and the contexts travel side by side, [B, L N, D], so that guidance and
samplers need not know; each layer takes its own part. What stands beside the encoder's context makes each part longer.
For timesteps what travels are token ids, which are encoded when the UNet is called, when the timestep is known.
"""

from __future__ import annotations

import contextlib
import functools
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ldm.additions.base import Addition, Undo, replace_module
from ldm.additions.placeholders import Beside, expansion, fill, lengthened
from ldm.modules.attention import BasicTransformerBlock
from ldm.modules.encoders.base import TextEncoder, TokenSpace
from ldm.modules.encoders.multilingual import Multilingual
from ldm.util import ConfigError, UserError

MOST_BESIDE = 5  # words; a context is then 60 times as long as a prompt's own, with six it would be 420 times


class Words(Addition, nn.Module):
    """Learned words of any kind; an encoder calls them between its token vectors and its positions.

    Attributes:
        layers: L, the layers of the UNet that have vectors of their own; None: all get the same.
        read_once: whether the encoder gets the same for all layers, so that it need not read a prompt for each.
        timed: whether vectors depend on the timestep; only with ``layers``.
        progressive_counter: looks at words that get more vectors from time to time.
        files: placeholder -> the file that it came from, where it came from one.
    """

    file_name = "embeddings"
    step_suffix = ".pt"
    last_suffixes: ClassVar[tuple[str, ...]] = (".pt", ".safetensors")
    own_keys = ("embedding_manager.",)

    layers: int | None = None
    timed = False
    read_once = False
    progressive_counter = 0

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, Path] = {}
        self._handles: list[RemovableHandle] = []

    @property
    @abstractmethod
    def embedder(self) -> TokenSpace:
        """The text encoder."""

    @property
    @abstractmethod
    def placeholders(self) -> tuple[str, ...]:
        """The words that have learned vectors."""

    @abstractmethod
    def token(self, placeholder: str) -> int:
        """The id of a placeholder in rows of tokens."""

    @abstractmethod
    def at(self, layer: int = 0, t: Tensor | None = None) -> dict[str, Tensor]:
        """What a prompt gets in a layer at timesteps t [B]: placeholder -> [n, D], or [B, n, D] if ``timed``."""

    @abstractmethod
    def starts(self, layer: int = 0) -> dict[str, Tensor]:
        """Where training began, placeholder -> [n, D], of those for which that is known."""

    # ---- what encoders call ---------------------------------------------------------------------------------------

    def forward(self, tokens: Tensor, embedded: Tensor) -> Tensor:
        """Put learned vectors in the place of placeholders, changing both arguments.

        Args:
            tokens: ids [B, N]; each of the n positions of a placeholder gets its id.
            embedded: their vectors [B, N, D].

        Returns:
            ``embedded``.
        """
        return self.put(tokens, embedded, self.at())

    def put(self, tokens: Tensor, embedded: Tensor, vectors: Mapping[str, Tensor]) -> Tensor:
        """As ``forward``, with these vectors: placeholder -> [n, D], or [B, n, D] where every row has its own."""
        new_tokens, new_embedded = fill(tokens, embedded, {self.token(name): value for name, value in vectors.items()})
        if not embedded.requires_grad:  # an encoder that learns too needs its tokens as they were for the gradient
            tokens.copy_(new_tokens)
        return embedded.copy_(new_embedded)

    def beside(self, layer: int) -> dict[str, Beside]:
        """What a prompt gets beside the encoder's context in a layer, by placeholder; nothing with most kinds."""
        return {}

    # ---- what models call -----------------------------------------------------------------------------------------

    def condition(self, encode: Callable[..., Any], text: Any) -> Any:
        """What the model is conditioned on, for prompts or token ids [B, N].

        Returns:
            The context [B, N, D]; those of all layers, [B, L N, D]; or, if ``timed``, token ids [B, N].

        Raises:
            UserError: ``timed``, and a prompt is in another language than English.
        """
        if self.timed:
            return self._token_ids(text)
        return self._encoded(encode, text) if self.layers else encode(text, embedding_manager=self)

    def at_timestep(self, encode: Callable[..., Any], condition: Any, t: Tensor) -> Any:
        """What ``condition`` gave, at timesteps t [B]: the context that the network takes, [B, N, D] or [B, L N, D]."""
        if not self.timed or not isinstance(condition, Tensor) or condition.is_floating_point():
            return condition
        return self._encoded(encode, condition, t)

    def row_of(self, prompt: str) -> list[int]:
        """The ids of a prompt as the encoder sees it: each learned word takes as many places as it has vectors."""
        return self.expanded(self.embedder.tokenize(prompt, self.placeholders))[0].tolist()

    def expanded(self, tokens: Tensor) -> Tensor:
        """Token ids [B, N] with each learned word in as many places as it has vectors; rows keep their length."""
        with self.paused():
            counts = {self.token(name): value.shape[-2] for name, value in self.at().items()}
        source, _ = expansion(tokens, counts)
        return tokens.gather(1, source)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is encoded within the block does not count for progressive words."""
        counter = self.progressive_counter
        try:
            yield
        finally:
            self.progressive_counter = counter

    def install(self, network: nn.Module) -> None:
        """Prepare the network for the context that ``condition`` gives, for good; ``remove`` takes that back.

        Raises:
            ConfigError: words for layers, and the network has another number of them.
        """
        if self.layers:
            self._handles += take_own_parts(network, self.layers)

    def remove(self) -> None:
        """Leave the network as it was before ``install``."""
        while self._handles:
            self._handles.pop().remove()

    # ---- as an addition -------------------------------------------------------------------------------------------

    def attach(self, model: Any, scale: float = 1.0) -> Undo:
        """Put these words beside those that the model has; a word that it has as well means what it means here.

        ``scale`` leads from the word where training began (0) to what was learned (1), and beyond.

        Raises:
            UserError: they are for another text encoder or network, or it is not known where their training began.
        """
        self._check(model, scale)
        before: Words | None = model.embedding_manager
        words: Words = self
        if before is not None:
            words = SeveralWords([before, self], [1.0, scale])
        elif scale != 1:
            words = SeveralWords([self], [scale])
        had_layers = before is not None and before.layers
        hooks: list[RemovableHandle] = []
        if words.layers and not had_layers:
            hooks = take_own_parts(model.model.diffusion_model, words.layers)
        undo_words = replace_module(model, "embedding_manager", words)

        def undo() -> None:
            undo_words()
            for hook in hooks:
                hook.remove()

        return undo

    def _check(self, model: Any, scale: float) -> None:
        encoder = model.cond_stage_model
        named = ", ".join(f"'{name}'" for name in self.placeholders)
        if not isinstance(encoder, TextEncoder):
            raise UserError(f"the model takes no text, so it has no use for the words {named}")
        if encoder.width != self.embedder.width:
            raise UserError(f"the words {named} have width {self.embedder.width}, the model's encoder {encoder.width}")
        unknown = [name for name in self.placeholders if name not in self.starts()]
        if scale != 1 and unknown:
            raise UserError(
                f"nobody knows from which word the training of '{unknown[0]}' began, so a scale of {scale:g} means "
                "nothing; use it at 1"
            )

    def _encoded(self, encode: Callable[..., Any], text: Any, t: Tensor | None = None) -> Tensor:
        """The contexts of all layers, [B, L N, D]."""
        assert self.layers is not None
        parts = [WordsAt(self, layer, t) for layer in range(1 if self.read_once else self.layers)]
        contexts = [encode(text, embedding_manager=part) for part in parts]
        if self.read_once:
            parts, contexts = parts * self.layers, contexts * self.layers
        pairs = zip(parts, contexts, strict=True)
        return torch.cat([part.with_beside(context, layer) for layer, (part, context) in enumerate(pairs)], dim=1)

    def _token_ids(self, text: Any) -> Tensor:
        device = self.embedder.vector_of(0).device
        if isinstance(text, Tensor):
            return text.to(device)
        texts = [text] if isinstance(text, str) else list(text)
        foreign = [one for one in texts if isinstance(self.embedder, Multilingual) and self.embedder.is_foreign(one)]
        if foreign:
            raise UserError(f"words for timesteps are for English prompts; '{foreign[0]}' is in another language")
        return self.embedder.tokenize(texts, self.placeholders).to(device)


@dataclass(frozen=True)
class WordsAt:
    """Words as one layer has them at timesteps [B]: an EmbeddingChange."""

    words: Words
    layer: int
    t: Tensor | None = None
    seen: list[Tensor] = field(default_factory=list)  # rows [B, N] of what an encoder reads

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The words, which a prompt is searched for."""
        return self.words.placeholders

    def __call__(self, tokens: Tensor, embedded: Tensor) -> Tensor:
        self.seen.append(tokens.clone())
        return self.words.put(tokens, embedded, self.words.at(self.layer, self.t))

    def with_beside(self, context: Tensor, layer: int) -> Tensor:
        """The context [B, N, D] of what an encoder has read -> [B, M, D], with what a layer gets beside it."""
        added = {self.words.token(name): one for name, one in self.words.beside(layer).items()}
        if not added:
            return context
        if len(added) > MOST_BESIDE:
            raise UserError(f"at most {MOST_BESIDE} words beside the context go together, got {len(added)}")
        used = [[one for token, one in added.items() if token in row] for row in torch.cat(self.seen).tolist()]
        return lengthened(context, used, len(added))


class SeveralWords(Words):
    """Words of several kinds at once; where two sets have the same word, it means what the later one says.

    Args:
        sets: at least one.
        scales: of each, from its start (0) to what was learned (1).

    Raises:
        UserError: two of them are for networks with different numbers of layers.
    """

    def __init__(self, sets: Sequence[Words], scales: Sequence[float]) -> None:
        super().__init__()
        layers = {words.layers for words in sets if words.layers}
        if len(layers) > 1:
            raise UserError(f"words for {' and for '.join(map(str, sorted(layers)))} layers do not go together")
        self.layers = next(iter(layers), None)
        self.timed = any(words.timed for words in sets)
        self.read_once = all(words.read_once for words in sets)
        self.sets = nn.ModuleList(sets)
        self.scales = tuple(scales)
        self.files = {name: path for words in sets for name, path in words.files.items()}

    @property
    def embedder(self) -> TokenSpace:
        return self._each[-1].embedder

    @property
    def placeholders(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for words in self._each for name in words.placeholders))

    def token(self, placeholder: str) -> int:
        return next(words for words in self._each if placeholder in words.placeholders).token(placeholder)

    def at(self, layer: int = 0, t: Tensor | None = None) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for words, scale in zip(self._each, self.scales, strict=True):
            vectors = words.at(layer, t)
            if scale != 1:
                starts = words.starts(layer)
                vectors = {name: _between(starts[name], value, scale) for name, value in vectors.items()}
            found |= vectors
        return found

    def beside(self, layer: int) -> dict[str, Beside]:
        found: dict[str, Beside] = {}
        for words, scale in zip(self._each, self.scales, strict=True):
            found = {name: one for name, one in found.items() if name not in words.placeholders}
            found |= {name: replace(one, amount=scale * one.amount) for name, one in words.beside(layer).items()}
        return found

    def starts(self, layer: int = 0) -> dict[str, Tensor]:
        return {name: value for words in self._each for name, value in words.starts(layer).items()}

    def learned(self) -> Sequence[nn.Parameter]:
        return [parameter for words in self._each for parameter in words.learned()]

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Raises UserError, always: each set goes into a file of its own."""
        raise UserError(f"words of several files are not written into one, '{path}'")

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for words in self._each:
                stack.enter_context(words.paused())
            yield

    @property
    def _each(self) -> list[Words]:
        return list(self.sets)  # type: ignore[arg-type]


def take_own_parts(network: nn.Module, layers: int) -> list[RemovableHandle]:
    """Have each transformer block of a network take its part of a context [B, L N, D], as long as the hooks are there.

    Raises:
        ConfigError: the network has another number of blocks.
    """
    blocks = [module for module in network.modules() if isinstance(module, BasicTransformerBlock)]
    if len(blocks) != layers:
        raise ConfigError(f"words for layers: 'layers' must be {len(blocks)} for this network, got {layers}")
    return [
        block.register_forward_pre_hook(functools.partial(_own_part, layer=layer, layers=layers))
        for layer, block in enumerate(blocks)
    ]


def _own_part(block: nn.Module, args: tuple[Any, ...], *, layer: int, layers: int) -> tuple[Any, ...]:
    """Tokens and contexts of all layers -> tokens and the context of one."""
    x, context = args
    return args if context is None else (x, context.chunk(layers, dim=1)[layer])


def _between(start: Tensor, learned: Tensor, scale: float) -> Tensor:
    """[n, D] and [n', D] or [B, n', D], n' at most n -> as ``learned``."""
    start = start[: learned.shape[-2]]
    return start + scale * (learned - start)
