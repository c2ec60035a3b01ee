"""Placeholders of any spelling, found in prompts whatever stands beside them, in every text encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ldm.additions.base import applied
from ldm.additions.reading import read_additions
from ldm.additions.timed_words import TimedEmbeddingManager
from ldm.additions.words import PER_IMAGE_WORDS, EmbeddingManager
from ldm.checkpoint import EmbeddingFile, read_embedding, write_embedding
from ldm.modules.encoders.base import TextEncoder
from ldm.modules.encoders.learned_words import split_at, stand_in
from ldm.modules.encoders.modules import BERTEmbedder, FrozenCLIPEmbedder, FrozenOpenCLIPEmbedder
from ldm.util import UserError
from ldm.workflows.look.inspection import word_positions
from tests.models.small_words import small_model
from tests.modules.encoders.vocabularies import bpe_size, write_bpe
from tests.workflows.small_model import WORDS

N = 40
NAMES = ["*", "@", "<cat-toy>", "my cat", "א", "v1.5", "pop"]
BESIDE = ["a photo of {}, at night", '"{}"', "{}'s", "({})", "{}.", "a-{}-b", "{}", "the {} {}"]


def bert(folder: Path) -> TextEncoder:
    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*WORDS, "*", "@", "cat", *letters, *".,-'\"()<>", *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(words)) + "\n")
    size = len(dict.fromkeys(words))
    return BERTEmbedder(16, 1, size, N, tokenizer=str(folder / "vocab.txt"))


def clip(folder: Path) -> TextEncoder:
    size = bpe_size(write_bpe(folder))
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = {**sizes, "vocab_size": size, "eos_token_id": size - 1, "max_position_embeddings": N}
    return FrozenCLIPEmbedder(version="tiny", tokenizer=str(folder), config=config, max_length=N)


def open_clip(folder: Path) -> TextEncoder:
    size = bpe_size(write_bpe(folder))
    config = {"embed_dim": 16, "width": 16, "heads": 2, "layers": 1, "context_length": N, "vocab_size": size}
    return FrozenOpenCLIPEmbedder(tokenizer=str(folder), config=config, max_length=N)


@pytest.fixture(params=[bert, clip, open_clip])
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> TextEncoder:
    torch.manual_seed(0)
    build: Callable[[Path], TextEncoder] = request.param
    made = build(tmp_path / "vocabulary").eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    return made


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_word_is_found_whatever_stands_beside_it(encoder: TextEncoder, name: str) -> None:
    """Its vectors are in the prompt, once for each place, and the rest of the prompt is as it was."""
    manager = EmbeddingManager(encoder)
    vectors = torch.randn(2, 16)
    manager.set_vectors({name: vectors})
    for text in (template.replace("{}", name) for template in BESIDE):
        seen: dict[str, Any] = {}

        def change(tokens: Any, embedded: Any, seen: dict[str, Any] = seen) -> Any:
            seen["embedded"] = manager(tokens, embedded).clone()
            seen["tokens"] = tokens.clone()
            return embedded

        change.placeholders = manager.placeholders  # type: ignore[attr-defined]
        encoded = encoder.encode([text, text], embedding_manager=change)
        count = text.count(name)
        assert torch.isfinite(encoded).all()
        for row, tokens in zip(seen["embedded"], seen["tokens"], strict=True):
            own = tokens == manager.token(name)
            assert int(own.sum()) == 2 * count, (text, tokens)
            torch.testing.assert_close(row[own], vectors.repeat(count, 1))
        others = [token for token in seen["tokens"][0].tolist() if token != manager.token(name)]
        tokenizer: Any = encoder.tokenizer
        pieces = [piece for before, _ in split_at(text, [name]) for piece in tokenizer.pieces(before)]
        assert others[1 : 1 + len(pieces)] == pieces
        assert manager.used_in(text) == [name]


def test_the_word_of_a_caption_learns(encoder: TextEncoder) -> None:
    """Whatever stands beside it, in an encoder that is frozen or learns as well."""
    for learns in (False, True):
        encoder.requires_grad_(learns)
        manager = EmbeddingManager(encoder, ["*", "<cat-toy>"])
        text = ["a photo of *, at night", "(<cat-toy>)", "a * 's"]
        manager.condition(encoder.encode, text).square().sum().backward()
        for name in manager.placeholders:
            grad = manager.vectors(name).grad
            assert grad is not None and grad.abs().sum() > 0


def test_one_placeholder_for_each_picture(encoder: TextEncoder) -> None:
    manager = EmbeddingManager(encoder, ["*"], per_image_tokens=True)
    assert len(manager.placeholders) == 1 + len(PER_IMAGE_WORDS)
    assert len({manager.token(name) for name in manager.placeholders}) == 1 + len(PER_IMAGE_WORDS)
    assert manager.used_in(f"a photo of {PER_IMAGE_WORDS[3]} *") == ["*", PER_IMAGE_WORDS[3]]


def test_where_a_word_is_and_is_not() -> None:
    def found(text: str, *names: str) -> list[str]:
        return [name for _, name in split_at(text, names) if name is not None]

    assert found("sks, SKS's sks를 asks sks2 ésks skséd", "sks") == ["sks", "sks", "sks"]
    assert found("a catfish, <cat> and a cat", "cat", "<cat>") == ["<cat>", "cat"]
    assert found("**", "*") == ["*", "*"] and found("", "*") == [] and found("a*b", "*") == ["*"]
    assert list(split_at("a * b", [])) == [("a * b", None)]
    assert stand_in("<cat>") == stand_in("<CAT>") < 0 and stand_in("<cat>") != stand_in("<dog>")


def test_markers_and_padding_are_no_words(encoder: TextEncoder) -> None:
    """Such a placeholder is found where it is written, and nowhere else."""
    for name in ("[SEP]", "<|endoftext|>", "!"):
        assert EmbeddingManager(encoder, [name]).used_in("a cat") == []
        assert EmbeddingManager(encoder, [name]).used_in(f"a cat {name}") == [name]


@pytest.mark.parametrize("suffix", [".bin", ".safetensors", ".pt"])
def test_files_keep_the_name(tmp_path: Path, suffix: str) -> None:
    model = small_model(tmp_path).eval()
    path = tmp_path / f"learned{suffix}"
    write_embedding(path, EmbeddingFile({"<cat-toy>": torch.randn(2, 16)}))
    (words,) = read_additions(model, str(path))
    plain = model.get_learned_conditioning(["a <cat-toy>, red"])
    with applied(model, [words]):
        assert not torch.allclose(model.get_learned_conditioning(["a <cat-toy>, red"]), plain, atol=1e-3)
    words.save(tmp_path / "again.safetensors")
    words.save(tmp_path / "again.pt")
    for again in ("again.safetensors", "again.pt"):
        assert list(read_embedding(tmp_path / again).vectors) == ["<cat-toy>"]
        assert not any(read_embedding(tmp_path / again).tokens.values()), "the number means nothing elsewhere"


def test_names_that_torch_would_not_take(tmp_path: Path) -> None:
    encoder = small_model(tmp_path).cond_stage_model
    names = ["v1.5", "pop", "a.b.c", "_keys", "training", "forward"]
    manager = EmbeddingManager(encoder)
    manager.set_vectors({name: torch.randn(1, 16) for name in names})
    other = EmbeddingManager(encoder)
    other.load_state_dict(manager.state_dict(), strict=False)
    assert other.placeholders == tuple(names)
    assert all(torch.equal(other.vectors(name), manager.vectors(name)) for name in names)
    with pytest.raises(UserError, match=r"a word that learns cannot be called 'v1\.5'"):
        EmbeddingManager(encoder, ["v1.5"])


@torch.no_grad()
def test_words_for_timesteps_may_have_any_name_too(tmp_path: Path) -> None:
    model = small_model(tmp_path).eval()
    manager = TimedEmbeddingManager(
        model.cond_stage_model, 4, placeholder_strings=["my cat", "*"], initializer_words=["red", "blue"]
    )
    for parameter in manager.learned():
        nn.init.normal_(parameter)
    manager.save(tmp_path / "a.safetensors")
    (words,) = read_additions(model, f"{tmp_path / 'a.safetensors'}=my cat:<v1.5>")
    assert isinstance(words, TimedEmbeddingManager) and words.placeholders == ("<v1.5>", "*")
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([500])
    outputs = []
    for addition, prompt in ((manager, "a my cat, red"), (words, "a <v1.5>, red")):
        with applied(model, [addition]):
            outputs.append(model.apply_model(x, t, model.get_learned_conditioning([prompt])))
    torch.testing.assert_close(*outputs)


def test_where_words_are_in_the_context(tmp_path: Path) -> None:
    """A learned word has as many places as vectors, and what follows it moves on."""
    model = small_model(tmp_path).eval()
    manager = EmbeddingManager(model.cond_stage_model)
    manager.set_vectors({"<cat-toy>": torch.randn(2, 16)})
    assert word_positions(model, "a red circle", "red") == [2]
    with applied(model, [manager]):
        assert word_positions(model, "a <cat-toy>, red", "<cat-toy>") == [2, 3]
        assert word_positions(model, "<cat-toy> red a", "red") == [3]
        with pytest.raises(UserError, match="has no word 'blue'"):
            word_positions(model, "<cat-toy>", "blue")
