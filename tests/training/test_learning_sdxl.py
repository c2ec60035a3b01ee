"""Stable Diffusion XL learns by main.py: a word on two encoders, a LoRA, DreamBooth; others read the files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file

from ldm.additions.base import applied
from ldm.additions.lora.lora import Lora
from ldm.additions.lora.trained import TrainedLora
from ldm.additions.reading import read_additions
from ldm.checkpoint import load_model, read_embedding, read_metadata, read_state_dict, save_state_dict
from ldm.data.personalized import PersonalizedBase
from ldm.training.launch import main
from ldm.util import UserError
from ldm.workflows.studio import open_studio
from scripts import export_model
from tests.workflows.small_model import write_small_model
from tests.workflows.small_xl import CLIP_G, CLIP_L, NUMBER, POOLED, small_config, write_small_xl
from tests.workflows.test_sdxl import differs, made

STEPS = 3
LORA = {
    "target": "ldm.additions.lora.trained.TrainedLora",
    "params": {"rank": 2, "layers": "kohya", "text_layers": "kohya", "format": "kohya"},
}
WORD = {
    "target": "ldm.additions.paired_words.PairedEmbeddingManager",
    "params": {"placeholder_strings": ["*"], "initializer_words": ["cat"], "num_vectors_per_token": 2},
}


def configuration(folder: Path, name: str, **model: Any) -> None:
    """A YAML of a run whose model has these further parameters."""
    document = small_config(folder / "vocabulary")
    document["model"]["params"] |= {"input_key": "image", "caption_key": "caption", **model}
    document["model"]["base_learning_rate"] = 1e-2
    data = {"size": 32, "repeats": 4, "center_crop": True, "sizes": True, "templates": ["a {}", "a {} cat"]}
    document["data"] = {
        "target": "main.DataModuleFromConfig",
        "params": {
            "batch_size": 2, "num_workers": 0, "cache_latents": "reg_weight" not in model,
            "train": {"target": "ldm.data.personalized.PersonalizedBase", "params": data},
        },
    }  # fmt: skip
    if name == "lora":
        data["bucket_step"] = 8
    if "reg_weight" in model:
        document["data"]["params"]["reg"] = {
            "target": "ldm.data.personalized.PersonalizedBase",
            "params": {"size": 32, "repeats": 4, "reg": True, "center_crop": True, "sizes": True},
        }  # fmt: skip
    document["lightning"] = {
        "callbacks": {"image_logger": {"params": {"disabled": True}}},
        "trainer": {"max_steps": STEPS, "log_every_n_steps": 1, "accelerator": "cpu", "enable_progress_bar": False,
                    "enable_model_summary": False},
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(copy.deepcopy(document)))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model, pictures, and a YAML for each kind of run."""
    folder = tmp_path_factory.mktemp("xl")
    write_small_xl(folder)
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        shape = ((40, 56, 3), (56, 40, 3))[i]
        Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(folder / "pictures" / f"{i}.png")
    configuration(folder, "word", personalization_config=WORD)
    configuration(folder, "lora", lora_config=LORA)
    configuration(folder, "pivotal", lora_config=LORA, personalization_config=WORD)
    configuration(folder, "dreambooth", unfreeze_model=True, model_lr=1e-3, reg_weight=1.0)
    return folder


def run(place: Path, name: str, *more: str) -> Path:
    """The folder of checkpoints of a run; of one that was made before, without another."""
    logs = place / "logs" / name
    if not logs.is_dir():
        main([
            "--base", str(place / f"{name}.yaml"), "-t", "--actual_resume", str(place / "model.safetensors"),
            "--data_root", str(place / "pictures"), "-l", str(logs), "--name", name, "--scale_lr", "false", *more,
        ])  # fmt: skip
    (found,) = logs.glob(f"*_{name}")
    return found / "checkpoints"


