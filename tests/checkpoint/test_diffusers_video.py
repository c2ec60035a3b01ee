"""Stable Video Diffusion's diffusers folders, against diffusers and transformers with the same weights."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from ldm.checkpoint import diffusers_config, load_model, load_weights, read_state_dict
from ldm.checkpoint.diffusers_keys import open_clip_vision_weights, unet_weights
from ldm.checkpoint.diffusers_video import first_stage_weights, weights_of_first_frame
from ldm.models.diffusion.sampling import sample
from ldm.modules.diffusionmodules.guiders import LinearPredictionGuider
from ldm.pictures.film import read_film
from ldm.pictures.images import image_to_tensor
from ldm.util import UserError, instantiate_from_config
from ldm.workflows.catalogue import models_at_hand
from ldm.workflows.film_options import VideoOptions
from ldm.workflows.studio import open_studio
from ldm.workflows.video import make_plan
from scripts import simple_video_sample
from tests.helpers import GOLDEN
from tests.parity.test_video_networks import drawn

FRAMES, STEPS, WIDTH = 4, 3, 24
CROSS, PLAIN = "CrossAttn{}BlockSpatioTemporal", "{}BlockSpatioTemporal"
UNET: dict[str, Any] = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "sample_size": 8, "num_frames": FRAMES,
    "down_block_types": (CROSS.format("Down"), PLAIN.format("Down")), "num_attention_heads": (2, 4),
    "up_block_types": (PLAIN.format("Up"), CROSS.format("Up")), "cross_attention_dim": WIDTH,
    "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 24,
}  # fmt: skip
TOWER: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 224,
    "patch_size": 56, "projection_dim": WIDTH, "hidden_act": "gelu",
}  # fmt: skip
LEVELS: dict[str, Any] = {  # as released
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction",
    "timestep_type": "continuous", "timestep_spacing": "leading", "steps_offset": 1, "use_karras_sigmas": True,
    "sigma_min": 0.002, "sigma_max": 700.0, "interpolation_type": "linear",
}  # fmt: skip


def autoencoder(**sizes: Any) -> Any:
    return AutoencoderKLTemporalDecoder(**{"down_block_types": ("DownEncoderBlock2D",) * 2, **sizes})


@pytest.fixture(scope="module")
def pipe() -> Any:
    """A random pipeline, with the eps of the released code in the residual blocks on the way down."""
    parts = {"unet": drawn(UNetSpatioTemporalConditionModel(**UNET)),
             "vae": drawn(autoencoder(block_out_channels=(32, 64), layers_per_block=2)),
             "image_encoder": drawn(CLIPVisionModelWithProjection(CLIPVisionConfig(**TOWER)))}  # fmt: skip
    for name, module in parts["unet"].named_modules():
        if isinstance(module, nn.GroupNorm) and "res_block" in name:
            module.eps = 1e-5
    made: Any = StableVideoDiffusionPipeline(
        **parts, scheduler=EulerDiscreteScheduler(**LEVELS), feature_extractor=CLIPImageProcessor()
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def saved(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("models") / "svd"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(saved, tmp_path / "svd"))


def picture(path: Path | None = None) -> Image.Image:
    made = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 24, 3), np.uint8))
    if path is not None:
        made.save(path)
    return made


class Given:
    """Noise that is given, in the place of what draws it."""

    def __init__(self, noise: Tensor) -> None:
        self.noise = noise

    def draw(self, shape: Any) -> Tensor:
        return self.noise


@torch.no_grad()
def test_a_folder_makes_the_film_that_diffusers_makes(pipe: Any, saved: Path) -> None:
    """Both read the picture, put the same noise on it, walk from the same start and decode in portions."""
    start = torch.randn(1, FRAMES, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    asked: dict[str, Any] = {"height": 16, "width": 24, "num_frames": FRAMES, "num_inference_steps": STEPS, "fps": 9,
                             "motion_bucket_id": 80, "noise_aug_strength": 0.3, "max_guidance_scale": 3.0}  # fmt: skip
    theirs = pipe(picture(), **asked, latents=start, decode_chunk_size=3, output_type="pt",
                  generator=torch.Generator().manual_seed(2)).frames[0]  # fmt: skip
    model: Any = load_model(None, saved)
    noise = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(2))
    condition = model.condition([""], image=image_to_tensor(picture())[None], frames=FRAMES, fps=9, motion=80,
                                cond_aug=0.3, noise=Given(noise))  # fmt: skip
    latents = sample(
        model, start[0], condition, steps=STEPS, sampler="euler", uncond=model.unconditional(condition),
        guidance_scale=LinearPredictionGuider(3.0, FRAMES).scale,
    )  # fmt: skip
    frames = torch.cat([model.decode_first_stage(portion) for portion in latents.split(3)])
    ours = (frames / 2 + 0.5).clamp(0, 1)
    assert theirs.std(dim=0).mean() > 0.05, "its frames are not one still picture"
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_nothing_is_missing_and_nothing_is_left_over(saved: Path) -> None:
    """Neither of a whole folder nor of its parts alone; the vector of the picture is the tower's."""
    for part in ("", "unet", "vae", "image_encoder"):
        with torch.device("meta"):
            module = instantiate_from_config(diffusers_config(saved / part))
        report = load_weights(module, saved / part, strict=True)
        assert not report.missing and not report.unexpected and not any(p.is_meta for p in module.parameters())


