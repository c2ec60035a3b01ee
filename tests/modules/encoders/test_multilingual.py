"""Prompts in other languages: encoders of several families, the aligner, placeholders, and what stays as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import T5Config, XLMRobertaConfig

from ldm.additions.layered_words import LayeredEmbeddingManager
from ldm.additions.words import EmbeddingManager
from ldm.checkpoint import load_weights
from ldm.modules.encoders import multilingual_clip, pre_BERT
from ldm.modules.encoders.aligner import Aligner, load_aligner, save_aligner
from ldm.modules.encoders.bert import BERTEmbedder
from ldm.modules.encoders.clip import FrozenCLIPEmbedder
from ldm.modules.encoders.multilingual import ForeignReader, MultilingualEncoder, assign
from ldm.util import ConfigError, UserError, instantiate_from_config
from tests.modules.encoders.multilingual_files import write_aligner, write_encoder, write_other_kind
from tests.modules.encoders.vocabularies import bpe_size, write_bpe

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "star", "on", "background", "*", "@", "toy"]
KOREAN, CHINESE, MIXED = "파란 배경 위의 빨간 별", "蓝色背景上有一颗红色星星", "blue 배경 위의 red 별"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An encoder, an aligner and an English vocabulary."""
    path = tmp_path_factory.mktemp("files")
    write_encoder(path / "multilingual")
    write_aligner(path / "aligner.safetensors")
    (path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    yield path


def english_and_both(folder: Path) -> tuple[BERTEmbedder, pre_BERT.MultilingualTextEmbedder]:
    sizes: dict[str, Any] = {"n_embed": 16, "n_layer": 1, "vocab_size": len(WORDS), "max_seq_len": 8}
    sizes["tokenizer"] = str(folder / "vocab.txt")
    torch.manual_seed(0)
    base = BERTEmbedder(**sizes).eval()
    both = pre_BERT.MultilingualTextEmbedder(aligner=str(folder / "aligner.safetensors"), **sizes).eval()
    assert list(both.state_dict()) == list(base.state_dict())
    load_weights(both, base.state_dict(), strict=True)
    return base, both


# ---- encoders -------------------------------------------------------------------------------------------------------


def test_padding_changes_nothing(folder: Path) -> None:
    encoder = MultilingualEncoder(str(folder / "multilingual")).eval()
    aligner, _ = load_aligner(folder / "aligner.safetensors")
    texts = [KOREAN, "별", CHINESE]
    with torch.no_grad():
        together = encoder(texts)
        vectors, places = aligner(together.states, together.mask)
        for row, text in enumerate(texts):
            alone = encoder([text])
            n = alone.states.shape[1]
            torch.testing.assert_close(together.states[row, :n], alone.states[0], atol=1e-5, rtol=1e-5)
            assert not together.states[row, n:].any() and not together.mask[row, n:].any()
            v, p = aligner(alone.states, alone.mask)
            torch.testing.assert_close(vectors[row], v[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(places[row, :n], p[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        XLMRobertaConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
                         max_position_embeddings=40),
        T5Config(d_model=12, d_kv=6, d_ff=24, num_layers=1, num_heads=2),
    ],
    ids=["xlm-roberta", "t5"],
)  # fmt: skip
def test_any_transformers_encoder_from_a_folder(tmp_path: Path, config: Any) -> None:
    encoder = MultilingualEncoder(str(write_other_kind(tmp_path / "other", config)))
    with torch.no_grad():
        found = encoder([KOREAN, "별 *"], ["*"])
    assert encoder.width == 12 and found.states.shape[-1] == 12
    assert not found.slots[0] and [name for _, name in found.slots[1]] == ["*"]


def test_a_folder_whose_tokenizer_is_another_class(tmp_path: Path) -> None:
    """transformers would take any that it has, models that ask whether to run a folder's code included."""
    folder = write_encoder(tmp_path / "encoder")
    about = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(about | {"tokenizer_class": "AutoModelForObjectDetection"})
    )
    with pytest.raises(UserError, match="names 'AutoModelForObjectDetection' as its tokenizer_class"):
        MultilingualEncoder(str(folder))


def test_encoders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder './none'"):
        MultilingualEncoder("./none")
    with pytest.raises(UserError, match="'nobody/nothing' gives no multilingual encoder"):
        MultilingualEncoder("nobody/nothing")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="gives no multilingual encoder"):
        MultilingualEncoder(str(tmp_path))


