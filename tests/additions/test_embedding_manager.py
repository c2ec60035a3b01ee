"""Learned words: the original's numbers, any encoder, any number of vectors and placeholders, files and bad input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ldm.additions.words import PER_IMAGE_WORDS, EmbeddingManager
from ldm.checkpoint import load_weights, read_file
from ldm.data.templates import PER_IMAGE_WORDS as PER_IMAGE_WORDS_OF_THE_DATA
from ldm.modules.encoders.base import TextEncoder, TokenSpace
from ldm.modules.encoders.modules import BERTEmbedder
from ldm.modules.encoders.open_clip import FrozenOpenCLIPEmbedder
from ldm.util import ConfigError, UserError, instantiate_from_config
from tests.helpers import GoldenCase, golden_case, golden_embedder

CASES = ("ti_bert", "ti_clip")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "*", "@", "cat", "dog", "red", "a", "of", "photo", "t", "##oy"]


class Vocabulary:
    """A tokenizer of whole words; everything else is unknown, and a word with a dash is several."""

    unknown = 1

    def __init__(self, words: dict[str, int], max_length: int) -> None:
        self.words, self.max_length = words, max_length

    def pieces(self, text: str) -> list[int]:
        return [self.words.get(word, self.unknown) for word in text.replace("-", " ").split()]

    def __call__(self, text: str | Sequence[str]) -> Tensor:
        return self.rows([self.pieces(one) for one in ([text] if isinstance(text, str) else text)])

    def rows(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([[*row, *[0] * (self.max_length - len(row))] for row in pieces])


def embedder_of(case: GoldenCase) -> TextEncoder:
    model = golden_embedder(case)
    model.tokenizer = Vocabulary(case.args["vocabulary"], case.inputs["tokens"].shape[1])
    return model


def manager_of(case: GoldenCase, name: str, embedder: TextEncoder) -> EmbeddingManager:
    """One of the case's managers, through the configuration and the state-dict keys that it has there."""
    node: Any = case.config.personalization_config
    node.params.num_vectors_per_token = 1 if name == "v1" else case.args["num_vectors_N"]
    node.params.progressive_words = name == "prog"
    manager = instantiate_from_config(node, embedder=embedder)
    own = f"managers.{name}."
    manager.load_state_dict({k.removeprefix(own): v for k, v in case.weights.items() if k.startswith(own)})
    return manager


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["v1", "vN"])
@torch.no_grad()
def test_golden(name: str, kind: str) -> None:
    case = golden_case(name)
    embedder = embedder_of(case)
    manager = manager_of(case, kind, embedder)
    case.assert_close(f"{kind}.coarse_loss", manager.embedding_to_coarse_loss())
    case.assert_close(f"{kind}.norms_sq", manager.get_embedding_norms_squared())
    case.assert_close(f"{kind}.encoded", embedder.encode(case.inputs["tokens"], embedding_manager=manager))
    tokens, embedded = case.inputs["tokens"], case.inputs["embedded"]
    assert manager(tokens, embedded) is embedded, "the arguments themselves are changed"
    case.assert_close(f"{kind}.embedded", embedded)
    case.assert_close(f"{kind}.tokens", tokens)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_golden_progressive_words(name: str) -> None:
    for counter in golden_case(name).args["progressive_counter_before"]:
        case = golden_case(name)
        manager = manager_of(case, "prog", embedder_of(case))
        manager.progressive_counter = counter
        tokens, embedded = case.inputs["tokens"], case.inputs["embedded"]
        manager(tokens, embedded)
        case.assert_close(f"prog{counter}.embedded", embedded)
        case.assert_close(f"prog{counter}.tokens", tokens)
        case.assert_close(f"prog{counter}.counter_after", torch.tensor([manager.progressive_counter]))


@pytest.mark.parametrize("name", CASES)
def test_golden_initial_vectors(name: str) -> None:
    case = golden_case(name)
    node = case.config.personalization_config
    manager = instantiate_from_config(node, embedder=embedder_of(case))
    for placeholder, word in zip(case.args["placeholders"], case.args["initializer_words"], strict=True):
        case.assert_close(f"initial.{word}", manager.vectors(placeholder))
        case.assert_close(f"initial.{word}", manager.initial(placeholder))
    assert not manager.embedding_to_coarse_loss().any()


