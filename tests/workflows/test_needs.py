"""Models that a prompt is not enough for: the prompt commands say in one sentence what is missing, and end with 2."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ldm.checkpoint import save_state_dict
from ldm.util import instantiate_from_config, run_command
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img
from tests.workflows.small_model import CONFIG, write_small_model

NOISE = {"noise_schedule_config": {"linear_start": 0.0001, "linear_end": 0.02}, "max_noise_level": 350}
VISION = {"embed_dim": 8, "width": 32, "heads": 4, "layers": 1, "patch_size": 8, "image_size": 32}
EMBEDDER = {
    "target": "ldm.modules.encoders.modules.FrozenOpenCLIPImageEmbedder", "params": {"arch": "small", "config": VISION},
}  # fmt: skip
CLASSES = {
    "target": "ldm.modules.encoders.modules.ClassEmbedder",
    "params": {"embed_dim": 16, "n_classes": 11, "key": "class_label"},
}
# kind -> the class, parameters, the UNet's parameters, and what is asked for
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any], list[str]]] = {
    "class": ("LatentDiffusion", {"cond_stage_key": "class_label", "cond_stage_config": CLASSES}, {}, ["class_label"]),
    "in-painting": ("LatentInpaintDiffusion", {"conditioning_key": "hybrid"}, {"in_channels": 9}, ["image", "mask"]),
    "up-scaling": (
        "LatentUpscaleDiffusion",
        {"conditioning_key": "hybrid-adm", "low_scale_key": "lr", "low_scale_config": {
            "target": "ldm.modules.diffusionmodules.upscaling.ImageConcatWithNoiseAugmentation", "params": NOISE}},
        {"in_channels": 7, "num_classes": 1000}, ["low_res"],
    ),
    "image embedding": (
        "ImageEmbeddingConditionedLatentDiffusion", {"conditioning_key": "crossattn-adm", "embedder_config": EMBEDDER},
        {"num_classes": "sequential", "adm_in_channels": 8}, ["image"],
    ),
    "depth": (
        "LatentDepth2ImageDiffusion",
        {"conditioning_key": "hybrid", "depth_stage_config": {"target": "tests.models.stand_ins.SlopeDepth"}},
        {"in_channels": 5}, ["image"],
    ),
    "no condition": (
        "LatentDiffusion", {"conditioning_key": None, "cond_stage_config": "__is_unconditional__"},
        {"use_spatial_transformer": False, "context_dim": None}, [],
    ),
}  # fmt: skip


def saved(kind: str, folder: Path) -> Path:
    """A small random model of that kind: the weights; its configuration lies beside them."""
    ckpt = write_small_model(folder)
    config: dict[str, Any] = copy.deepcopy(CONFIG)
    params = config["model"]["params"]
    params["cond_stage_config"]["params"]["tokenizer"] = str(folder / "vocab.txt")
    name, changes, unet, _ = KINDS[kind]
    config["model"]["target"] = f"ldm.models.diffusion.ddpm.{name}"
    params |= changes
    params["unet_config"]["params"] |= unet
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    torch.manual_seed(0)
    save_state_dict(instantiate_from_config(config["model"]).state_dict(), ckpt)
    return ckpt


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind][3]])
def test_one_sentence_and_exit_code_2(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ckpt = saved(kind, tmp_path / "model")
    config = str(ckpt.parent / "config.yaml")  # named, because the depth network's stand-in is a class of the tests
    options = Txt2ImgOptions(ckpt=str(ckpt), config=config, outdir=str(tmp_path / "out"), progress=False)
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: txt2img(options), debug=False)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith("error: this model needs ") and error.count("\n") == 1
    assert all(f"'{name}' (" in error for name in KINDS[kind][3]) and "model.condition(" in error
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_condition_makes_pictures_all_the_same(tmp_path: Path) -> None:
    ckpt = saved("no condition", tmp_path / "model")
    (image,) = txt2img(Txt2ImgOptions(ckpt=str(ckpt), outdir=str(tmp_path), n_samples=1, progress=False))
    assert image.size == (32, 32)