def test_placeholders_become_slots_in_order(folder: Path) -> None:
    encoder = MultilingualEncoder(str(folder / "multilingual"))
    found = encoder(["@ 배경 위의 *이 있다", "TOY 별 [MASK]", "toys"], ["*", "@", "toy"])
    assert [name for _, name in found.slots[0]] == ["@", "*"]
    assert [name for _, name in found.slots[1]] == ["toy"]
    assert not found.slots[2]
    positions = [position for position, _ in found.slots[0]]
    assert positions == sorted(positions)


# ---- aligner --------------------------------------------------------------------------------------------------------


def test_files(tmp_path: Path) -> None:
    aligner = Aligner(6, 10, 5, dim=8, depth=1, heads=2)
    aligner.fit_to(torch.randn(20, 10) * 3 + 1)
    save_aligner(aligner, tmp_path / "a.safetensors", "some/encoder", {"note": "x"})
    read, about = load_aligner(tmp_path / "a.safetensors")
    assert about["encoder"] == "some/encoder" and about["note"] == "x" and read.sizes == aligner.sizes
    states, mask = torch.randn(2, 4, 6), torch.ones(2, 4, dtype=torch.bool)
    assert all(torch.equal(x, y) for x, y in zip(aligner(states, mask), read(states, mask), strict=True))
    with pytest.raises(UserError, match=r"b\.safetensors"):
        load_aligner(tmp_path / "b.safetensors")
    with pytest.raises(ConfigError, match="'heads' must divide its 'dim', got 3 and 8"):
        Aligner(6, 10, 5, dim=8, heads=3)


def test_other_files_and_widths_are_refused(folder: Path, tmp_path: Path) -> None:
    from ldm.checkpoint import save_state_dict

    save_state_dict({"a": torch.zeros(1)}, tmp_path / "no.safetensors")
    with pytest.raises(UserError, match="is no aligner"):
        load_aligner(tmp_path / "no.safetensors")
    write_aligner(tmp_path / "wide.safetensors", width=24, encoder=str(folder / "multilingual"))
    with pytest.raises(UserError, match=r"reads states of width 24, but those of .* have 16"):
        ForeignReader.from_file(tmp_path / "wide.safetensors")
    write_aligner(tmp_path / "long.safetensors", length=9, encoder=str(folder / "multilingual"))
    _, both = english_and_both(folder)
    both.aligner = str(tmp_path / "long.safetensors")
    with pytest.raises(UserError, match="made for a text encoder of 9 tokens of width 16; this model's has 8 of width"):
        both.encode(KOREAN)


def test_each_placeholder_gets_a_position_of_its_own() -> None:
    places = torch.zeros(3, 4)
    places[0, 2], places[2, 2], places[2, 1] = 5.0, 4.0, 3.0
    assert sorted(assign(places, [(0, "a"), (2, "b")])) == [(1, "b"), (2, "a")]
    assert assign(places, []) == []
    assert len(assign(places[:, :1], [(0, "a"), (1, "b")])) == 1


# ---- prompts --------------------------------------------------------------------------------------------------------


def test_english_goes_the_old_way_bit_for_bit(folder: Path) -> None:
    base, both = english_and_both(folder)
    both.aligner = "not/there.safetensors"
    texts = ["a red star", "", "*"]
    assert torch.equal(base.encode(texts), both.encode(texts))
    assert torch.equal(base.encode(both.tokenize(texts)), both.encode(both.tokenize(texts)))
    with both.speaking("en"), torch.no_grad():
        assert torch.equal(base.encode(KOREAN), both.encode(KOREAN))


def test_foreign_and_english_prompts_in_one_batch(folder: Path) -> None:
    base, both = english_and_both(folder)
    with torch.no_grad():
        mixed = both.encode([KOREAN, "a red star", CHINESE, MIXED])
        torch.testing.assert_close(mixed[1], base.encode("a red star")[0])
        for row, text in ((0, KOREAN), (2, CHINESE), (3, MIXED)):
            torch.testing.assert_close(mixed[row], both.encode(text)[0], atol=1e-5, rtol=1e-5)
            assert not torch.allclose(mixed[row], base.encode(text)[0], atol=1e-3)