@pytest.mark.parametrize("name", CASES)
def test_the_file_has_the_originals_layout(name: str, tmp_path: Path) -> None:
    case = golden_case(name)
    manager = manager_of(case, "vN", embedder_of(case))
    manager.save(tmp_path / "embeddings_gs-7.pt")
    loaded = torch.load(tmp_path / "embeddings_gs-7.pt", weights_only=False)
    assert type(loaded["string_to_param"]) is nn.ParameterDict
    assert list(loaded["string_to_param"]) == case.args["placeholders"]
    for word in case.args["placeholders"]:
        token = loaded["string_to_token"][word]
        assert token.dim() == 0 and token.dtype is torch.int64 and int(token) == case.args["vocabulary"][word]
        assert torch.equal(loaded["string_to_param"][word], manager.vectors(word))

    again = EmbeddingManager(embedder_of(case), ["@"], ["cat"])  # one vector configured, three in the file
    again.load(tmp_path / "embeddings_gs-7.pt")
    tokens, embedded = case.inputs["tokens"], case.inputs["embedded"]
    with torch.no_grad():
        again(tokens, embedded)
    case.assert_close("vN.embedded", embedded)
    assert list(again.string_to_param_dict) == ["*", "@"], "in the file's order"


def test_a_file_that_the_original_wrote_loads(tmp_path: Path) -> None:
    case = golden_case("ti_bert")
    embedder = embedder_of(case)
    own = "managers.v1.string_to_param_dict."
    vectors = {k.removeprefix(own): v for k, v in case.weights.items() if k.startswith(own)}
    torch.save(
        {
            "string_to_token": {word: torch.tensor(case.args["vocabulary"][word]) for word in vectors},
            "string_to_param": nn.ParameterDict({word: nn.Parameter(value) for word, value in vectors.items()}),
        },
        tmp_path / "embeddings.pt",
    )
    manager = EmbeddingManager(embedder, embedding_manager_ckpt=str(tmp_path / "embeddings.pt"))
    with torch.no_grad():
        case.assert_close("v1.encoded", embedder.encode(case.inputs["tokens"], embedding_manager=manager))


# ---- encoders with a real tokenizer ----------------------------------------------------------------------------------


@pytest.fixture
def bert(tmp_path: Path) -> BERTEmbedder:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    torch.manual_seed(0)
    return BERTEmbedder(16, 1, len(WORDS), 10, tokenizer=str(tmp_path / "vocab.txt"))


def test_every_encoder_is_a_token_space(bert: BERTEmbedder) -> None:
    tower = {"embed_dim": 16, "width": 16, "heads": 2, "layers": 1, "context_length": 8, "vocab_size": 12}
    open_clip = FrozenOpenCLIPEmbedder("tiny", max_length=8, config=tower)
    open_clip.tokenizer = Vocabulary({"*": 4, "cat": 6}, 8)
    for embedder in (bert, open_clip, embedder_of(golden_case("ti_clip"))):
        assert isinstance(embedder, TokenSpace)
        manager = EmbeddingManager(embedder, ["*"], ["cat"], num_vectors_per_token=2)
        tokens = torch.full((2, embedder.max_length), manager.token("*"))
        encoded = embedder.encode(tokens, embedding_manager=manager)
        encoded.square().mean().backward()
        gradient = manager.vectors("*").grad
        assert gradient is not None and gradient.abs().sum() > 0


def test_a_word_of_several_tokens_is_spread_or_averaged(bert: BERTEmbedder) -> None:
    t, oy = (bert.vector_of(WORDS.index(piece)) for piece in ("t", "##oy"))
    two = EmbeddingManager(bert, ["*"], ["toy"], num_vectors_per_token=2)
    assert torch.equal(two.vectors("*"), torch.stack([t, oy]))
    one = EmbeddingManager(bert, ["*"], ["toy"])
    torch.testing.assert_close(one.vectors("*")[0], (t + oy) / 2)
    several = EmbeddingManager(bert, ["*", "@"], ["red cat", "dog"], num_vectors_per_token=4)
    red, cat = (bert.vector_of(WORDS.index(word)) for word in ("red", "cat"))
    assert torch.equal(several.vectors("*"), torch.stack([red, red, cat, cat]))
    assert torch.equal(several.vectors("@")[3], bert.vector_of(WORDS.index("dog")))


def test_without_an_initial_word_a_placeholder_is_random(bert: BERTEmbedder) -> None:
    manager = EmbeddingManager(bert, ["*", "@"], ["cat"], num_vectors_per_token=3)
    random = manager.vectors("@")
    assert random.shape == (3, 16) and random.min() >= 0 and random.max() < 1 and random.std() > 0.1
    assert manager.initial("@") is None and manager.initial("*") is not None


def test_per_image_words(bert: BERTEmbedder) -> None:
    assert PER_IMAGE_WORDS == PER_IMAGE_WORDS_OF_THE_DATA and len(PER_IMAGE_WORDS) == 22
    manager = EmbeddingManager(bert, ["*"], ["cat"], per_image_tokens=["red", "dog"])
    assert manager.placeholders == ("*", "red", "dog")
    letters = EmbeddingManager(bert, ["*"], per_image_tokens=True)  # of which the vocabulary has none
    assert letters.used_in("a photo of א*") == ["*", "א"]


def initial(manager: EmbeddingManager, placeholder: str) -> torch.Tensor:
    """The vectors that a placeholder began from, which it must have."""
    vectors = manager.initial(placeholder)
    assert vectors is not None
    return vectors


