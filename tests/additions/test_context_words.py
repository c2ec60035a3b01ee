"""Words with vectors beside the text encoder's context: what layers get, scales, several words, files, refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from ldm.additions.base import applied
from ldm.additions.context_words import ContextEmbeddingManager
from ldm.additions.layered_words import LayeredEmbeddingManager
from ldm.additions.reading import read_words
from ldm.additions.vocabulary import SeveralWords
from ldm.additions.words import EmbeddingManager
from ldm.checkpoint import read_embedding, write_embedding
from ldm.checkpoint.embedding_sources import merge_embeddings
from ldm.modules.attention import BasicTransformerBlock
from ldm.modules.encoders.modules import BERTEmbedder
from ldm.util import ConfigError, UserError
from scripts.inspect_embedding import describe
from tests.models.small_words import small_model

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "*", "cat", "dog", "a", "of", "photo"]
LAYERS, LENGTH, WIDTH = 3, 10, 16
TEXTS = ["a photo of *", "dog"]


@pytest.fixture
def bert(tmp_path: Path) -> BERTEmbedder:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    torch.manual_seed(0)
    return BERTEmbedder(WIDTH, 1, len(WORDS), LENGTH, tokenizer=str(tmp_path / "vocab.txt")).requires_grad_(False)


def learned(bert: Any, n: int = 4, word: str = "*", **options: Any) -> ContextEmbeddingManager:
    manager = ContextEmbeddingManager(
        bert, LAYERS, placeholder_strings=[word], initializer_words=["cat"], num_vectors_per_token=n, **options
    )
    manager.vectors(word).data.normal_()
    return manager


def parts(words: Any, bert: Any, texts: list[str]) -> Tensor:
    """[L, B, M, D], what each layer gets."""
    return torch.stack(words.condition(bert.encode, texts).chunk(LAYERS, dim=1))


def read(bert: Any, texts: list[str], word: str = "*") -> Tensor:
    return bert.encode(texts, embedding_manager=EmbeddingManager(bert, [word], ["cat"]))


@pytest.mark.parametrize("n", [1, 4, 5, 10])
def test_each_layer_gets_its_vectors_behind_what_the_encoder_makes_of_the_initial_word(
    bert: BERTEmbedder, n: int
) -> None:
    manager = learned(bert, n)
    text = read(bert, TEXTS)
    for layer, (own, other) in enumerate(parts(manager, bert, TEXTS)):
        vectors = manager.vectors("*")[n * layer : n * layer + n]
        torch.testing.assert_close(own, torch.cat([text[0], vectors.repeat(math.ceil(LENGTH / n), 1)[:LENGTH]]))
        torch.testing.assert_close(other, torch.cat([text[1], text[1]]))  # attention sees it as it sees it once


def test_a_network_takes_them_and_the_encoder_reads_once(bert: BERTEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = learned(bert)
    seen: list[Tensor] = []
    network = nn.ModuleList(BasicTransformerBlock(8, 1, 8, context_dim=WIDTH) for _ in range(LAYERS))
    for block in network:
        block.get_submodule("attn2").register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    encode = Mock(wraps=bert.encode_tokens)
    monkeypatch.setattr(bert, "encode_tokens", encode)
    context = manager.condition(bert.encode, TEXTS)
    manager.install(network)
    for block in network:
        block(torch.randn(2, 4, 8), context)
    torch.testing.assert_close(torch.stack(seen), torch.stack(context.chunk(LAYERS, dim=1)))
    encode.assert_called_once()
    context.square().mean().backward()
    gradient = manager.vectors("*").grad
    assert gradient is not None and gradient.any(dim=1).all() and not manager.initial_embeddings["*"].requires_grad


def test_scales_lead_from_the_initial_word_to_what_was_learned_and_beyond(bert: BERTEmbedder) -> None:
    manager = learned(bert)
    nothing, half, all_of_it, more = (parts(SeveralWords([manager], [s]), bert, TEXTS) for s in (0.0, 0.5, 1.0, 2.0))
    assert torch.equal(all_of_it, parts(manager, bert, TEXTS))
    text = read(bert, TEXTS)
    torch.testing.assert_close(nothing, torch.cat([text, text], dim=1).expand(LAYERS, -1, -1, -1))
    torch.testing.assert_close(half, (nothing + all_of_it) / 2)
    torch.testing.assert_close(more, 2 * all_of_it - nothing)


def test_several_words_take_equal_shares(bert: BERTEmbedder) -> None:
    one, other = learned(bert), learned(bert, 10, "dog")
    plain, layered = EmbeddingManager(bert, ["of"], ["cat"]), LayeredEmbeddingManager(bert, LAYERS, **{
        "placeholder_strings": ["photo"], "initializer_words": ["cat"]})  # fmt: skip
    words = SeveralWords([one, plain, other, layered], [1.0] * 4)
    assert not words.read_once
    both, alone, none = parts(words, bert, ["a * dog", "a *", "a"])[1]
    own, its = one.vectors("*")[4:8].repeat(3, 1)[:LENGTH], other.vectors("dog")[10:20]
    text = [part[:LENGTH] for part in (both, alone, none)]
    torch.testing.assert_close(both, torch.cat([text[0], own, its] * 2))
    torch.testing.assert_close(alone, torch.cat([text[1], own] * 3))
    torch.testing.assert_close(none, torch.cat([text[2]] * 6))
    last = SeveralWords([one, EmbeddingManager(bert, ["*"], ["cat"])], [1.0, 1.0])  # a later set says what a word means
    torch.testing.assert_close(parts(last, bert, TEXTS)[2], read(bert, TEXTS))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_files(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_model(tmp_path)
    encoder, path = model.cond_stage_model, tmp_path / f"words{suffix}"
    manager = ContextEmbeddingManager(encoder, 4, placeholder_strings=["*"], initializer_words=["red"],
                                      num_vectors_per_token=3)  # fmt: skip
    manager.vectors("*").data.normal_()
    manager.save(path, {"steps": "5"})
    (found,) = read_words([f"{path}=@"], encoder)
    assert type(found) is ContextEmbeddingManager and found.files == {"@": path} and found.max_vectors_per_token == 1
    again = ContextEmbeddingManager(encoder, 4, embedding_manager_ckpt=str(path))
    with applied(model, [found]):
        renamed = model.get_learned_conditioning(["a @"])
    for other in (again.condition(encoder.encode, ["a *"]), renamed):
        torch.testing.assert_close(other, manager.condition(encoder.encode, ["a *"]))
    file = read_embedding(path)
    describe(path, file, encoder, 2, None)
    assert "'*': 12 x 16, beside the context of 4 layers\n" in capsys.readouterr().out
    assert file.metadata["kind"] == "context" and file.metadata["init_words"] == "*: red"
    assert merge_embeddings([file, file.renamed({"*": "@"})]).metadata["kind"] == "context"
    with pytest.raises(UserError, match="cannot be in one file with others"):
        layered = tmp_path / "layered.safetensors"
        LayeredEmbeddingManager(encoder, 4, placeholder_strings=["@"]).save(layered)
        merge_embeddings([file, read_embedding(layered)])


def test_a_model_trains_and_samples_with_them(tmp_path: Path) -> None:
    node = {"target": "ldm.additions.context_words.ContextEmbeddingManager",
            "params": {"layers": 4, "placeholder_strings": ["*"], "initializer_words": ["red"],
                       "num_vectors_per_token": 2}}  # fmt: skip
    model = small_model(tmp_path, personalization_config=node).train()
    cond = model.get_learned_conditioning(["a *", "", "a red *"])
    loss, _ = model.p_losses(torch.randn(3, 4, 8, 8), cond, torch.tensor([5, 300, 700]))
    loss.backward()
    assert all(p.grad is not None for p in model.embedding_manager.embedding_parameters())
    assert model.embedding_manager.embedding_to_coarse_loss().shape == (8, 8)
    images = model.eval().log_images({"caption": ["a *"], "moments": torch.zeros(1, 8, 8, 8)}, ddim_steps=2,
                                     unconditional_guidance_scale=3.0)  # fmt: skip
    assert torch.isfinite(images["samples_cfg_scale_3.00"]).all()


def test_bad_input(bert: BERTEmbedder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="progressive_words"):
        ContextEmbeddingManager(bert, LAYERS, progressive_words=True)
    with pytest.raises(ConfigError, match="at most 10 vectors for a layer stand beside this context, got 11"):
        learned(bert, 11)
    with pytest.raises(UserError, match="'\\*' has 11 vectors for a layer; at most 10 stand beside this context"):
        learned(bert).add_vectors({"*": torch.zeros(11 * LAYERS, WIDTH)})
    many = ContextEmbeddingManager(bert, LAYERS, placeholder_strings=["*", "a", "cat", "dog", "of", "photo"])
    with pytest.raises(UserError, match="at most 5 words beside the context go together, got 6"):
        many.condition(bert.encode, ["a *"])
    path = tmp_path / "words.safetensors"
    LayeredEmbeddingManager(bert, LAYERS, placeholder_strings=["*"]).save(path)
    with pytest.raises(UserError, match="holds no words beside the contexts of 3 layers"):
        learned(bert).load(path)
    learned(bert).save(path)
    with pytest.raises(UserError, match="words for 3 layers; ContextEmbeddingManager goes on with them"):
        EmbeddingManager(bert).load(path)
    file = read_embedding(path)
    file.initial.clear()
    write_embedding(path, file)
    with pytest.raises(UserError, match="does not say what the text encoder is to read in its place"):
        read_words([str(path)], bert)
    with pytest.raises(UserError, match="words for layers"):
        write_embedding(tmp_path / "words.bin", file)