def test_the_context_is_that_of_the_token_vectors_the_aligner_gives(folder: Path) -> None:
    base, both = english_and_both(folder)
    reading = both.reading([KOREAN])
    expected = base.transformer.encode_embedded(reading.vectors)
    assert torch.equal(both.encode(KOREAN), expected)
    wanted = base.tokenize("a red star on a blue background")

    class Perfect(Aligner):
        def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            return base.token_embedding(wanted), torch.zeros(1, states.shape[1], 8)

    both.reader.aligner = Perfect(16, 16, 8, dim=8, depth=1, heads=2)
    assert torch.equal(both.encode(KOREAN), base.encode("a red star on a blue background"))
    assert both.translate([KOREAN]) == base.tokenizer.decode(wanted)  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [1, 2])
def test_a_learned_word_reaches_the_position_its_slot_points_to(folder: Path, count: int) -> None:
    _base, both = english_and_both(folder)
    manager = EmbeddingManager(both, ["*", "@"], num_vectors_per_token=count)
    text = "@ 배경 위의 *"
    found = both.reader.encoder([text], ["*", "@"])
    _, places = both.reader.aligner(found.states, found.mask)
    where = {name: position for position, name in assign(places[0], found.slots[0])}
    seen: list[Tensor] = []
    encode = both.transformer.encode_embedded
    both.transformer.encode_embedded = lambda x, mask=None: seen.append(x) or encode(x, mask)  # type: ignore
    both.encode(text, embedding_manager=manager).sum().backward()
    first = min(where, key=lambda name: where[name])
    at = where[first]
    torch.testing.assert_close(seen[0][0, at : at + count], manager.vectors(first))
    if count == 1:
        for name, position in where.items():
            assert torch.equal(seen[0][0, position], manager.vectors(name)[0])
            assert manager.vectors(name).grad is not None
    assert all(p.grad is None for p in both.reader.aligner.parameters())


def test_words_for_layers_are_found_in_other_languages_too(folder: Path) -> None:
    _, both = english_and_both(folder)
    manager = LayeredEmbeddingManager(both, layers=2, placeholder_strings=["*"])
    with torch.no_grad():
        first, second = manager.condition(both.encode, ["파란 *"]).chunk(2, dim=1)
        assert not torch.allclose(first, second)
        manager.vectors("*")[0] = manager.vectors("*")[1]
        first, second = manager.condition(both.encode, ["파란 *"]).chunk(2, dim=1)
        assert torch.equal(first, second)


def test_the_language_can_be_given(folder: Path) -> None:
    base, both = english_and_both(folder)
    with both.speaking("ko"), torch.no_grad():
        assert not torch.allclose(both.encode("star"), base.encode("star"), atol=1e-3)
        assert torch.equal(both.encode(""), base.encode(""))
    assert both.language == "auto"
    with pytest.raises(UserError, match="unknown language 'fr'; known: en, ko, zh, auto"), both.speaking("fr"):
        pass
    with pytest.raises(UserError, match="unknown language 'xx'"):
        pre_BERT.MultilingualTextEmbedder(language="xx", n_embed=16, n_layer=1, vocab_size=9, use_tokenizer=False)


def test_without_an_aligner_it_says_so(folder: Path) -> None:
    _, both = english_and_both(folder)
    both.aligner = None
    with pytest.raises(UserError, match=r"reads English only.*names no 'aligner'"):
        both.encode(KOREAN)


def test_clip_reads_other_languages_too(tmp_path: Path, folder: Path) -> None:
    vocabulary = write_bpe(tmp_path / "clip")
    config = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
              "max_position_embeddings": 8, "vocab_size": bpe_size(vocabulary)}  # fmt: skip
    params = {"config": config, "tokenizer": str(vocabulary), "max_length": 8}
    torch.manual_seed(0)
    base = FrozenCLIPEmbedder(**params)  # type: ignore[arg-type]
    node = {"target": "ldm.modules.encoders.multilingual_clip.MultilingualTextEmbedder",
            "params": {**params, "aligner": str(folder / "aligner.safetensors")}}  # fmt: skip
    both = instantiate_from_config(node)
    assert isinstance(both, multilingual_clip.MultilingualTextEmbedder)
    load_weights(both, base.state_dict(), strict=True)
    both.eval()
    with torch.no_grad():
        assert torch.equal(base.encode("a red star"), both.encode("a red star"))
        foreign = both.encode([KOREAN, "a red star"])
        torch.testing.assert_close(foreign[1], base.encode("a red star")[0])
        vectors = both.reading([KOREAN]).vectors
    positions = base.transformer.text_model.embeddings.position_embedding.weight
    seen: list[Tensor] = []
    layer = both.transformer.text_model.encoder.layers[0]
    layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append(args[0]), with_kwargs=True)
    both.encode(KOREAN)
    torch.testing.assert_close(seen[0], vectors + positions)
