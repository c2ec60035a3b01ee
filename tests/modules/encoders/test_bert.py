"""The BERT-style encoders: reference numbers, keys, tokenizers, and the place where textual inversion acts."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BertTokenizer

from ldm.modules.encoders.base import TokenSpace
from ldm.modules.encoders.modules import BERTEmbedder, BERTTokenizer, TransformerEmbedder
from ldm.util import UserError, instantiate_from_config
from tests.helpers import GOLDEN, golden_case

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a red blue circle ##s on , . cafe 빨간 원 파란 배경 ##에 红 色 圆 don ' t"


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS.split()) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def embedder(vocab: Path) -> BERTEmbedder:
    torch.manual_seed(0)
    return BERTEmbedder(n_embed=16, n_layer=1, vocab_size=40, max_seq_len=12, tokenizer=str(vocab)).eval()


@pytest.mark.parametrize("name", ["bert", "transformer_embedder"])
def test_golden(name: str) -> None:
    case = golden_case(name)
    model = instantiate_from_config(case.config).eval()
    model.load_state_dict(case.weights)
    tokens = case.inputs["tokens"]
    with torch.no_grad():
        case.assert_close("z", model.encode(tokens))
        case.assert_close("logits", model.transformer(tokens, return_embeddings=False))
        wrapper = model.transformer
        embedded = wrapper.token_emb(tokens)
        case.assert_close("first_layer_in", embedded + wrapper.pos_emb(embedded))


def test_full_size_keys() -> None:
    listed = json.loads((GOLDEN / "keys" / "ldm_text2img_large.json").read_text())["keys"]
    prefix = "cond_stage_model."
    expected = {k.removeprefix(prefix): shape for k, shape in listed.items() if k.startswith(prefix)}
    with torch.device("meta"):
        model = BERTEmbedder(n_embed=1280, n_layer=32)
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == expected


def test_mask_hides_tokens() -> None:
    model = TransformerEmbedder(n_embed=16, n_layer=2, vocab_size=20, max_seq_len=6).eval()
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6]])
    other = torch.tensor([[1, 2, 3, 4, 9, 9]])
    mask = torch.tensor([[True] * 4 + [False] * 2])
    forward = model.transformer
    kept = [forward(t, mask=mask, return_embeddings=True)[:, :4] for t in (tokens, other)]
    free = [forward(t, return_embeddings=True)[:, :4] for t in (tokens, other)]
    torch.testing.assert_close(*kept)
    assert not torch.allclose(*free)


@pytest.mark.parametrize(
    "text",
    [
        "a red circle",
        "A RED circles, on Café.",
        "红色圆",
        "a zebra",
        "don't [SEP] a",
        "",
        "  a\tred\n",
        "a " * 30,
        "ça\u200b!",
    ],
)
def test_same_ids_as_transformers(vocab: Path, text: str) -> None:
    reference = BertTokenizer(vocab=str(vocab))
    expected = reference([text], padding="max_length", truncation=True, max_length=12).input_ids
    assert BERTTokenizer(max_length=12, tokenizer=str(vocab))(text).tolist() == expected


def test_hangul_words_are_found_whole(vocab: Path) -> None:
    tokenizer = BERTTokenizer(max_length=12, tokenizer=str(vocab))
    tokens = tokenizer(["빨간 원, 파란 배경에"])
    assert tokenizer.unknown not in tokens
    assert tokenizer.decode(tokens) == ["빨간 원, 파란 배경에"]
    decomposed = tokenizer(["\u1108\u1161\u11af\u1100\u1161\u11ab"])  # 빨간 as a Mac writes it
    assert torch.equal(decomposed, tokenizer("빨간"))


def test_hangul_letters_in_the_vocabulary_stay_letters(tmp_path: Path) -> None:
    letters = ["\u110b", "##\u116f", "##\u11ab"]  # 원, as bert-base-multilingual-uncased has it
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters]), encoding="utf-8")
    tokenizer = BERTTokenizer(max_length=8, tokenizer=str(path))
    assert (
        tokenizer("원").tolist() == BertTokenizer(vocab=str(path))(["원"], padding="max_length", max_length=8).input_ids
    )
    assert tokenizer.pieces("원") == [4, 5, 6]


def test_every_source_gives_the_same_ids(vocab: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    BertTokenizer(vocab=str(vocab)).save_pretrained(saved)
    windows = tmp_path / "windows.txt"
    windows.write_bytes(vocab.read_bytes().replace(b"\n", b"\r\n"))
    sources = [vocab, vocab.parent, saved, saved / "tokenizer.json", windows]
    rows = [BERTTokenizer(max_length=12, tokenizer=str(source))("a red circles on café") for source in sources]
    assert all(torch.equal(row, rows[0]) for row in rows)


def test_cased_folder(vocab: Path) -> None:
    (vocab.parent / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    tokenizer = BERTTokenizer(max_length=4, tokenizer=str(vocab.parent))
    assert tokenizer("RED").tolist() == [[2, 1, 3, 0]]


def test_tokenizer_as_a_quantising_encoder(vocab: Path) -> None:
    tokenizer = BERTTokenizer(max_length=12, tokenizer=str(vocab))
    first, second, (third, fourth, tokens) = tokenizer.encode("a red circle")
    assert (first, second, third, fourth) == (None, None, None, None)
    assert torch.equal(tokens, tokenizer("a red circle"))


def test_text_and_its_ids_give_the_same_context(embedder: BERTEmbedder) -> None:
    texts = ["a red circle", "빨간 원"]
    context = embedder.encode(texts)
    assert context.shape == (2, 12, 16)
    torch.testing.assert_close(context, embedder.encode(embedder.tokenize(texts)))


def test_a_manager_acts_on_token_vectors_before_positions(embedder: BERTEmbedder) -> None:
    seen: dict[str, Tensor] = {}

    def manager(tokens: Tensor, embedded: Tensor) -> Tensor:
        seen["embedded"] = embedded.clone()
        blue = embedder.token_of("blue")
        embedded[tokens == embedder.token_of("red")] = embedder.vector_of(blue)
        tokens[:] = 0
        return embedded

    tokens = embedder.tokenize("a red circle")
    changed = embedder.encode(tokens, embedding_manager=manager)
    torch.testing.assert_close(seen["embedded"], embedder.token_embedding(tokens))
    torch.testing.assert_close(changed, embedder.encode("a blue circle"))
    assert tokens[0, 2] == embedder.token_of("red"), "the caller's ids were changed"


def test_an_embedder_can_be_copied_and_pickled(embedder: BERTEmbedder) -> None:
    context = embedder.encode("a red circle")
    for other in (copy.deepcopy(embedder), pickle.loads(pickle.dumps(embedder))):
        torch.testing.assert_close(other.encode("a red circle"), context)


def test_token_space(embedder: BERTEmbedder) -> None:
    assert isinstance(embedder, TokenSpace)
    assert (embedder.family, embedder.width, embedder.max_length) == ("bert", 16, 12)
    token = embedder.token_of("red")
    assert token == 6
    torch.testing.assert_close(embedder.initial_vector(token), embedder.transformer.token_emb.weight[6])
    assert not embedder.vector_of(token).requires_grad
    for word, part in [("circles", "2 tokens"), ("zebra", "not in the vocabulary"), ("", "0 tokens")]:
        with pytest.raises(UserError, match=part):
            embedder.token_of(word)


def test_dropout_acts_in_training_only() -> None:
    model = TransformerEmbedder(n_embed=16, n_layer=1, vocab_size=20, max_seq_len=6, embedding_dropout=0.5)
    tokens = torch.arange(6)[None]
    assert not torch.equal(model.train()(tokens), model(tokens))
    assert torch.equal(model.eval()(tokens), model(tokens))


def test_errors_say_what_to_do(vocab: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="use_tokenizer: true"):
        TransformerEmbedder(n_embed=16, n_layer=1, vocab_size=20).encode("a red circle")
    with pytest.raises(UserError, match=r"'.*missing/vocab.txt' does not exist"):
        BERTTokenizer(tokenizer=str(tmp_path / "missing" / "vocab.txt"))("a")
    with pytest.raises(UserError, match=r"25 tokens.*vectors for 20"):
        BERTEmbedder(n_embed=16, n_layer=1, vocab_size=20, tokenizer=str(vocab)).encode("a")
    bad = tmp_path / "bad.txt"
    bad.write_text("[PAD]\n[UNK]\na\n")
    with pytest.raises(UserError, match=r"\[CLS\]"):
        BERTTokenizer(tokenizer=str(bad))("a")
    bad.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        BERTTokenizer(tokenizer=str(bad))("a")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UserError, match=r"not a tokenizer.json"):
        BERTTokenizer(tokenizer=str(tmp_path / "bad.json"))("a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"neither tokenizer.json nor vocab.txt"):
        BERTTokenizer(tokenizer=str(tmp_path / "empty"))("a")


def test_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"'bert-base-uncased'.*vocab\.txt"):
        BERTTokenizer()("a")