def test_a_word_on_two_encoders(place: Path, tmp_path: Path) -> None:
    path = run(place, "word") / "embeddings.safetensors"
    tensors = load_file(path)
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "clip_l": (2, CLIP_L), "clip_g": (2, CLIP_G)
    }  # fmt: skip
    file = read_embedding(path)
    assert file.format == "sdxl" and list(file.vectors) == ["*"] == list(file.second)
    base = read_state_dict(place / "model.safetensors")
    tables = [base["conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight"],
              base["conditioner.embedders.1.model.token_embedding.weight"]]  # fmt: skip
    for vectors, table in zip(tensors.values(), (tables[1], tables[0]), strict=True):
        assert (torch.cdist(vectors, table).min(dim=1).values > 1e-3).all(), "it has moved away from every token"
    studio = open_studio(place / "model.safetensors", device="cpu")
    plain = made(studio, prompt="a *")
    assert differs(plain, made(studio, prompt="a *", embedding_path=str(path)))
    assert differs(plain, made(studio, prompt="a <new>", embedding_path=f"{path}=<new>"))
    assert not differs(plain, made(studio, prompt="a *")), "a request leaves nothing behind"
    other = open_studio(write_small_model(tmp_path), device="cpu")
    with pytest.raises(UserError, match=r"was made for a model with two text encoders \(Stable Diffusion XL"):
        made(other, prompt="a *", embedding_path=str(path))


def test_a_word_of_another_model_is_refused(place: Path, tmp_path: Path) -> None:
    save_state_dict({"*": torch.zeros(1, CLIP_L)}, tmp_path / "sd1.safetensors")
    with pytest.raises(UserError, match=r"the loaded model has Stable Diffusion XL's text encoders \(widths 24 and 32"):
        made(open_studio(place / "model.safetensors", device="cpu"), embedding_path=str(tmp_path / "sd1.safetensors"))


@torch.no_grad()
def test_words_put_on_twice_leave_nothing(place: Path) -> None:
    model: Any = load_model(yaml.safe_load((place / "config.yaml").read_text()), place / "model.safetensors")
    path = run(place, "word") / "embeddings.safetensors"
    first, second = (read_additions(model, [f"{path}={name}"])[0] for name in ("<a>", "<b>"))
    plain = model.condition(["a <a> <b>"], size=(8, 8))
    with applied(model, [first, second]):
        both = model.condition(["a <a> <b>"], size=(8, 8))
        assert set(model.embedding_manager.placeholders) == {"<a>", "<b>"}
    assert model.embedding_manager is None
    with applied(model, [first]):
        one = model.condition(["a <a> <b>"], size=(8, 8))
    for part in (lambda c: c["c_crossattn"][0], lambda c: c["c_adm"]):
        assert not torch.equal(part(both), part(one)) and not torch.equal(part(one), part(plain))
    assert torch.equal(model.condition(["a <a> <b>"], size=(8, 8))["c_adm"], plain["c_adm"])


def test_a_lora(place: Path) -> None:
    path = run(place, "lora") / "lora.safetensors"
    about = read_metadata(path)
    assert about["modelspec.title"] == "lora" and about["ss_steps"] == str(STEPS)
    studio = open_studio(place / "model.safetensors", device="cpu")
    plain = made(studio)
    assert differs(plain, made(studio, lora=[f"{path}=5.0"])) and not differs(plain, made(studio))


STARTS = {
    "kohya": ("lora_unet_down_blocks_1_attentions_0_", "lora_te1_text_model_encoder_layers_0_",
              "lora_te2_text_model_encoder_layers_0_"),
    "kohya_sgm": ("lora_unet_input_blocks_3_1_transformer_blocks_1_", "lora_te1_", "lora_te2_"),
    "peft": ("unet.down_blocks.1.attentions.0.", "text_encoder.text_model.", "text_encoder_2.text_model."),
}  # fmt: skip


@torch.no_grad()
def test_a_lora_in_every_spelling(place: Path, tmp_path: Path) -> None:
    model: Any = load_model(yaml.safe_load((place / "config.yaml").read_text()), place / "model.safetensors")
    lora = TrainedLora(model, rank=2, layers="kohya", text_layers="kohya")
    torch.manual_seed(0)
    for parameter in lora.learned():
        parameter.add_(0.1 * torch.randn(parameter.shape))
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([500])

    def output(addition: Any) -> torch.Tensor:
        with applied(model, [addition]):
            return model.apply_model(x, t, model.condition(["a cat"], size=(8, 8)))

    expected, plain = output(lora), model.apply_model(x, t, model.condition(["a cat"], size=(8, 8)))
    assert (expected - plain).abs().max() > 1e-3
    for spelling, starts in STARTS.items():
        lora.spelling, path = spelling, tmp_path / f"{spelling}.safetensors"
        lora.save(path)
        for start in starts:
            assert any(key.startswith(start) for key in load_file(path)), (spelling, start)
        torch.testing.assert_close(output(Lora.read(path, model)), expected, rtol=1e-4, atol=1e-5)


