"""A diffusers folder, against diffusers and transformers: names, shapes, and what the networks compute."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.loaders import single_file_utils as theirs
from transformers import CLIPTextConfig, CLIPTextModel

from ldm.checkpoint import diffusers_config, load_model, read_state_dict
from ldm.checkpoint.diffusers_keys import autoencoder_weights, clip_text_weights, open_clip_weights, unet_weights
from ldm.util import UserError
from tests.helpers import GOLDEN

SMALL_UNET: dict[str, Any] = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "sample_size": 8, "norm_num_groups": 32,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "sd_v1": {"cross_attention_dim": 16, "attention_head_dim": 4},
    "sd_v2": {"cross_attention_dim": 16, "attention_head_dim": [2, 4], "use_linear_projection": True},
    "ldm": {
        "cross_attention_dim": 20, "attention_head_dim": 8, "block_out_channels": (32, 64, 128), "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3, "up_block_types": ("CrossAttnUpBlock2D",) * 3,
    },
}  # fmt: skip
SMALL_TEXT: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50,
    "max_position_embeddings": 77,
}  # fmt: skip


def small_unet(kind: str) -> Any:
    torch.manual_seed(0)
    model: Any = UNet2DConditionModel(**{**SMALL_UNET, **SHAPES[kind]})
    return model.eval()


def small_vae() -> Any:
    torch.manual_seed(1)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    model: Any = AutoencoderKL(**blocks, block_out_channels=(32, 64), layers_per_block=1, sample_size=16)
    return model.eval()


def small_text(kind: str) -> CLIPTextModel:
    torch.manual_seed(2)
    sizes = {**SMALL_TEXT, "hidden_act": "gelu" if kind == "sd_v2" else "quick_gelu"}
    return CLIPTextModel(CLIPTextConfig(**sizes)).eval()


def save_pipeline(folder: Path, kind: str, prediction: str = "v_prediction") -> Path:
    """The folder as ``StableDiffusionPipeline.save_pretrained`` lays it out."""
    small_unet(kind).save_pretrained(folder / "unet")
    small_vae().save_pretrained(folder / "vae")
    small_text(kind).save_pretrained(folder / "text_encoder")
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler: Any = DDIMScheduler(**betas, prediction_type=prediction)
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return save_pipeline(tmp_path / "pipeline", "sd_v1")


@pytest.mark.parametrize("kind", SHAPES)
def test_unet_computes_what_diffusers_computes(kind: str, tmp_path: Path) -> None:
    reference = small_unet(kind)
    reference.save_pretrained(tmp_path)
    unet = load_model(None, tmp_path)
    width = reference.config.cross_attention_dim
    generator = torch.Generator().manual_seed(2)
    x, context = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, width, generator=generator)
    t = torch.tensor([3, 700])
    with torch.no_grad():
        expected = reference(x, t, encoder_hidden_states=context).sample
        actual = unet(x, timesteps=t, context=context)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SHAPES)
def test_unet_names_are_the_inverse_of_diffusers_own_conversion(kind: str) -> None:
    reference = small_unet(kind)
    blocks = reference.config.layers_per_block
    ours = unet_weights(reference.state_dict(), [blocks] * len(reference.config.block_out_channels))
    prefixed = {f"model.diffusion_model.{key}": value for key, value in ours.items()}
    back = theirs.convert_ldm_unet_checkpoint(prefixed, dict(reference.config))
    assert_same_tensors(back, reference.state_dict())


def test_autoencoder_names_are_the_inverse_of_diffusers_own_conversion() -> None:
    reference = small_vae()
    ours = autoencoder_weights(reference.state_dict())
    back = theirs.convert_ldm_vae_checkpoint(ours, dict(reference.config))
    expected = reference.state_dict()
    assert back.keys() == expected.keys()
    for key, value in expected.items():  # diffusers makes its linear layers from our 1x1 convolutions at load time
        assert torch.equal(back[key].reshape(value.shape), value), key


def test_text_encoder_of_sd2_is_the_inverse_of_diffusers_own_conversion() -> None:
    text = CLIPTextModel(CLIPTextConfig(**SMALL_TEXT, hidden_act="gelu"))
    ours = open_clip_weights(text.state_dict(), 16)
    assert ours["model.transformer.resblocks.2.ln_1.weight"] is ours["model.transformer.resblocks.1.ln_1.weight"]
    used = {k: v for k, v in ours.items() if "resblocks.2." not in k}
    back = theirs.convert_open_clip_checkpoint(text, {f"cond_stage_model.{k}": v for k, v in used.items()},
                                               prefix="cond_stage_model.model.")  # fmt: skip
    back = {key.removeprefix("text_model."): value for key, value in back.items()}
    expected = {key.removeprefix("text_model."): value for key, value in text.state_dict().items()}
    for key, value in expected.items():
        assert torch.equal(back[key], value), key


def assert_same_tensors(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(actual[key], value), key


FULL: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
    "sd_v1": ({"cross_attention_dim": 768, "attention_head_dim": 8}, {"hidden_act": "quick_gelu", "hidden_size": 768,
              "intermediate_size": 3072, "num_hidden_layers": 12}, clip_text_weights),
    "sd_v2": ({"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
              {"hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23},
              partial(open_clip_weights, projection_dim=1024)),
}  # fmt: skip


@pytest.mark.parametrize("family", FULL)
def test_full_size_names_and_shapes_are_those_of_released_checkpoints(family: str) -> None:
    unet_config, text_config, text_weights = FULL[family]
    vae_blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**unet_config)
        vae: Any = AutoencoderKL(**vae_blocks, block_out_channels=(128, 256, 512, 512), layers_per_block=2)
        text = CLIPTextModel(CLIPTextConfig(**text_config, vocab_size=49408))
        translated = {
            **{f"model.diffusion_model.{k}": v for k, v in unet_weights(unet.state_dict(), [2] * 4).items()},
            **{f"first_stage_model.{k}": v for k, v in autoencoder_weights(vae.state_dict()).items()},
            **{f"cond_stage_model.{k}": v for k, v in text_weights(text.state_dict()).items()},
        }
    listing = json.loads((GOLDEN / "keys" / f"{family}.json").read_text())["keys"]
    expected = {key: shape for key, shape in listing.items() if "." in key and not key.endswith("position_ids")}
    assert {key: list(value.shape) for key, value in translated.items()} == expected


def test_pipeline_configuration(tmp_path: Path) -> None:
    params = diffusers_config(save_pipeline(tmp_path / "v1", "sd_v1"))["params"]
    assert params["parameterization"] == "v"
    assert (params["linear_start"], params["linear_end"], params["beta_schedule"]) == (0.00085, 0.012, "linear")
    assert params["scale_factor"] == 0.18215
    assert params["cond_stage_config"]["target"].endswith("FrozenCLIPEmbedder")
    params = diffusers_config(save_pipeline(tmp_path / "v2", "sd_v2", "epsilon"))["params"]
    assert params["parameterization"] == "eps"
    assert params["cond_stage_config"]["target"].endswith("FrozenOpenCLIPEmbedder")


@pytest.mark.parametrize("kind", ["sd_v1", "sd_v2"])
def test_whole_pipeline_computes_what_its_parts_compute(kind: str, tmp_path: Path) -> None:
    model: Any = load_model(None, save_pipeline(tmp_path, kind))
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(0, 50, (1, 77), generator=generator)
    latent, t = torch.randn(1, 4, 8, 8, generator=generator), torch.tensor([501])
    with torch.no_grad():
        context = small_text(kind)(tokens).last_hidden_state
        torch.testing.assert_close(model.cond_stage_model.encode_tokens(tokens), context, rtol=1e-4, atol=1e-5)
        expected = small_unet(kind)(latent, t, encoder_hidden_states=context).sample
        torch.testing.assert_close(model.apply_model(latent, t, context), expected, rtol=1e-4, atol=1e-5)
        picture = small_vae().decode(latent / 0.18215).sample
        torch.testing.assert_close(model.decode_first_stage(latent), picture, rtol=1e-4, atol=1e-4)
    betas = DDIMScheduler.from_pretrained(tmp_path / "scheduler").alphas_cumprod
    torch.testing.assert_close(model.alphas_cumprod, betas, rtol=1e-5, atol=1e-6)


def test_autoencoder_computes_what_diffusers_computes(tmp_path: Path) -> None:
    reference = small_vae()
    reference.save_pretrained(tmp_path)
    autoencoder: Any = load_model(None, tmp_path)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
    with torch.no_grad():
        expected = reference.encode(image).latent_dist.mean
        torch.testing.assert_close(autoencoder.encode(image).mode(), expected, rtol=1e-4, atol=1e-4)
        decoded = reference.decode(expected).sample
        torch.testing.assert_close(autoencoder.decode(expected), decoded, rtol=1e-4, atol=1e-4)


def test_half_precision_variant_and_sharded_files(tmp_path: Path) -> None:
    reference = small_unet("sd_v1")
    reference.save_pretrained(tmp_path / "shards", max_shard_size="200KB")
    assert (tmp_path / "shards" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    whole = unet_weights(reference.state_dict(), [1, 1])
    assert_same_tensors(read_state_dict(tmp_path / "shards"), whole)
    reference.half().save_pretrained(tmp_path / "half", variant="fp16")
    assert {value.dtype for value in read_state_dict(tmp_path / "half").values()} == {torch.float16}
    assert {value.dtype for value in load_model(None, tmp_path / "half").parameters()} == {torch.float32}


def test_pickled_folder(tmp_path: Path) -> None:
    reference = small_unet("sd_v1")
    reference.save_pretrained(tmp_path, safe_serialization=False)
    assert_same_tensors(read_state_dict(tmp_path), unet_weights(reference.state_dict(), [1, 1]))


def test_folders_that_cannot_be_loaded_say_why(pipeline: Path, tmp_path: Path) -> None:
    (pipeline / "vae" / "config.json").unlink()
    with pytest.raises(UserError, match=r"no 'vae/config.json'"):
        read_state_dict(pipeline)
    with pytest.raises(UserError, match=r"folder without model_index.json"):
        read_state_dict(tmp_path)
    (pipeline / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        read_state_dict(pipeline / "unet")
    (pipeline / "unet" / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    with pytest.raises(UserError, match="FluxTransformer2DModel"):
        read_state_dict(pipeline / "unet")


def test_a_folder_with_another_models_parts_is_refused_by_name(pipeline: Path) -> None:
    index = {"_class_name": "StableDiffusionXLPipeline", "image_encoder": [None, None]}
    (pipeline / "model_index.json").write_text(json.dumps(index))
    assert diffusers_config(pipeline)
    (pipeline / "model_index.json").write_text(
        json.dumps({**index, "text_encoder_3": ["transformers", "T5EncoderModel"]})
    )
    for read in (diffusers_config, read_state_dict):
        with pytest.raises(UserError, match=r"StableDiffusionXLPipeline with 'text_encoder_3', a third text encoder"):
            read(pipeline)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 8}, "a vector besides the text"),
        ({"in_channels": 5}, "sees 5 channels"),
    ],
)
def test_a_unet_that_needs_more_than_the_folder_makes_is_refused(
    pipeline: Path, changes: dict[str, Any], sentence: str
) -> None:
    file = pipeline / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(UserError, match=sentence):
        diffusers_config(pipeline)


def test_an_in_painting_folder_is_an_in_painting_model(pipeline: Path) -> None:
    torch.manual_seed(0)
    unet: Any = UNet2DConditionModel(**{**SMALL_UNET, **SHAPES["sd_v1"], "in_channels": 9})
    unet.save_pretrained(pipeline / "unet")
    model: Any = load_model(None, pipeline)
    assert [need.name for need in model.needs.required] == ["image", "mask"]
    picture, mask = torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 16, 16)
    tokens = torch.randint(0, 50, (1, 77), generator=torch.Generator().manual_seed(4))
    condition = model.condition(tokens, size=(8, 8), image=picture, mask=mask)
    assert condition["c_concat"][0].shape == (1, 5, 8, 8)
    assert torch.isfinite(model.predict(torch.randn(1, 4, 8, 8), torch.tensor([501]), condition)).all()
