"""Encoders on CLIP's original towers: reference numbers, keys, and the same weights through transformers' classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from ldm.modules.encoders.base import TokenSpace
from ldm.modules.encoders.modules import (
    ClipImageEmbedder,
    FrozenClipImageEmbedder,
    FrozenCLIPTextEmbedder,
    FrozenOpenCLIPEmbedder,
    FrozenOpenCLIPImageEmbedder,
)
from ldm.util import ConfigError, UserError, instantiate_from_config
from tests.helpers import GOLDEN, golden_case
from tests.modules.encoders.vocabularies import bpe_size, write_bpe

SMALL = {"embed_dim": 8, "width": 32, "heads": 4, "layers": 3, "vocab_size": 64}
SMALL_VISION = {"embed_dim": 8, "width": 32, "heads": 4, "layers": 2, "patch_size": 8, "image_size": 32}
BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def blocks_of(reference: nn.Module, depth: int) -> dict[str, Tensor]:
    """transformers' encoder layers under the names of the original files."""
    weights = {k[k.index("encoder.layers.") :]: v for k, v in reference.state_dict().items() if "encoder.layers." in k}
    made = {}
    for i in range(depth):
        old, new = f"encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            qkv = [weights[f"{old}self_attn.{x}_proj.{kind}"] for x in "qkv"]
            made[f"{new}attn.in_proj_{kind}"] = torch.cat(qkv)
            made |= {f"{new}{to}.{kind}": weights[f"{old}{name}.{kind}"] for name, to in BLOCK.items()}
    return made


