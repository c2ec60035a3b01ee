"""Models that are conditioned on a picture: what the UNet is shown, the loss, a sampling step with guidance."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from ldm.checkpoint import save_state_dict
from ldm.models.diffusion.ddpm import LatentDiffusion
from ldm.models.diffusion.sampling import sample
from ldm.models.diffusion.variants import PictureConditioned
from ldm.util import ConfigError, UserError, instantiate_from_config
from tests.helpers import ROOT
from tests.models.stand_ins import CONTEXT, LetterEncoder, PooledFirstStage

HERE = "tests.models.stand_ins"
SCALE = 0.5


def config(
    name: str, in_channels: int, conditioning_key: str | None, unet: dict[str, Any] | None = None, **more: Any
) -> Any:
    """A variant at a size that runs in no time; pictures 16x16, latents 4x8x8."""
    return {
        "target": f"ldm.models.diffusion.ddpm.{name}",
        "params": {
            "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000, "first_stage_key": "jpg",
            "cond_stage_key": "txt", "image_size": 8, "channels": 4, "scale_factor": SCALE, "use_ema": False,
            "conditioning_key": conditioning_key,
            "unet_config": {
                "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
                "params": {
                    "image_size": 8, "in_channels": in_channels, "out_channels": 4, "model_channels": 32,
                    "attention_resolutions": [1], "num_res_blocks": 1, "channel_mult": [1, 2], "num_heads": 2,
                    "use_spatial_transformer": True, "context_dim": CONTEXT, "legacy": False, **(unet or {}),
                },
            },
            "first_stage_config": {"target": f"{HERE}.PooledFirstStage"},
            "cond_stage_config": {"target": f"{HERE}.LetterEncoder"},
            **more,
        },
    }  # fmt: skip


NOISE = {"linear_start": 0.0001, "linear_end": 0.02}
LOW_SCALE = {
    "target": "ldm.modules.diffusionmodules.upscaling.ImageConcatWithNoiseAugmentation",
    "params": {"noise_schedule_config": NOISE, "max_noise_level": 350},
}
CONFIGS = {
    "inpaint": config("LatentInpaintDiffusion", 9, "hybrid"),
    "depth": config(
        "LatentDepth2ImageDiffusion", 5, "hybrid", depth_stage_config={"target": f"{HERE}.SlopeDepth"}
    ),
    "upscale": config(
        "LatentUpscaleDiffusion", 7, "hybrid-adm", {"num_classes": 1000},
        parameterization="v", low_scale_key="lr", noise_level_key="level", low_scale_config=LOW_SCALE,
    ),
    "upscale_finetune": config(
        "LatentUpscaleFinetuneDiffusion", 7, "hybrid-adm", {"num_classes": 1000},
        low_scale_key="lr", low_scale_config=LOW_SCALE,
    ),
    "embedding": config(
        "ImageEmbeddingConditionedLatentDiffusion", 4, "crossattn-adm",
        {"num_classes": "sequential", "adm_in_channels": 8}, embedding_dropout=0.5,
        embedder_config={"target": f"{HERE}.MeanEmbedder"},
        noise_aug_config={"target": f"{HERE}.LevelAugmentation"},
    ),
}  # fmt: skip


def build(name: str, **changes: Any) -> Any:
    node = CONFIGS[name]
    torch.manual_seed(0)
    return instantiate_from_config({**node, "params": {**node["params"], **changes}})


def randomise(model: LatentDiffusion) -> None:
    """Layers that start at zero hide the condition."""
    for p in model.model.parameters():
        torch.nn.init.normal_(p, std=0.1)


def batch(count: int = 2) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(1)
    picture = torch.rand(count, 16, 16, 3, generator=draw) * 2 - 1
    mask = torch.zeros(count, 16, 16, 1)
    mask[:, 4:10, 2:8] = 1
    return {
        "jpg": picture,
        "txt": ["a red house", "a boat"][:count],
        "mask": mask,
        "masked_image": picture * (1 - mask),
        "midas_in": picture.permute(0, 3, 1, 2),
        "lr": picture[:, ::2, ::2],
        "level": torch.tensor([20, 340])[:count],
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_loss_reaches_the_network_and_nothing_else(name: str) -> None:
    model = build(name).train()
    loss, parts = model.shared_step(batch())
    loss.backward()
    assert torch.isfinite(loss) and float(parts["train/loss_simple"]) > 0
    # the last layer starts at zero, so that it is the only one with a gradient at the first step
    assert model.model.diffusion_model.out[2].weight.grad.abs().sum() > 0
    frozen = [p for part in model.frozen for p in getattr(model, part).parameters()]
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    assert not any(getattr(model, part).training for part in model.frozen)
    assert set(map(id, model.trained_parameters())) == set(map(id, model.model.parameters()))


@pytest.mark.parametrize("name", CONFIGS)
def test_samples_with_guidance_without_a_target_picture(name: str) -> None:
    model = build(name).eval()
    randomise(model)
    given = {key: value for key, value in batch().items() if key != "jpg" or name == "embedding"}
    condition = model.get_condition(given, (8, 8))
    x = torch.randn(2, 4, 8, 8)
    free = sample(model, x, condition, steps=2)
    guided = sample(model, x, condition, steps=2, guidance_scale=4.0, uncond=model.unconditional(condition))
    assert guided.shape == x.shape and torch.isfinite(guided).all()
    assert not torch.allclose(free, guided)


@pytest.mark.parametrize("name", CONFIGS)
def test_guidance_is_away_from_the_empty_text_at_the_same_picture(name: str) -> None:
    model = build(name).eval()
    condition = model.get_condition(batch(), (8, 8))
    uncond = model.unconditional(condition)
    assert torch.equal(uncond["c_crossattn"][0], LetterEncoder().encode(["", ""]))
    assert torch.equal(model.unconditional(condition, "ugly")["c_crossattn"][0], LetterEncoder().encode(["ugly"] * 2))
    for kept in {"c_concat"} & set(condition):
        assert uncond[kept] is condition[kept]
    if name == "embedding":
        assert uncond["c_adm"].eq(0).all() and condition["c_adm"].ne(0).any()


def test_previews_in_training_are_guided_too() -> None:
    model = build("inpaint").eval()
    randomise(model)
    images = model.log_images(batch(), N=1, ddim_steps=2, unconditional_guidance_scale=3.0)
    assert images["samples"].shape == images["samples_cfg_scale_3.00"].shape == (1, 3, 16, 16)
    assert not torch.allclose(images["samples"], images["samples_cfg_scale_3.00"])


def test_in_painting_sees_the_mask_and_the_latent_of_what_is_kept() -> None:
    model, given = build("inpaint"), batch()
    z, condition = model.get_input(given)
    picture = given["masked_image"].permute(0, 3, 1, 2)
    (shown,) = condition["c_concat"]
    assert torch.equal(z, SCALE * PooledFirstStage().encode(given["jpg"].permute(0, 3, 1, 2)))
    assert shown.shape == (2, 5, 8, 8)
    assert torch.equal(shown[:, :1], given["mask"].permute(0, 3, 1, 2)[:, :, ::2, ::2])
    assert torch.equal(shown[:, 1:], SCALE * PooledFirstStage().encode(picture))


def test_depth_is_relative() -> None:
    (near,) = build("depth").get_condition(batch(), (8, 8))["c_concat"]
    node = {"target": f"{HERE}.SlopeDepth", "params": {"scale": 300.0, "offset": 70.0}}
    (far,) = build("depth", depth_stage_config=node).get_condition(batch(), (8, 8))["c_concat"]
    assert near.shape == (2, 1, 8, 8)
    torch.testing.assert_close(near, far, atol=2e-3, rtol=0)
    torch.testing.assert_close(near.amin((1, 2, 3)), torch.full((2,), -1.0))
    assert near.amax() <= 1 and near.amax((1, 2, 3)).min() > 0.99


def test_up_scaling_noises_the_small_picture_as_asked() -> None:
    model, given = build("upscale"), batch()
    torch.manual_seed(3)
    condition = model.get_condition(given, (8, 8))
    torch.manual_seed(3)
    noise = torch.randn(2, 3, 8, 8)
    acp = torch.cumprod(1 - torch.linspace(0.0001**0.5, 0.02**0.5, 1000, dtype=torch.float64) ** 2, 0)
    acp = acp[given["level"]].float().reshape(2, 1, 1, 1)
    expected = acp.sqrt() * given["lr"].permute(0, 3, 1, 2) + (1 - acp).sqrt() * noise
    torch.testing.assert_close(condition["c_concat"][0], expected)
    assert torch.equal(condition["c_adm"], given["level"])
    assert build("upscale", noise_level_key=None).get_condition(batch(), (8, 8))["c_adm"].max() < 350


def test_tiles_become_channels() -> None:
    node = CONFIGS["upscale_finetune"]["params"]
    unet = {"target": node["unet_config"]["target"], "params": {**node["unet_config"]["params"], "in_channels": 16}}
    model = build("upscale_finetune", unet_config=unet, reshuffle_patch_size=2, low_scale_config=None)
    (shown,) = model.get_condition({"txt": ["a"], "lr": batch(1)["jpg"]}, (8, 8))["c_concat"]
    assert shown.shape == (1, 12, 8, 8)
    assert torch.equal(shown[:, 3:6], batch(1)["jpg"][:, :8, 8:].permute(0, 3, 1, 2))


def test_embedding_is_dropped_in_training_only() -> None:
    model = build("embedding", embedding_dropout=1.0)
    picture = batch()["jpg"].permute(0, 3, 1, 2)
    assert model.train().get_condition(batch(), (8, 8))["c_adm"].eq(0).all()
    shown = model.eval().get_condition(batch(), (8, 8))["c_adm"]
    torch.testing.assert_close(shown[:, :3], picture.mean((2, 3)))
    assert shown.shape == (2, 8) and shown[:, 4:].eq(0).all()
    model.embedding_dropout = 0.0
    torch.testing.assert_close(model.train().get_condition(batch(), (8, 8))["c_adm"], shown)


def outputs(model: LatentDiffusion, x: Tensor, condition: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return model.apply_model(x, torch.tensor([10, 500]), condition)


def test_a_text_to_image_model_is_the_start_of_an_in_painting_one(tmp_path: Path) -> None:
    plain = instantiate_from_config(config("LatentDiffusion", 4, "crossattn")).eval()
    randomise(plain)
    save_state_dict(plain.state_dict(), tmp_path / "plain.safetensors")
    model = build("inpaint", ckpt_path=str(tmp_path / "plain.safetensors")).eval()
    x, condition = torch.randn(2, 4, 8, 8), model.get_condition(batch(), (8, 8))
    expected = outputs(plain, x, {"c_crossattn": condition["c_crossattn"]})
    torch.testing.assert_close(outputs(model, x, condition), expected)
    model.model.diffusion_model.input_blocks[0][0].weight.data[:, 4:] = 0.1
    assert not torch.allclose(outputs(model, x, condition), expected)


def test_the_documented_in_painting_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "configs" / "README.md").read_text(), re.DOTALL)
    code = code.replace('"configs/', f'"{ROOT}/configs/').replace("steps=50", "steps=2")
    monkeypatch.setattr("ldm.checkpoint.load_model", lambda config, ckpt: build("inpaint").eval())
    monkeypatch.chdir(tmp_path)
    for name in ("photo", "mask"):
        Image.new("RGB", (128, 128), "white").save(f"{name}.png")
    exec(compile(code, "configs/README.md", "exec"), {})
    assert Image.open("filled.png").size == (128, 128)


def test_bad_input_is_named() -> None:
    with pytest.raises(UserError, match="no 'masked_image'"):
        build("inpaint").get_condition({"txt": ["a"], "mask": torch.zeros(1, 16, 16, 1)}, (8, 8))
    with pytest.raises(UserError, match="no 'txt'"):
        build("depth").get_condition({"midas_in": torch.zeros(1, 3, 16, 16)}, (8, 8))
    with pytest.raises(ConfigError, match="masked_image_key"):
        build("inpaint", masked_image_key="picture")
    with pytest.raises(ConfigError, match="low_scale_key"):
        build("upscale_finetune", low_scale_key=None)
    with pytest.raises(ConfigError, match="freeze_embedder"):
        build("embedding", freeze_embedder=False)
    with pytest.raises(NotImplementedError):
        PictureConditioned.picture_parts(build("inpaint"), {}, (8, 8), 1)