def test_a_word_and_a_lora_at_once(place: Path) -> None:
    folder = run(place, "pivotal")
    assert {"lora.safetensors", "embeddings.safetensors"} <= {path.name for path in folder.iterdir()}


def test_dreambooth_changes_the_network(place: Path) -> None:
    classes = place / "classes"
    if not classes.is_dir():
        classes.mkdir()
        Image.new("RGB", (32, 32), "red").save(classes / "0.png")
    folder = run(place, "dreambooth", "--reg_data_root", str(classes), "--class_word", "cat")
    learned, base = read_state_dict(folder / "last.ckpt"), read_state_dict(place / "model.safetensors")
    moved = {
        key.split(".")[0] for key, value in base.items()
        if key in learned and not torch.equal(value.float(), learned[key].float())
    }  # fmt: skip
    assert "model" in moved and "first_stage_model" not in moved
    texts = [{key for key in keys if key.startswith("conditioner.")} for keys in (learned, base)]
    assert texts[0] == texts[1]


@torch.no_grad()
def test_a_dreambooth_model_is_read_by_diffusers_with_the_same_result(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one file that ``scripts.export_model`` makes of a run, as diffusers opens single files."""
    last = run(place, "dreambooth", "--reg_data_root", str(place / "classes"), "--class_word", "cat") / "last.ckpt"
    file = tmp_path / "dreambooth.safetensors"
    monkeypatch.setattr("sys.argv", ["export_model", str(last), str(file), "--precision", "fp32"])
    export_model.main()
    model: Any = load_model(yaml.safe_load((place / "config.yaml").read_text()), file)
    shape: Any = UNet2DConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, sample_size=8, use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4), transformer_layers_per_block=(1, 2), cross_attention_dim=CLIP_L + CLIP_G,
        addition_embed_type="text_time", addition_time_embed_dim=NUMBER,
        projection_class_embeddings_input_dim=POOLED + 6 * NUMBER,
    )  # fmt: skip
    shape.save_pretrained(tmp_path / "unet")
    theirs: Any = UNet2DConditionModel.from_single_file(str(file), config=str(tmp_path), subfolder="unet")
    x, t = torch.randn(2, 4, 8, 6), torch.tensor([3, 700])
    condition = model.condition(["a sks cat", "a cat"], size=(8, 6))
    context, vector = condition["c_crossattn"][0], condition["c_adm"]
    added = {"text_embeds": vector[:, :POOLED], "time_ids": torch.tensor([[32, 24, 0, 0, 32, 24]] * 2)}
    expected = theirs(x, t, encoder_hidden_states=context, added_cond_kwargs=added).sample
    torch.testing.assert_close(model.apply_model(x, t, condition), expected, rtol=1e-3, atol=1e-4)
    base: Any = load_model(yaml.safe_load((place / "config.yaml").read_text()), place / "model.safetensors")
    assert (base.apply_model(x, t, condition) - expected).abs().max() > 1e-3


def test_sizes_of_training_pictures(place: Path) -> None:
    data = PersonalizedBase(str(place / "pictures"), size=32, center_crop=True, sizes=True)
    numbers = {name: value.tolist() for name, value in data[0].items() if name.endswith(("tuple", "left"))}
    assert numbers == {
        "original_size_as_tuple": [40, 56], "crop_coords_top_left": [0, 6], "target_size_as_tuple": [32, 32]
    }  # fmt: skip
    data = PersonalizedBase(str(place / "pictures"), size=32, sizes=True, bucket_step=8)
    assert data.buckets == [data.bucket_sizes.index((24, 40)), data.bucket_sizes.index((40, 24))] * 100
    assert [data[i]["image"].shape for i in (0, 1)] == [(24, 40, 3), (40, 24, 3)]
    assert [data[i]["target_size_as_tuple"].tolist() for i in (0, 1)] == [[24, 40], [40, 24]]
    assert [data[i]["crop_coords_top_left"].tolist() for i in (0, 1)] == [[2, 0], [0, 2]]  # of 29x40 and 40x29
    with pytest.raises(UserError, match="without random 'crops'"):
        PersonalizedBase(str(place / "pictures"), size=32, crops=2, sizes=True)