def text_pair(act: str) -> tuple[CLIPTextModelWithProjection, dict[str, Tensor]]:
    """A random text model of transformers, and its weights under the original names."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        hidden_size=32, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, vocab_size=64,
        projection_dim=8, hidden_act=act, eos_token_id=63, initializer_factor=10.0,
    )  # fmt: skip
    reference = CLIPTextModelWithProjection(config).eval()
    text = reference.text_model
    weights = {
        "token_embedding.weight": text.embeddings.token_embedding.weight,
        "positional_embedding": text.embeddings.position_embedding.weight,
        "ln_final.weight": text.final_layer_norm.weight,
        "ln_final.bias": text.final_layer_norm.bias,
        "text_projection": reference.text_projection.weight.T,
        "logit_scale": torch.tensor(1.0),
        **blocks_of(text, 3),
    }
    return reference, {f"model.{k}": v for k, v in weights.items()}


def some_tokens() -> Tensor:
    tokens = torch.randint(0, 62, (2, 77), generator=torch.Generator().manual_seed(1))
    tokens[0, 12], tokens[1, 40] = 63, 63
    return tokens


@pytest.mark.parametrize("layer", ["last", "penultimate"])
def test_golden(layer: str) -> None:
    case = golden_case("openclip_text")
    case.config.params.layer = layer
    case.config.params.config = case.args["open_clip"]
    model = instantiate_from_config(case.config)
    model.load_state_dict(case.weights, strict=True)
    case.assert_close(layer, model.encode_with_transformer(case.inputs["tokens"]))
    case.assert_close(layer, model.encode(case.inputs["tokens"]))


def test_full_size_keys() -> None:
    listed = json.loads((GOLDEN / "keys" / "sd_v2.json").read_text())["keys"]
    prefix = "cond_stage_model."
    expected = {k.removeprefix(prefix): shape for k, shape in listed.items() if k.startswith(prefix)}
    with torch.device("meta"):
        model = FrozenOpenCLIPEmbedder(freeze=True, layer="penultimate")
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == expected


@pytest.mark.parametrize("act, version", [("gelu", "laion2b_s32b_b79k"), ("quick_gelu", "openai")])
def test_same_numbers_as_transformers(act: str, version: str) -> None:
    reference, weights = text_pair(act)
    tokens = some_tokens()
    with torch.no_grad():
        expected = reference.text_model(input_ids=tokens, output_hidden_states=True)
    model = FrozenOpenCLIPEmbedder("tiny", version, config=SMALL)
    model.load_state_dict(weights, strict=True)
    torch.testing.assert_close(model.encode(tokens), expected.last_hidden_state, rtol=1e-4, atol=1e-5)
    model.layer = "penultimate"
    penultimate = reference.text_model.final_layer_norm(expected.hidden_states[-2])
    torch.testing.assert_close(model.encode(tokens), penultimate, rtol=1e-4, atol=1e-5)


def test_other_contents_of_a_file_are_passed_over() -> None:
    _, weights = text_pair("gelu")
    extra = {"model.attn_mask": torch.zeros(77, 77), "model.visual.proj": torch.zeros(2)}
    model = FrozenOpenCLIPEmbedder("tiny", config=SMALL)
    model.load_state_dict({**weights, **extra}, strict=True)
    with pytest.raises(RuntimeError, match="surplus"):
        model.load_state_dict({**weights, "model.surplus": torch.zeros(1)})


def test_projected_text() -> None:
    reference, weights = text_pair("quick_gelu")
    tokens = some_tokens()
    with torch.no_grad():
        expected = reference(input_ids=tokens).text_embeds
    model = FrozenCLIPTextEmbedder("tiny", config=SMALL, n_repeat=3, normalize=False)
    model.load_state_dict(weights, strict=True)
    context = model.encode(tokens)
    assert context.shape == (2, 3, 8)
    torch.testing.assert_close(context[:, 0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(context[:, 2], context[:, 0])
    model.normalize = True
    torch.testing.assert_close(model.encode(tokens)[:, 0], expected / expected.norm(dim=-1, keepdim=True))


def test_tokens_are_padded_with_zero_and_entities_resolved(tmp_path: Path) -> None:
    folder = write_bpe(tmp_path)
    size = bpe_size(folder)
    model = FrozenOpenCLIPEmbedder("tiny", config={**SMALL, "vocab_size": size}, tokenizer=str(folder), max_length=12)
    vocab = json.loads((folder / "vocab.json").read_text())
    reference = CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), pad_token="!")
    for text in ("a red cat", "dog" * 30, ""):
        expected = reference([text], padding="max_length", truncation=True, max_length=12).input_ids
        assert model.tokenize(text).tolist() == expected
    assert torch.equal(model.tokenize("cat &amp;amp; dog"), model.tokenize("cat & dog"))
    assert model.tokenize("cat")[0].tolist() == [size - 2, vocab["cat</w>"], size - 1] + [0] * 9


def test_token_space_and_manager(tmp_path: Path) -> None:
    folder = write_bpe(tmp_path)
    model = FrozenOpenCLIPEmbedder("tiny", config={**SMALL, "vocab_size": bpe_size(folder)}, tokenizer=str(folder))
    assert isinstance(model, TokenSpace)
    assert (model.family, model.width, model.max_length) == ("openclip", 32, 77)
    dog = model.vector_of(model.token_of("dog"))
    torch.testing.assert_close(model.initial_vector(model.token_of("dog")), dog)
    vector = dog.clone().requires_grad_()

    def manager(tokens: Tensor, embedded: Tensor) -> Tensor:
        return torch.where((tokens == model.token_of("cat"))[..., None], vector, embedded)

    changed = model.encode("a red cat", embedding_manager=manager)
    torch.testing.assert_close(changed, model.encode("a red dog"))
    changed.square().mean().backward()
    assert vector.grad is not None and vector.grad.abs().sum() > 0


def test_sizes_and_vocabulary_of_a_folder(tmp_path: Path) -> None:
    reference, _ = text_pair("gelu")
    folder = tmp_path / "pipeline" / "text_encoder"
    reference.text_model.save_pretrained(folder)
    write_bpe(tmp_path / "pipeline" / "tokenizer")
    model = FrozenOpenCLIPEmbedder(version=str(folder), layer="penultimate")
    assert model.model.positional_embedding.shape == (77, 32)
    assert len(model.model.transformer.resblocks) == 4  # diffusers leaves out the one that is not run
    assert model.encode("a red cat").shape == (1, 77, 32)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"there is no config\.json"):
        FrozenOpenCLIPEmbedder(version=str(folder))


def test_errors_say_what_is_known() -> None:
    with pytest.raises(ConfigError, match=r"'ViT-X-1'.*ViT-H-14"):
        FrozenOpenCLIPEmbedder(arch="ViT-X-1")
    with pytest.raises(ConfigError, match=r"no layer 'first'.*last, penultimate"):
        FrozenOpenCLIPEmbedder(layer="first", config=SMALL)
    with pytest.raises(ConfigError, match=r"does not fit.*depth"):
        FrozenOpenCLIPEmbedder(arch="tiny", config={**SMALL, "depth": 3})
    with pytest.raises(ConfigError, match=r"between 3 and 77.*78"):
        FrozenOpenCLIPEmbedder(arch="tiny", config=SMALL, max_length=78)
    with pytest.raises(ConfigError, match="no layer 'last'"):
        FrozenOpenCLIPImageEmbedder(layer="last")


def vision_pair(act: str) -> tuple[CLIPVisionModelWithProjection, dict[str, Tensor]]:
    """A random image model of transformers, and its weights under the original names."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, projection_dim=8,
        image_size=32, patch_size=8, hidden_act=act, initializer_factor=10.0,
    )  # fmt: skip
    reference = CLIPVisionModelWithProjection(config).eval()
    vision = reference.vision_model
    weights = {
        "conv1.weight": vision.embeddings.patch_embedding.weight,
        "class_embedding": vision.embeddings.class_embedding,
        "positional_embedding": vision.embeddings.position_embedding.weight,
        **{f"ln_pre.{k}": v for k, v in vision.pre_layrnorm.state_dict().items()},
        **{f"ln_post.{k}": v for k, v in vision.post_layernorm.state_dict().items()},
        "proj": reference.visual_projection.weight.T,
        **blocks_of(vision, 2),
    }
    return reference, {f"model.visual.{k}": v for k, v in weights.items()}


