"""LoRA files that are written here, read by diffusers and by PEFT: the same networks as with the file read here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ldm.additions.base import applied
from ldm.additions.lora.lora import Lora
from ldm.additions.lora.trained import TrainedLora
from ldm.checkpoint import load_model, read_metadata, read_state_dict
from tests.checkpoint.test_diffusers import save_pipeline, small_text, small_unet

peft = pytest.importorskip("peft")
CASES: list[dict[str, Any]] = [
    {"format": "kohya", "alpha": 1.0, "layers": "kohya", "text_layers": "kohya"},
    {"format": "kohya", "layers": "kohya", "conv_rank": 2},
    {"format": "peft", "alpha": 8.0, "text_layers": "diffusers"},
    {"format": "peft", "layers": "kohya", "conv_rank": 2, "alpha": 2.0},
    {"format": "peft", "dora": True},
]
NAMES = ["kohya", "kohya-conv", "peft", "peft-conv", "peft-dora"]


def learned(model: Any, path: Path, options: dict[str, Any]) -> Path:
    lora = TrainedLora(model, rank=3, **options)
    torch.manual_seed(5)
    for parameter in lora.learned():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    lora.save(path)
    return path


@torch.no_grad()
def ours(model: Any, path: Path, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    x, t, context, tokens = inputs
    with applied(model, [Lora.read(path, model)]):
        return [model.model.diffusion_model(x, t, context=context), model.cond_stage_model.encode_tokens(tokens)]


@torch.no_grad()
def theirs(unet: Any, text: Any, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    x, t, context, tokens = inputs
    return [unet(x, t, encoder_hidden_states=context).sample, text(tokens).last_hidden_state]


def draw() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    context = torch.randn(2, 5, 16, generator=generator)
    tokens = torch.randint(1, 49, (2, 77), generator=generator)
    return torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([3, 700]), context, tokens


@pytest.mark.parametrize("kind", ["sd_v1", "sd_v2"])
@pytest.mark.parametrize("options", CASES, ids=NAMES)
def test_diffusers_computes_the_same(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader

    model = load_model(None, save_pipeline(tmp_path / "pipeline", kind))
    model.eval()
    path, inputs = learned(model, tmp_path / "lora.safetensors", options), draw()
    unet, text = small_unet(kind), small_text(kind)
    plain = theirs(unet, text, inputs)
    weights, alphas, metadata = Loader.lora_state_dict(
        str(path), return_lora_metadata=True, unet_config=unet.config
    )
    Loader.load_lora_into_unet(weights, alphas, unet, metadata=metadata)
    if "text_layers" in options:
        Loader.load_lora_into_text_encoder(weights, alphas, text, metadata=metadata)
    for one, other, before in zip(ours(model, path, inputs), theirs(unet, text, inputs), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-4)
        if other is not None and "text_layers" in options:
            assert not torch.allclose(other, before, atol=1e-2)


@pytest.mark.parametrize("options", [CASES[3], CASES[4]], ids=["conv", "dora"])
def test_peft_computes_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    model = load_model(None, save_pipeline(tmp_path / "pipeline", "sd_v1"))
    model.eval()
    path, inputs = learned(model, tmp_path / "lora.safetensors", options), draw()
    fields = json.loads(read_metadata(path)["lora_adapter_metadata"])
    settings = {key.removeprefix("unet."): value for key, value in fields.items() if key.startswith("unet.")}
    settings.pop("peft_type")
    unet, text = small_unet("sd_v1"), small_text("sd_v1")
    peft.inject_adapter_in_model(peft.LoraConfig(**settings), unet)
    weights = {key.removeprefix("unet."): value for key, value in read_state_dict(path).items()}
    result = peft.set_peft_model_state_dict(unet, weights)
    assert not result.unexpected_keys
    torch.testing.assert_close(ours(model, path, inputs)[0], theirs(unet, text, inputs)[0], rtol=1e-3, atol=2e-4)