def test_names_and_shapes_at_full_size_are_the_released_ones(saved: Path, tmp_path: Path) -> None:
    """All but those of the decoder of pictures beside the encoder of the first frame, and of a text tower: unused."""
    with torch.device("meta"):
        unet: Any = UNetSpatioTemporalConditionModel(num_frames=14)
        vae = autoencoder(down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=2,
                          block_out_channels=(128, 256, 512, 512))  # fmt: skip
        tower = CLIPVisionModelWithProjection(CLIPVisionConfig(
            hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14,
            projection_dim=1024, hidden_act="gelu", architectures=["CLIPVisionModelWithProjection"],
        ))  # fmt: skip
        unet.save_config(tmp_path / "unet")
        vae.save_config(tmp_path / "vae")
        tower.config.save_pretrained(tmp_path / "image_encoder")
        shutil.copytree(saved / "scheduler", tmp_path / "scheduler")
        shutil.copy(saved / "model_index.json", tmp_path)
        ours = shapes(instantiate_from_config(diffusers_config(tmp_path)).state_dict())
    translated = {
        "model.diffusion_model.": unet_weights(unet.state_dict(), [2] * 4),
        "first_stage_model.": first_stage_weights(vae.state_dict()),
        "conditioner.embedders.0.open_clip.": open_clip_vision_weights(tower.state_dict()),
    }
    given = {prefix + key: value for prefix, part in translated.items() for key, value in part.items()}
    assert shapes({**given, **weights_of_first_frame(given)}) == ours
    released = json.loads((GOLDEN / "keys" / "svd.json").read_text())["keys"]
    assert ours.items() <= released.items()
    unused = re.compile(r"conditioner\.embedders\.(0\.open_clip\.model\.(?!visual)|3\.encoder\.(?!encoder))")
    assert ours.keys() == {key for key in released if not unused.match(key)}


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in tensors.items()}


def test_half_precision_files_are_taken_where_there_are_no_others(pipe: Any, saved: Path, folder: Path) -> None:
    whole = read_state_dict(saved)
    for part in ("unet", "vae", "image_encoder"):
        for file in (folder / part).glob("*.safetensors"):
            halves = {key: value.half() for key, value in load_file(file).items()}
            save_file(halves, file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
            file.unlink()
    found = read_state_dict(folder)
    assert found.keys() == whole.keys()
    for key, value in found.items():
        torch.testing.assert_close(value.float(), whole[key], rtol=2e-3, atol=2e-3)


def test_films_by_the_command_are_those_of_the_folders_own_settings(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png")
    studio = open_studio(saved)
    plan = make_plan(VideoOptions(), studio)
    assert (plan.frames, plan.steps, plan.min_scale, plan.max_scale, plan.sampler) == (FRAMES, 25, 1.0, 3.0, "euler")
    assert tuple(studio.model.image_size) == (72, 128), "576x1024"
    version = make_plan(VideoOptions(version="svd_xt"), studio)
    assert (version.frames, version.steps, version.min_scale, version.max_scale) == (25, 30, 1.5, 3.0)
    arguments = ["--ckpt", str(saved), "--version", "svd", "--input_path", str(tmp_path / "a.png"), "--num_frames", "3",
                 "--num_steps", "1", "--height", "16", "--width", "16", "--output_folder", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["simple_video_sample", *arguments])
    simple_video_sample.main()
    assert len(read_film(tmp_path / "out" / "a.mp4").frames) == 3
    (listed,) = [one for one in models_at_hand(saved.parent) if one.ckpt == saved.resolve()]
    assert listed.films


@pytest.mark.parametrize(
    ("part", "changes", "sentence"),
    [
        ("scheduler", {"prediction_type": "epsilon"}, "asks for prediction_type epsilon"),
        ("scheduler", {"use_karras_sigmas": False}, "use_karras_sigmas False"),
        ("unet", {"in_channels": 9}, "sees 9 channels"),
        ("unet", {"projection_class_embeddings_input_dim": 32}, "a vector of 32"),
        ("unet", {"_class_name": "UNetMotionModel"}, "holds a UNetMotionModel"),
        ("vae", {"layers_per_block": 3}, "layers_per_block 3"),
        ("vae", {"block_out_channels": "wide"}, "is damaged"),
        ("image_encoder", {"hidden_size": 0}, "is damaged"),
        ("image_encoder", {"hidden_act": "gelu_new"}, "with hidden_act 'gelu_new' is not built here"),
        ("image_encoder", {"hidden_act": ["gelu"]}, "is damaged"),
    ],
)
def test_what_is_not_built_is_said(part: str, changes: dict[str, Any], sentence: str, folder: Path) -> None:
    file = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(UserError, match=sentence):
        diffusers_config(folder)


def test_a_damaged_folder_does_not_hide_other_models(folder: Path) -> None:
    damaged: list[Any] = [5, True, {"a": 1}, None, [None, 3], "UNet"]
    for number, named in enumerate(damaged):
        (folder.parent / f"damaged{number}").mkdir()
        (folder.parent / f"damaged{number}" / "model_index.json").write_text(json.dumps({"unet": named}))
    found = {one.name: one.films for one in models_at_hand(folder.parent)}
    assert found.pop("svd") and found.pop("tiny-film")
    assert {f"damaged{number}" for number in range(len(damaged))} <= found.keys() and not any(found.values())


@pytest.mark.parametrize("part", ["unet", "vae", "image_encoder"])
def test_a_missing_part_is_one_sentence(part: str, folder: Path) -> None:
    shutil.rmtree(folder / part)
    for opened in (diffusers_config, read_state_dict):
        with pytest.raises(UserError, match=f"{part}"):
            opened(folder)


def test_weights_of_another_size_are_one_sentence(folder: Path) -> None:
    file = folder / "image_encoder" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "projection_dim": 16}))
    with pytest.raises(UserError, match="another shape"):
        load_model(None, folder)