IMAGE_EMBEDDERS = [
    (lambda: ClipImageEmbedder("tiny", config=SMALL_VISION), "quick_gelu"),
    (lambda: FrozenClipImageEmbedder("tiny", config=SMALL_VISION), "quick_gelu"),
    (lambda: FrozenOpenCLIPImageEmbedder("tiny", config=SMALL_VISION), "gelu"),
]


@pytest.mark.parametrize("build, act", IMAGE_EMBEDDERS)
def test_image_embeddings_are_those_of_transformers(build: Any, act: str) -> None:
    reference, weights = vision_pair(act)
    text_half = {
        "model.positional_embedding": torch.zeros(3),
        "model.transformer.resblocks.0.ln_1.bias": torch.zeros(3),
    }
    model = build().eval()
    model.load_state_dict({**weights, **text_half}, strict=True)
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        expected = reference(pixel_values=model.preprocess(pictures)).image_embeds
        torch.testing.assert_close(model(pictures), expected, rtol=1e-4, atol=1e-5)
        assert model.encode(torch.rand(1, 3, 50, 40)).shape == (1, 8)


def test_pictures_are_normalised_as_clip_was_trained() -> None:
    model = ClipImageEmbedder("tiny", config=SMALL_VISION)
    white = model.preprocess(torch.ones(1, 3, 64, 48))
    expected = (1 - torch.tensor([0.4815, 0.4578, 0.4082])) / torch.tensor([0.2686, 0.2613, 0.2758])
    assert white.shape == (1, 3, 32, 32)
    torch.testing.assert_close(white, expected.reshape(1, 3, 1, 1).expand(1, 3, 32, 32), rtol=1e-3, atol=1e-3)


def test_image_embeddings_are_dropped_for_guidance() -> None:
    model = ClipImageEmbedder("tiny", config=SMALL_VISION, ucg_rate=0.5).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        z = model(torch.rand(40, 3, 32, 32))
        kept = model(torch.rand(4, 3, 32, 32), no_dropout=True)
    dropped = (z == 0).all(dim=1).sum().item()
    assert 10 <= dropped <= 30
    assert (kept != 0).all()


def test_full_size_image_towers_build_on_the_meta_device() -> None:
    with torch.device("meta"):
        large = ClipImageEmbedder("ViT-L/14").state_dict()
        huge = FrozenOpenCLIPImageEmbedder().state_dict()
    assert large["model.visual.proj"].shape == (1024, 768)
    assert large["model.visual.positional_embedding"].shape == (257, 1024)
    assert huge["model.visual.transformer.resblocks.31.mlp.c_fc.weight"].shape == (5120, 1280)
