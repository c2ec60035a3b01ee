"""Prompts beyond CLIP's 77 tokens: in chunks as other programs read them, or cut with a word about it."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from ldm.additions.words import EmbeddingManager
from ldm.modules.encoders.bert import BERTEmbedder
from ldm.modules.encoders.clip import FrozenCLIPEmbedder
from ldm.modules.encoders.long_prompts import chunks_of, equally_long
from ldm.modules.encoders.open_clip import FrozenOpenCLIPEmbedder
from ldm.util import UserError
from ldm.workflows.long_prompts import beyond, check_long, read_whole, report_cut
from tests.helpers import ROOT
from tests.modules.encoders.vocabularies import bpe_size, write_bpe

LENGTH = 10  # eight tokens between the markers


@pytest.fixture(params=["clip", "openclip"])
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    folder = write_bpe(tmp_path)
    torch.manual_seed(0)
    if request.param == "openclip":
        sizes = {"embed_dim": 8, "width": 16, "heads": 2, "layers": 2, "vocab_size": bpe_size(folder)}
        return FrozenOpenCLIPEmbedder("tiny", config=sizes, max_length=LENGTH, tokenizer=str(folder)).eval()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
             "vocab_size": bpe_size(folder)}  # fmt: skip
    return FrozenCLIPEmbedder("tiny", config=sizes, max_length=LENGTH, tokenizer=str(folder)).eval()


def words(count: int, last: str = "cat") -> str:
    return " ".join(["dog"] * (count - 1) + [last])


@torch.no_grad()
def test_the_last_of_200_words_counts(encoder: Any) -> None:
    one, other = words(200, "cat"), words(200, "red")
    assert torch.equal(encoder.encode(one), encoder.encode(other)), "the end is cut"
    with encoder.whole_prompts():
        whole = encoder.encode([one, other])
        assert whole.shape == (2, 25 * LENGTH, 16)
        assert not torch.allclose(whole[0, -LENGTH:], whole[1, -LENGTH:], atol=1e-3)
        assert torch.equal(whole[0, :-LENGTH], whole[1, :-LENGTH])
    assert torch.equal(encoder.encode(one), encoder.encode(other)), "nothing stays on the encoder"


@torch.no_grad()
def test_a_short_prompt_is_what_it_was(encoder: Any) -> None:
    plain = encoder.encode(["a red cat", ""])
    with encoder.whole_prompts():
        assert torch.equal(encoder.encode(["a red cat", ""]), plain)


def test_chunks_are_as_full_as_they_get_and_break_ends_one(encoder: Any) -> None:
    cat, dog = (encoder.tokenizer.pieces(word)[0] for word in ("cat", "dog"))
    assert chunks_of(encoder, words(9)) == [[dog] * 8, [cat]]
    assert chunks_of(encoder, "cat BREAK dog dog") == [[cat], [dog, dog]]
    assert chunks_of(encoder, "BREAK cat BREAK BREAK") == [[cat]] and chunks_of(encoder, "") == [[]]


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ("cat, dog dog dog dog dog dog dog", ["cat,", "dog dog dog dog dog dog dog"]),  # the seventh dog is a ninth
        ("cat dog dog dog dog dog dog, dog cat", ["cat dog dog dog dog dog dog,", "dog cat"]),
        ("cat dog dog dog dog dog dog dog, cat", ["cat dog dog dog dog dog dog dog", ", cat"]),
        ("cat, dog, dog dog dog dog dog", ["cat, dog,", "dog dog dog dog dog"]),
        ("cat, dog BREAK dog, cat", ["cat, dog", "dog, cat"]),
    ],
)
def test_what_follows_the_last_comma_goes_to_the_next_chunk(tmp_path: Path, text: str, chunks: list[str]) -> None:
    """As the web UI with its usual setting; by hand from its rule."""
    folder = write_bpe(tmp_path, "acdeghoprst!&<>;,")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "vocab_size": bpe_size(folder)}  # fmt: skip
    encoder = FrozenCLIPEmbedder("tiny", config=sizes, max_length=LENGTH, tokenizer=str(folder))
    tokenizer = encoder.tokenizer
    assert tokenizer is not None
    assert chunks_of(encoder, text) == [tokenizer.pieces(chunk) for chunk in chunks]


def test_a_comma_that_is_too_far_back_moves_nothing(tmp_path: Path) -> None:
    folder = write_bpe(tmp_path, "acdeghoprst!&<>;,")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "vocab_size": bpe_size(folder)}  # fmt: skip
    encoder = FrozenCLIPEmbedder("tiny", config=sizes, tokenizer=str(folder))
    near, far = ("dog " * count + "cat, " + "dog " * (80 - count) for count in (54, 53))
    # 75 tokens fit: of the near one 55 + the comma + 19, of the far one 54 + the comma + 20
    assert list(map(len, chunks_of(encoder, near))) == [56, 26] and list(map(len, chunks_of(encoder, far))) == [75, 7]


@torch.no_grad()
def test_each_chunk_is_encoded_as_a_prompt_of_its_own(encoder: Any) -> None:
    with encoder.whole_prompts():
        both = encoder.encode("a red cat BREAK a dog")
    torch.testing.assert_close(both[0, :LENGTH], encoder.encode("a red cat")[0])
    torch.testing.assert_close(both[0, LENGTH:], encoder.encode("a dog")[0])


@torch.no_grad()
def test_repeated_chunks_are_the_same_to_attention(encoder: Any) -> None:
    """So a batch, or a negative prompt, of other lengths changes nothing."""
    with encoder.whole_prompts():
        alone = [encoder.encode(text)[0] for text in ("a cat", words(9), words(17))]
        together = encoder.encode(["a cat", words(9), words(17)])
    assert [len(one) for one in alone] == [LENGTH, 2 * LENGTH, 3 * LENGTH] and together.shape[1] == 6 * LENGTH
    query = torch.randn(1, 1, 5, 16)
    for one, same in zip(alone, together, strict=True):
        expected = scaled_dot_product_attention(query, one[None, None], one[None, None])
        torch.testing.assert_close(scaled_dot_product_attention(query, same[None, None], same[None, None]), expected)
    assert [len(one) for one in equally_long([torch.zeros(2, 1), torch.zeros(3, 1)])] == [6, 6]


def test_a_learned_word_is_not_parted(encoder: Any) -> None:
    manager = EmbeddingManager(encoder, ["*"], num_vectors_per_token=3)
    star, dog = encoder.placeholder_id("*"), encoder.tokenizer.pieces("dog")[0]
    assert chunks_of(encoder, words(7, "*"), manager) == [[dog] * 6, [star]]
    assert chunks_of(encoder, words(6, "*"), manager) == [[dog] * 5 + [star]]


def model_of(encoder: Any, manager: Any = None) -> Any:
    return SimpleNamespace(cond_stage_model=encoder, embedding_manager=manager)


def test_what_is_cut_is_said_once(encoder: Any, caplog: pytest.LogCaptureFixture) -> None:
    prompt = words(8, "dog,") + " a red cat"
    assert beyond(encoder, prompt) == "dog, a red cat", (
        "the comma is a ninth token, and its word is not read to its end"
    )
    with caplog.at_level(logging.WARNING):
        report_cut(model_of(encoder), [prompt, prompt, "a cat"])
    said = (
        "a prompt is longer than what the model reads, and ends without 'dog, a red cat'; --long_prompts reads it all"
    )
    assert [record.getMessage() for record in caplog.records] == [said]
    caplog.clear()
    with read_whole(model_of(encoder), True):
        report_cut(model_of(encoder), [prompt])
    assert not caplog.records


def test_learned_words_count_with_all_their_vectors(encoder: Any) -> None:
    manager = EmbeddingManager(encoder, ["*"], num_vectors_per_token=3)
    assert encoder.fits(words(6, "*"), manager) and not encoder.fits(words(7, "*"), manager)
    assert beyond(encoder, words(7, "*"), manager) == "*"


def test_what_does_not_go_together_is_refused(encoder: Any) -> None:
    model = model_of(encoder)
    with read_whole(model, True):
        check_long(model, ["a cat"], {"boxes": True})  # one chunk is as ever
        check_long(model, [words(9)], {"boxes": False})
        with pytest.raises(UserError, match="does not go together with boxes"):
            check_long(model, [words(9)], {"edits": False, "boxes": True})


def test_other_encoders_have_one_length(caplog: pytest.LogCaptureFixture) -> None:
    bert = BERTEmbedder(16, 1, 672, max_seq_len=6, tokenizer=str(ROOT / "models/ldm/tiny/vocab.txt"))
    said = "chunks are for CLIP's text encoders; this model's, BERTEmbedder"
    with pytest.raises(UserError, match=said), read_whole(model_of(bert), True):
        pass
    report_cut(model_of(bert), ["a red star on a blue background"])
    assert [r.getMessage() for r in caplog.records] == [
        "a prompt is longer than what the model reads, and ends without 'a blue background'"
    ]