def test_weights_that_come_later_bring_the_initial_vectors_along(bert: BERTEmbedder) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cond_stage_model = bert
            self.embedding_manager = EmbeddingManager(bert, ["*", "@"], ["cat", "dog"])

    model = Model()
    assert not [key for key in model.state_dict() if key.startswith("embedding_manager") and "embedder" in key]
    model.embedding_manager.vectors("@").data.add_(1)  # trained
    trained = model.embedding_manager.vectors("@").clone()
    fresh = {k: torch.randn_like(v) for k, v in model.state_dict().items() if k.startswith("cond_stage_model")}
    load_weights(model, fresh)
    table = fresh["cond_stage_model.transformer.token_emb.weight"]
    assert torch.equal(model.embedding_manager.vectors("*")[0], table[WORDS.index("cat")])
    assert torch.equal(initial(model.embedding_manager, "@")[0], table[WORDS.index("dog")])
    assert torch.equal(model.embedding_manager.vectors("@"), trained)


def test_a_model_from_the_meta_device_begins_from_the_real_vectors(tmp_path: Path, bert: BERTEmbedder) -> None:
    vocabulary = str(tmp_path / "vocab.txt")

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cond_stage_model = BERTEmbedder(16, 1, len(WORDS), 10, tokenizer=vocabulary)
            self.embedding_manager = EmbeddingManager(self.cond_stage_model, ["*"], ["cat"])

    with torch.device("meta"):
        model = Model()
    report = load_weights(model, {f"cond_stage_model.{k}": v for k, v in bert.state_dict().items()})
    assert report.missing == [], "a checkpoint without learned words lacks nothing"
    assert torch.equal(model.embedding_manager.vectors("*")[0], bert.vector_of(WORDS.index("cat")))


def test_a_state_dict_decides_which_placeholders_there_are(bert: BERTEmbedder) -> None:
    trained = EmbeddingManager(bert, ["@"], ["dog"], num_vectors_per_token=3)
    trained.vectors("@").data.add_(1)
    manager = EmbeddingManager(bert, ["@"], ["cat"])
    manager.load_state_dict(trained.state_dict())
    assert torch.equal(manager.vectors("@"), trained.vectors("@"))
    assert torch.equal(initial(manager, "@"), initial(trained, "@"))


def test_saving_loading_renaming(bert: BERTEmbedder, tmp_path: Path) -> None:
    manager = EmbeddingManager(bert, ["*"], ["cat"], num_vectors_per_token=2)
    manager.vectors("*").data.add_(1)
    manager.save(tmp_path / "a.safetensors", {"steps": "7"})
    manager.save(tmp_path / "b.pt")
    other = EmbeddingManager(bert, ["@"], ["dog"])
    other.load([tmp_path / "a.safetensors"], rename={"*": "red"})
    assert other.placeholders == ("red",) and torch.equal(other.vectors("red"), manager.vectors("*"))
    assert torch.equal(initial(other, "red"), initial(manager, "*"))
    with pytest.raises(UserError, match=r"b\.pt' has the placeholder '\*', which another file has as well"):
        other.load([tmp_path / "a.safetensors", tmp_path / "b.pt"])
    assert other.used_in("a photo of red") == ["red"] and other.used_in("a photo of *") == []
    assert set(read_file(tmp_path / "b.pt")) >= {"string_to_token", "string_to_param"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"placeholder_strings": ["*", " "]}, "at least one letter or sign"),
        ({"placeholder_strings": ["<toy>", "<TOY>"]}, "'<TOY>' and '<toy>' are the same token"),
        ({"placeholder_strings": ["cat", "CAT"]}, "'CAT' and 'cat' are the same token"),
        ({"placeholder_strings": ["a.b"]}, r"cannot be called 'a\.b'"),
        ({"placeholder_strings": ["*"], "initializer_words": ["zebra"]}, "'zebra' is not in the vocabulary"),
        ({"num_vectors_per_token": 0}, "at least 1, got 0"),
        ({"embedding_manager_ckpt": "missing.pt"}, "missing.pt"),
    ],
)
def test_bad_input(bert: BERTEmbedder, options: dict[str, Any], message: str) -> None:
    with pytest.raises((UserError, ConfigError), match=message):
        EmbeddingManager(bert, **options)


def test_another_models_file_is_refused(bert: BERTEmbedder, tmp_path: Path) -> None:
    torch.save({"*": torch.randn(768)}, tmp_path / "sd.bin")
    manager = EmbeddingManager(bert, ["*"], ["cat"])
    with pytest.raises(UserError, match=r"made for Stable Diffusion v1 \(width 768\), but the loaded model is"):
        manager.load(tmp_path / "sd.bin")
    assert manager.placeholders == ("*",) and manager.vectors("*").shape == (1, 16)
