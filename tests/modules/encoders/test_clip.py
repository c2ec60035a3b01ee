"""Stable Diffusion v1's text encoder: reference numbers, keys, folders, layers, tokenizer, textual inversion's seam."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ldm.modules.encoders.base import TokenSpace
from ldm.modules.encoders.bpe import load_bpe
from ldm.modules.encoders.modules import FrozenCLIPEmbedder
from ldm.util import ConfigError, UserError, instantiate_from_config
from tests.helpers import GOLDEN, GoldenCase, golden_case
from tests.modules.encoders.vocabularies import bpe_size, write_bpe

SMALL: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64,
}  # fmt: skip
POSITION_IDS = "transformer.text_model.embeddings.position_ids"


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    return write_bpe(tmp_path / "bpe")


@pytest.fixture
def embedder(vocabulary: Path) -> FrozenCLIPEmbedder:
    torch.manual_seed(0)
    size = bpe_size(vocabulary)
    config = {**SMALL, "vocab_size": size, "eos_token_id": size - 1, "initializer_factor": 10.0}
    return FrozenCLIPEmbedder(version="tiny", tokenizer=str(vocabulary), config=config, max_length=10)


def build(case: GoldenCase) -> FrozenCLIPEmbedder:
    case.config.params.config = case.args["hf_text_config"]
    return instantiate_from_config(case.config)


def test_golden() -> None:
    case = golden_case("clip_text")
    model = build(case)
    model.load_state_dict(case.weights, strict=True)
    case.assert_close("z", model.encode(case.inputs["tokens"]))
    case.assert_close("z", model.transformer(input_ids=case.inputs["tokens"]).last_hidden_state)


def test_every_layout_of_the_weights_loads_strictly() -> None:
    case = golden_case("clip_text")
    old = case.weights
    without = {k: v for k, v in old.items() if k != POSITION_IDS}
    layouts = {
        "without position_ids": without,
        "position_ids in half precision": {**old, POSITION_IDS: old[POSITION_IDS].half()},
        "without the level text_model": {k.replace("text_model.", ""): v for k, v in without.items()},
    }
    for name, weights in layouts.items():
        with torch.device("meta"):
            model = build(case)
        model.load_state_dict(weights, strict=True, assign=True)
        assert not any(v.is_meta for v in [*model.parameters(), *model.buffers()]), name
        assert model.state_dict()[POSITION_IDS].dtype == torch.int64
        case.assert_close("z", model.encode(case.inputs["tokens"]))


def test_full_size_keys() -> None:
    listed = json.loads((GOLDEN / "keys" / "sd_v1.json").read_text())["keys"]
    prefix = "cond_stage_model."
    expected = {k.removeprefix(prefix): shape for k, shape in listed.items() if k.startswith(prefix)}
    with torch.device("meta"):
        model = FrozenCLIPEmbedder()
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == expected
    assert model.transformer.text_model.config.hidden_act == "quick_gelu"


def test_a_missing_or_wrong_weight_is_still_an_error() -> None:
    case = golden_case("clip_text")
    model = build(case)
    weights = dict(case.weights)
    del weights["transformer.text_model.final_layer_norm.bias"]
    with pytest.raises(RuntimeError, match=r"final_layer_norm\.bias"):
        model.load_state_dict(weights)
    with pytest.raises(RuntimeError, match="surplus"):
        model.load_state_dict({**case.weights, "transformer.text_model.surplus": torch.zeros(1)})


def test_folder_that_transformers_saved(tmp_path: Path) -> None:
    reference = CLIPTextModel(CLIPTextConfig(**SMALL)).eval()
    reference.half().save_pretrained(tmp_path / "pipeline" / "text_encoder")
    reference.float()
    tokens = torch.randint(0, 64, (2, 77))
    for folder in (tmp_path / "pipeline", tmp_path / "pipeline" / "text_encoder"):
        model = FrozenCLIPEmbedder(version=str(folder))
        assert model.token_embedding.weight.dtype == torch.float32
        torch.testing.assert_close(model.encode(tokens), reference(input_ids=tokens).last_hidden_state)


def test_folder_on_the_meta_device_gives_sizes_only(tmp_path: Path) -> None:
    reference = CLIPTextModel(CLIPTextConfig(**SMALL)).eval()
    reference.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not to be read")
    with torch.device("meta"):
        model = FrozenCLIPEmbedder(version=str(tmp_path))
    model.load_state_dict({f"transformer.{k}": v for k, v in reference.state_dict().items()}, assign=True)
    tokens = torch.randint(0, 64, (2, 77))
    torch.testing.assert_close(model.encode(tokens), reference(input_ids=tokens).last_hidden_state)


def test_load_pretrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = CLIPTextModel(CLIPTextConfig(**SMALL)).eval()
    reference.save_pretrained(tmp_path)
    monkeypatch.setattr("ldm.modules.encoders.clip.hub_folder", lambda *_: tmp_path)
    model = FrozenCLIPEmbedder(version="somebody/clip", config=SMALL)
    tokens = torch.randint(0, 64, (1, 77))
    assert not torch.allclose(model.encode(tokens), reference(input_ids=tokens).last_hidden_state)
    model.load_pretrained()
    torch.testing.assert_close(model.encode(tokens), reference(input_ids=tokens).last_hidden_state)
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("layer, index", [("last", None), ("pooled", None), ("hidden", 0), ("hidden", -1)])
def test_layers(layer: str, index: int | None) -> None:
    config = {**SMALL, "eos_token_id": 63}
    model = FrozenCLIPEmbedder(version="tiny", config=config, layer=layer, layer_idx=index)
    tokens = torch.randint(0, 60, (2, 77))
    tokens[:, 9] = 63
    text_model = model.transformer.text_model
    embedded = text_model.embeddings(input_ids=tokens)
    if layer == "hidden" and index == 0:
        torch.testing.assert_close(model.encode(tokens), embedded)
        return
    last = text_model(input_ids=tokens).last_hidden_state
    context = model.encode(tokens)
    if layer == "hidden":
        torch.testing.assert_close(text_model.final_layer_norm(context), last)
    else:
        torch.testing.assert_close(context, last if layer == "last" else last[:, 9:10])


def test_unknown_layers() -> None:
    with pytest.raises(ConfigError, match="no layer 'penultimate'"):
        FrozenCLIPEmbedder(version="tiny", config=SMALL, layer="penultimate")
    for index in (None, 3, -4):
        with pytest.raises(ConfigError, match="layer_idx"):
            FrozenCLIPEmbedder(version="tiny", config=SMALL, layer="hidden", layer_idx=index)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="'heads'"):
        FrozenCLIPEmbedder(version="tiny", config={**SMALL, "heads": 2})
    with pytest.raises(ConfigError, match=r"between 3 and 77.*100"):
        FrozenCLIPEmbedder(version="tiny", config=SMALL, max_length=100)


def test_frozen_for_good() -> None:
    embedder = FrozenCLIPEmbedder(version="tiny", config=SMALL)
    model = torch.nn.Sequential(embedder)
    model.train()
    assert model.training and not embedder.training and not embedder.transformer.text_model.training
    assert not any(p.requires_grad for p in model.parameters())
    free = FrozenCLIPEmbedder(version="tiny", config=SMALL, freeze=False)
    free.train()
    assert free.transformer.training and all(p.requires_grad for p in free.parameters())


TEXTS = ["a red cat", "A  RED\tdog!", "cat" * 30, "", "photo dogs", "cat <|endoftext|> dog", "cats&dogs"]


@pytest.mark.parametrize("text", TEXTS)
def test_same_ids_as_transformers(vocabulary: Path, embedder: FrozenCLIPEmbedder, text: str) -> None:
    reference = CLIPTokenizer(vocab=str(vocabulary / "vocab.json"), merges=str(vocabulary / "merges.txt"))
    expected = reference([text], padding="max_length", truncation=True, max_length=10).input_ids
    assert embedder.tokenize(text).tolist() == expected


def test_every_source_gives_the_same_ids(vocabulary: Path, tmp_path: Path, embedder: FrozenCLIPEmbedder) -> None:
    reference = CLIPTokenizer(vocab=str(vocabulary / "vocab.json"), merges=str(vocabulary / "merges.txt"))
    pipeline = tmp_path / "pipeline"
    reference.save_pretrained(pipeline / "tokenizer")
    (pipeline / "text_encoder").mkdir()
    sources = [pipeline, pipeline / "text_encoder", pipeline / "tokenizer", pipeline / "tokenizer" / "tokenizer.json"]
    config = {**SMALL, "vocab_size": bpe_size(vocabulary)}
    for source in sources:
        other = FrozenCLIPEmbedder(version="tiny", config=config, tokenizer=str(source), max_length=10)
        assert torch.equal(other.tokenize("a red cat!"), embedder.tokenize("a red cat!"))


def test_a_merge_that_begins_with_a_number_sign_is_no_comment(tmp_path: Path) -> None:
    folder = write_bpe(tmp_path, letters="acdeghoprst!&<>;#")
    vocabulary = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**vocabulary, "##</w>": len(vocabulary)}))
    (folder / "merges.txt").write_text((folder / "merges.txt").read_text() + "# #</w>\n")
    assert load_bpe(str(folder)).encode("##", add_special_tokens=False).tokens == ["##</w>"]


def test_the_model_folder_has_the_tokenizer(vocabulary: Path) -> None:
    CLIPTextModel(CLIPTextConfig(**{**SMALL, "vocab_size": bpe_size(vocabulary)})).save_pretrained(vocabulary)
    model = FrozenCLIPEmbedder(version=str(vocabulary))
    assert model.encode(["a red cat", "dog"]).shape == (2, 77, 16)


def test_a_manager_acts_on_token_vectors_before_positions(embedder: FrozenCLIPEmbedder) -> None:
    seen: dict[str, Tensor] = {}

    def manager(tokens: Tensor, embedded: Tensor) -> Tensor:
        seen["embedded"] = embedded.clone()
        embedded[tokens == embedder.token_of("cat")] = embedder.vector_of(embedder.token_of("dog"))
        tokens[:] = 0
        return embedded

    tokens = embedder.tokenize(["a red cat", "cat dog"])
    plain = embedder.encode(tokens)
    changed = embedder.encode(tokens, embedding_manager=manager)
    torch.testing.assert_close(seen["embedded"], embedder.token_embedding(tokens))
    torch.testing.assert_close(changed, embedder.encode(["a red dog", "dog dog"]))
    assert not torch.allclose(plain, changed)
    assert torch.equal(embedder.encode(tokens), plain), "the manager stayed, or changed the caller's ids"


def test_the_manager_is_gone_after_an_error(embedder: FrozenCLIPEmbedder) -> None:
    def manager(tokens: Tensor, embedded: Tensor) -> Tensor:
        raise RuntimeError("no")

    plain = embedder.encode("cat")
    with pytest.raises(RuntimeError, match="no"):
        embedder.encode("cat", embedding_manager=manager)
    assert torch.equal(embedder.encode("cat"), plain)


def test_gradients_reach_the_managers_vectors_through_frozen_weights(embedder: FrozenCLIPEmbedder) -> None:
    vector = torch.zeros(embedder.width, requires_grad=True)

    def manager(tokens: Tensor, embedded: Tensor) -> Tensor:
        return torch.where((tokens == embedder.token_of("cat"))[..., None], vector, embedded)

    embedder.encode("a red cat", embedding_manager=manager).square().mean().backward()
    assert vector.grad is not None and vector.grad.abs().sum() > 0


def test_token_space(embedder: FrozenCLIPEmbedder) -> None:
    assert isinstance(embedder, TokenSpace)
    assert (embedder.family, embedder.width, embedder.max_length) == ("clip", 16, 10)
    token = embedder.token_of("cat")
    table = embedder.transformer.text_model.embeddings
    torch.testing.assert_close(embedder.vector_of(token), table.token_embedding.weight[token])
    expected = table(input_ids=torch.tensor([[token]]))[0, 0]  # how textual inversion has begun on CLIP
    torch.testing.assert_close(embedder.initial_vector(token), expected)
    for word, part in [("photo", "4 tokens"), ("cat dog", "2 tokens"), ("ü", "tokens")]:
        with pytest.raises(UserError, match=part):
            embedder.token_of(word)


def test_errors_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"'nobody/clip'.*known versions: openai/"):
        FrozenCLIPEmbedder(version="nobody/clip")
    with torch.device("meta"):
        model = FrozenCLIPEmbedder()
    with pytest.raises(UserError, match=r"'openai/clip-vit-large-patch14'.*merges\.txt.*'tokenizer:'"):
        model.tokenize("a cat")
    with pytest.raises(UserError, match=r"'openai/clip-vit-large-patch14'.*'version:'"):
        model.load_pretrained()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no CLIP text model"):
        FrozenCLIPEmbedder(version=str(tmp_path / "empty"))
    with pytest.raises(UserError, match="merges"):
        FrozenCLIPEmbedder(version="tiny", config=SMALL, tokenizer=str(tmp_path / "empty")).tokenize("a")
    write_bpe(tmp_path / "bad")
    (tmp_path / "bad" / "merges.txt").write_text("#version: 0.2\nz z\n")
    with pytest.raises(UserError, match="not a byte-pair vocabulary"):
        FrozenCLIPEmbedder(version="tiny", config=SMALL, tokenizer=str(tmp_path / "bad")).tokenize("a")
