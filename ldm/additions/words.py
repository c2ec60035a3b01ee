"""Textual inversion (Gal et al. 2022): words whose vectors are learned, and their place in a text encoder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.additions.placeholders import spread
from ldm.additions.vector_dict import VectorDict
from ldm.additions.vocabulary import Words
from ldm.checkpoint.embeddings import IN_CONTEXT, PER_LAYER, EmbeddingFile, read_embedding, write_embedding
from ldm.modules.encoders.base import TokenSpace
from ldm.util import ConfigError, UserError

PER_IMAGE_WORDS = tuple("אבגדהוזחטיכלמנסעפצקרשת")  # one for each training picture, as the original has them
STEPS_PER_VECTOR = 2000  # progressive words: one more vector after as many looks at a placeholder

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class EmbeddingManager(Words):
    """The learned vectors of placeholders; an encoder calls it between its token vectors and its positions.

    State dict: ``string_to_param_dict.<placeholder>`` [n, D], what is learned, and ``initial_embeddings.<placeholder>``
    [n, D], where it began (for placeholders with an initial word).

    Initial vectors come from the encoder's own: a word of several tokens is spread over the vectors, or averaged into
    one. They are taken anew whenever weights are loaded, until the vectors have been trained.

    Args:
        embedder: the text encoder whose tokens and vectors these are.
        placeholder_strings: words or signs of any kind.
        initializer_words: what each placeholder begins from, in the same order; without one it begins from uniform
            random numbers in [0, 1).
        per_image_tokens: one further placeholder for each training picture, True for letters, or a list of words.
        num_vectors_per_token: n.
        progressive_words: begin with one vector and add one after every 2000 looks at a placeholder.
        embedding_manager_ckpt: a file to go on with.

    Raises:
        ConfigError: ``num_vectors_per_token`` is below 1.
        UserError: two placeholders that are one to the encoder, an initial word that its vocabulary does not have, or a
            file that does not fit. Only words are checked later, at the first use, where the encoder is still on the
            meta device.
    """

    read_once = True

    def __init__(
        self,
        embedder: TokenSpace,
        placeholder_strings: Sequence[str] | None = None,
        initializer_words: Sequence[str] | None = None,
        per_image_tokens: bool | Sequence[str] = False,
        num_vectors_per_token: int = 1,
        progressive_words: bool = False,
        embedding_manager_ckpt: str | None = None,
    ) -> None:
        super().__init__()
        if num_vectors_per_token < 1:
            raise ConfigError(f"num_vectors_per_token must be at least 1, got {num_vectors_per_token}")
        self._embedder = (embedder,)  # in a tuple, so that its weights are not part of this module's state
        self._tokens: dict[str, int] = {}
        self.max_vectors_per_token = num_vectors_per_token
        self.progressive_words = progressive_words
        self.progressive_counter = 0
        own = [] if placeholder_strings is None else list(placeholder_strings)
        words = [] if initializer_words is None else list(initializer_words)
        self.init_words = {name: word for name, word in zip(own, words, strict=False) if word}
        own += PER_IMAGE_WORDS if per_image_tokens is True else (per_image_tokens or ())
        self.string_to_param_dict = VectorDict()
        self.initial_embeddings = VectorDict()
        for name in own:
            self._begin(name)
        self.register_load_state_dict_post_hook(_take_initial_vectors_anew)
        self.take_initial_vectors()
        if embedding_manager_ckpt:
            self.load(embedding_manager_ckpt)

    # ---- what learns ----------------------------------------------------------------------------------------------

    def embedding_parameters(self) -> Iterable[nn.Parameter]:
        """What is learned."""
        return self.string_to_param_dict.parameters()

    def learned(self) -> Sequence[nn.Parameter]:
        return list(self.embedding_parameters())

    def embedding_to_coarse_loss(self) -> Tensor:
        """How far the vectors P are from their start P0: the mean of (P - P0)(P - P0)^T over placeholders, [n, n]."""
        products = [change @ change.T for change in self.changes()]
        return torch.stack(products).mean(dim=0) if products else torch.zeros(1, 1, device=self._device)

    def changes(self) -> list[Tensor]:
        """How far the vectors of each placeholder are from their start, where that is known."""
        return [self.vectors(name) - start for name, start in self.initial_embeddings.items()]

    def get_embedding_norms_squared(self) -> Tensor:
        """|v|^2 of every vector, placeholder by placeholder: [number of vectors]."""
        return torch.cat(list(self.string_to_param_dict.values())).square().sum(dim=-1)

    # ---- placeholders and vectors ---------------------------------------------------------------------------------

    @property
    def embedder(self) -> TokenSpace:
        """The text encoder."""
        return self._embedder[0]

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The words that have learned vectors."""
        return tuple(self.string_to_param_dict.keys())

    @property
    def rows(self) -> int:
        """The number of vectors that are kept for a new placeholder."""
        return self.max_vectors_per_token

    @property
    def width(self) -> int:
        """D, the width of the encoder's token vectors."""
        return self.embedder.width

    @property
    def string_to_token_dict(self) -> dict[str, Tensor]:
        """Placeholder -> its id as a tensor without dimensions."""
        return {name: torch.tensor(self.token(name)) for name in self.placeholders}

    def vectors(self, placeholder: str) -> nn.Parameter:
        """The learned vectors [n, D] of a placeholder."""
        return self.string_to_param_dict[placeholder]

    def initial(self, placeholder: str) -> Tensor | None:
        """Where its training began, [n, D], if that is known."""
        return self.initial_embeddings.get(placeholder)

    def shown(self, placeholder: str) -> Tensor:
        """The vectors that a prompt gets now: all of them, or the first ones where words are progressive."""
        vectors = self.vectors(placeholder)
        if not self.progressive_words or self.max_vectors_per_token == 1:
            return vectors
        self.progressive_counter += 1
        return vectors[: 1 + self.progressive_counter // STEPS_PER_VECTOR]

    def at(self, layer: int = 0, t: Tensor | None = None) -> dict[str, Tensor]:
        return {name: self.shown(name) for name in self.placeholders}

    def starts(self, layer: int = 0) -> dict[str, Tensor]:
        return dict(self.initial_embeddings.items())

    def token(self, placeholder: str) -> int:
        """The id of a placeholder in rows of tokens; negative where it is no single token of the encoder.

        Raises:
            UserError: it is empty, or another placeholder means the same to the encoder.
        """
        if placeholder not in self._tokens:
            self._tokens[placeholder] = _token_of(self.embedder, placeholder, self._tokens)
        return self._tokens[placeholder]

    def used_in(self, prompt: str) -> list[str]:
        """The placeholders that a prompt uses."""
        tokens = set(self.embedder.tokenize(prompt, self.placeholders).flatten().tolist())
        return [name for name in self.placeholders if self.token(name) in tokens]

    def add_vectors(self, vectors: Mapping[str, Tensor]) -> None:
        """Give placeholders the vectors [n, D]; those that are there already get these in place of theirs.

        Raises:
            UserError: two placeholders that are one to the encoder, or vectors of another width.
        """
        for name, value in vectors.items():
            if value.dim() != 2 or value.shape[1] != self.width:
                raise UserError(f"the vectors of '{name}' are {list(value.shape)}; this model needs [n, {self.width}]")
            if not self._is_meta:
                self.token(name)
            self.string_to_param_dict[name] = nn.Parameter(self._own(value))
            start = self.initial(name)
            if start is not None and not self._belong(start, value):
                del self.initial_embeddings[name]

    def set_vectors(self, vectors: Mapping[str, Tensor]) -> None:
        """Have these placeholders and no others; see ``add_vectors``."""
        for name in self.placeholders:
            del self.string_to_param_dict[name]
            if name not in vectors and name in self.initial_embeddings:
                del self.initial_embeddings[name]
        self._tokens.clear()
        self.add_vectors(vectors)

    # ---- files ----------------------------------------------------------------------------------------------------

    def load(self, paths: Paths, rename: Mapping[str, str] | None = None) -> None:
        """Have the placeholders of one or more files, and no others.

        Args:
            paths: files of any known format.
            rename: placeholder in a file -> what it is called here.

        Raises:
            UserError: a file that is no embedding, of another width, or with a word that another file has as well.
        """
        paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        files = [self._read(path, rename or {}) for path in paths]
        seen: set[str] = set()
        for path, file in zip(paths, files, strict=True):
            twice = next((name for name in file.vectors if name in seen), None)
            if twice is not None:
                raise UserError(f"'{path}' has the placeholder '{twice}', which another file has as well; rename one")
            seen |= file.vectors.keys()
        self.take(files)
        self.files = {name: Path(path) for path, file in zip(paths, files, strict=True) for name in file.vectors}

    def take(self, files: Iterable[EmbeddingFile]) -> None:
        """Have the words that were read from files, and no others.

        Raises:
            UserError: as ``add_vectors``.
        """
        files = list(files)
        self.set_vectors({name: value for file in files for name, value in file.vectors.items()})
        for file in files:
            for name, start in file.initial.items():
                if self._belong(start, self.vectors(name)):
                    self.initial_embeddings[name] = nn.Parameter(self._own(start), requires_grad=False)
                    self.init_words.pop(name, None)  # the file knows better where it began

    def _read(self, path: str | os.PathLike[str], rename: Mapping[str, str]) -> EmbeddingFile:
        file = read_embedding(path)
        file.check_width(self.width, origin=path)
        self._check_kind(file, path)
        names = {old: new for old, new in rename.items() if old in file.vectors}
        return file.renamed(names) if names else file

    def _check_kind(self, file: EmbeddingFile, origin: object) -> None:
        """Refuse what other kinds of words have in their files."""
        manager = {PER_LAYER: "Layered", IN_CONTEXT: "Context"}.get(file.metadata.get("kind", ""))
        if manager is not None:
            layers = file.metadata.get("layers")
            raise UserError(f"'{origin}' holds words for {layers} layers; {manager}EmbeddingManager goes on with them")

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Write all placeholders; the suffix chooses the format, ``.pt`` is the original's.

        Raises:
            UserError: there are none, an unknown suffix, or no space.
        """
        if not self.placeholders:
            raise UserError(f"there is no learned word to write to '{path}'")
        vectors = {name: self.vectors(name).detach().float().cpu() for name in self.placeholders}
        initial = {name: start.detach().float().cpu() for name, start in self.initial_embeddings.items()}
        tokens = {name: self.token(name) for name in self.placeholders if self.token(name) >= 0}
        write_embedding(path, EmbeddingFile(vectors, self._about() | dict(metadata or {}), initial, tokens))

    def _about(self) -> dict[str, str]:
        words = [f"{name}: {word}" for name, word in self.init_words.items()]
        about = {"name": self.placeholders[0], "family": self.embedder.family}
        return about | ({"init_words": ", ".join(words)} if words else {})

    # ---- beginnings -----------------------------------------------------------------------------------------------

    def take_initial_vectors(self) -> None:
        """Begin from the vectors that the initial words have in the encoder now.

        What has been trained stays as it is; its start is still that of its word.

        Raises:
            UserError: two placeholders that are one to the encoder, or a word that it does not have.
        """
        if self._is_meta:
            return
        for name in self.placeholders:
            self.token(name)
            if name in self.init_words:
                start = self.initial_embeddings[name]
                untrained = torch.equal(self.vectors(name), start)
                start.data.copy_(self._start_of(self.init_words[name], len(start)))
                if untrained:
                    self.vectors(name).data.copy_(start)

    def _start_of(self, word: str, count: int) -> Tensor:
        pieces = [self.embedder.initial_vector(token) for token in self.embedder.pieces_of(word)]
        return spread(torch.stack(pieces).float(), count)

    def _begin(self, name: str) -> None:
        """A new placeholder: random, or zeros until its word's vectors are known."""
        if VectorDict.attribute_of(name) != name:  # the original's own format has no place for it
            raise UserError(f"a word that learns cannot be called '{name}': it has a dot or means something to torch")
        shape = (self.rows, self.embedder.width)
        if name not in self.init_words:
            self.string_to_param_dict[name] = nn.Parameter(torch.rand(shape, device="cpu"))
            return
        start = torch.zeros(shape, device="cpu")
        self.string_to_param_dict[name] = nn.Parameter(start.clone())
        self.initial_embeddings[name] = nn.Parameter(start, requires_grad=False)

    def _belong(self, start: Tensor, vectors: Tensor) -> bool:
        """Whether vectors can have begun there, by their shapes."""
        return start.shape == vectors.shape

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Placeholders and numbers of vectors are those of the weights, where they have any."""
        for part in (self.string_to_param_dict, self.initial_embeddings):
            own = prefix + ("string_to_param_dict." if part is self.string_to_param_dict else "initial_embeddings.")
            for key, value in state_dict.items():
                name = VectorDict.name_of(key.removeprefix(own))
                if key.startswith(own) and (name not in part or part[name].shape != value.shape):
                    fresh = torch.empty(value.shape, device="cpu")
                    part[name] = nn.Parameter(fresh, requires_grad=part is self.string_to_param_dict)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _own(self, value: Tensor) -> Tensor:
        """A copy in float32 where the encoder is."""
        return value.detach().to(self._device, torch.float32, copy=True)

    @property
    def _device(self) -> torch.device:
        device = self.embedder.vector_of(0).device
        return torch.device("cpu") if device.type == "meta" else device

    @property
    def _is_meta(self) -> bool:
        return self.embedder.vector_of(0).is_meta


def check_layers(layers: int, words: Mapping[str, Any]) -> None:
    """Refuse parameters that words for layers do not have.

    Raises:
        ConfigError: no layers, or words that get more vectors from time to time.
    """
    if layers < 1 or words.get("progressive_words"):
        raise ConfigError(f"words for layers need layers >= 1 and no progressive_words, got {layers} layers")


def _take_initial_vectors_anew(manager: nn.Module, incompatible: Any) -> None:
    """After weights without learned words were loaded: the encoder's own words may have other vectors now."""
    assert isinstance(manager, EmbeddingManager)
    if any("string_to_param_dict." in key for key in incompatible.missing_keys):
        manager.take_initial_vectors()


def _token_of(embedder: TokenSpace, word: str, taken: Mapping[str, int]) -> int:
    """The id of a placeholder, which must not be that of another one among ``taken``."""
    token = embedder.placeholder_id(word)
    same = next((other for other, its in taken.items() if its == token and other != word), None)
    if same is not None:
        raise UserError(f"the placeholders '{word}' and '{same}' are the same token for this text encoder; rename one")
    return token
