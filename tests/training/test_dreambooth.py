"""DreamBooth: the loss of the original, its command line and YAML, class pictures, the whole model or a LoRA."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from ldm.additions.base import applied
from ldm.additions.reading import read_additions
from ldm.checkpoint import read_file, read_state_dict, save_state_dict
from ldm.checkpoint.loading import without_learning
from ldm.commands.train import main
from ldm.data.personalized import PersonalizedBase
from ldm.data.prior import WithPrior
from ldm.models.diffusion.prior import drift_from_base
from ldm.training.config import apply_class
from ldm.training.options import parse
from ldm.util import ConfigError, UserError, instantiate_from_config
from tests.helpers import ROOT, golden_case
from tests.models.small_words import small_model, small_node
from tests.models.test_diffusion_training import latent_diffusion
from tests.models.test_variants import batch as pictures_of_variants
from tests.models.test_variants import build, randomise
from tests.modules.encoders.vocabularies import write_bpe
from tests.workflows.small_xl import small_config as small_xl

PERSONAL = "ldm.data.personalized.PersonalizedBase"


def test_the_loss_is_that_of_the_original() -> None:
    case = golden_case("dreambooth_loss")
    unet: Any = OmegaConf.to_container(case.config)
    model = latent_diffusion(
        unet_config=unet, parameterization="eps", reg_weight=case.args["prior_loss_weight"], unfreeze_model=True
    )
    model.model.diffusion_model.load_state_dict(case.weights)
    assert sum(p.numel() for p in model.model.parameters()) == case.args["parameters_unet"]
    halves = {
        name: {key.removeprefix(f"{part}."): value for key, value in case.inputs.items() if key.startswith(f"{part}.")}
        for name, part in (("train", "instance"), ("reg", "class"))
    }
    for half in halves.values():
        half["context"].requires_grad_(True)
    model.get_input = lambda batch: (batch["x0"], batch)
    model.forward = lambda x, batch: model.p_losses(x, batch["context"], batch["t"], batch["noise"])
    model.train()
    loss, parts = model.shared_step(halves)
    case.assert_close("loss", loss)
    assert parts["train/loss"] + parts["train/loss_reg"] == pytest.approx(float(loss))
    loss.backward()
    case.assert_close("grad_norm", torch.stack([p.grad.norm() for p in model.model.parameters()]).norm())
    for key in [key for key in case.expected if key.startswith("grad.")]:
        case.assert_close(key, gradient(model.model.diffusion_model.get_parameter(key.removeprefix("grad."))))
    case.assert_close("grad_context_instance", gradient(halves["train"]["context"]))
    case.assert_close("grad_context_class", gradient(halves["reg"]["context"]))


def gradient(value: Tensor) -> Tensor:
    assert value.grad is not None
    return value.grad


def test_a_weight_counts_on_the_class_alone() -> None:
    model = latent_diffusion(reg_weight=3.0, unfreeze_model=True)
    losses = iter([torch.tensor(1.0), torch.tensor(10.0)])
    model.get_input = lambda batch: (batch, None)
    model.forward = lambda *_: (next(losses), {})
    assert float(model.shared_step({"train": {}, "reg": {}})[0]) == 31.0


def test_beside_words_class_pictures_have_a_weight_of_their_own_and_not_every_step(tmp_path: Path) -> None:
    words = {"target": "ldm.additions.words.EmbeddingManager", "params": {"placeholder_strings": ["*"]}}
    model = small_model(tmp_path, personalization_config=words, prior_loss_weight=0.25, prior_every=2)
    assert model.embedding_manager is not None, "reg_weight would have the model learn, and not the word"
    picture = {"image": torch.rand(1, 32, 32, 3), "caption": ["a *"]}
    batch = {"train": picture, "reg": picture | {"caption": ["a red *"], "loss_mask": torch.ones(1, 32, 32)}}
    for step, looks in ((0, True), (1, False), (2, True), (3, False)):
        loss, logged = trained_on(model, batch, step)
        assert ("train/loss_reg" in logged) == looks
        beside = 0.25 * float(logged["train/loss_reg"]) if looks else 0.0
        assert float(loss) == pytest.approx(float(logged["train/loss"]) + beside)
    opened = instantiate_from_config(without_learning(small_node(tmp_path, prior_loss_weight=0.25, prior_every=2)))
    assert (opened.prior.weight, opened.prior.prior_every) == (1.0, 1)
    for wrong in ({"prior_loss_weight": -0.1}, {"prior_every": 0}):
        with pytest.raises(ConfigError, match=r"must not be negative and prior_every at least 1, got"):
            small_model(tmp_path, **wrong)


def trained_on(model: Any, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, Any]]:
    """The loss of a training step and what it logs of its parts."""
    logged: dict[str, Any] = {}
    model.train()
    model._trainer = SimpleNamespace(global_step=step)
    model.log_dict = lambda parts, **_: logged.update(parts)
    model.log = lambda *_, **__: None
    return model.training_step(batch, 0), logged


def test_class_pictures_with_sentences_of_their_own_need_no_class_word() -> None:
    captioned = {"target": "ldm.data.captioned.CaptionedFolder", "params": {"size": 32}}
    for said in ([], ["--class_word", "dog"]):
        personal = {"target": PERSONAL, "params": {"placeholder_token": "sks"}}
        config = OmegaConf.create({"data": {"params": {"train": personal, "reg": captioned}}})
        apply_class(config, parse(["-b", "some.yaml", "--reg_data_root", "folder", *said])[0])
        assert config.data.params.reg.params == {"size": 32, "data_root": "folder"}
        assert config.data.params.train.params.placeholder_token == ("dog" if said else "sks")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's weights, pictures, and a YAML with the keys of XavierXiao's."""
    folder = tmp_path_factory.mktemp("dreambooth")
    rng = np.random.default_rng(0)
    (folder / "subject").mkdir()
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / "subject" / f"{i}.png")
    words = {
        "target": "ldm.modules.embedding_manager.EmbeddingManager",
        "params": {"placeholder_strings": ["*"], "initializer_words": ["sculpture"], "per_image_tokens": False},
    }
    node = small_node(
        folder, reg_weight=1.0, unfreeze_model=True, model_lr=1e-6, embedding_reg_weight=0.0,
        personalization_config=words,
    )  # fmt: skip
    pictures: dict[str, Any] = {"target": PERSONAL, "params": {
        "size": 32, "set": "train", "per_image_tokens": False, "repeats": 4}}
    of_class = copy.deepcopy(pictures)
    of_class["params"] |= {"reg": True, "repeats": 10}
    config: dict[str, Any] = {
        "model": {"base_learning_rate": 1e-3, **node},
        "data": {"target": "main.DataModuleFromConfig", "params": {
            "batch_size": 1, "num_workers": 0, "wrap": False, "train": pictures, "reg": of_class}},
        "lightning": {
            "modelcheckpoint": {"params": {"every_n_train_steps": 500}},
            "callbacks": {"image_logger": {"target": "main.ImageLogger", "params": {
                "batch_frequency": 2, "max_images": 1, "log_images_kwargs": {"ddim_steps": 2}}}},
            "trainer": {"benchmark": True, "max_steps": 2, "accelerator": "cpu", "enable_progress_bar": False,
                        "enable_model_summary": False},
        },
    }  # fmt: skip
    (folder / "unfrozen.yaml").write_text(yaml.safe_dump(config))
    lora = copy.deepcopy(config)
    lora["model"]["params"] |= {"unfreeze_model": False, "lora_config": {
        "target": "ldm.additions.lora.trained.TrainedLora", "params": {"rank": 2}}}  # fmt: skip
    (folder / "lora.yaml").write_text(yaml.safe_dump(lora))
    weights = {k: v for k, v in small_model(folder).state_dict().items() if not k.startswith("embedding")}
    save_state_dict(weights, folder / "base.safetensors")
    return folder


def arguments(place: Path, logs: Path, yaml_name: str = "unfrozen", *more: str) -> list[str]:
    """The command of XavierXiao's README."""
    return [
        "--base", str(place / f"{yaml_name}.yaml"), "-t", "--actual_resume", str(place / "base.safetensors"),
        "-n", "job", "--gpus", "0,", "--data_root", str(place / "subject"), "--reg_data_root", str(logs / "class"),
        "--class_word", "circle", "-l", str(logs / "logs"), *more,
    ]  # fmt: skip


def checkpoint(logs: Path) -> dict[str, Tensor]:
    (path,) = (logs / "logs").glob("*_job/checkpoints/last.ckpt")
    return read_file(path)["state_dict"]


def test_the_command_of_the_original(place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Missing class pictures are made by the base model; the UNet and the encoder learn, the autoencoder does not."""
    main(arguments(place, tmp_path, "unfrozen", "--num_class_images", "2"))
    made = sorted((tmp_path / "class").iterdir())
    assert [path.name for path in made] == ["00000.png", "00001.png"]
    assert Image.open(made[0]).size == (32, 32) and made[0].read_bytes() != made[1].read_bytes()
    before, after = read_state_dict(place / "base.safetensors"), checkpoint(tmp_path)
    moved = {key.split(".")[0] for key, value in before.items() if not torch.equal(value, after[key])}
    assert moved == {"model", "cond_stage_model"}
    assert not [key for key in after if key.startswith("embedding_manager")]

    main(arguments(place, tmp_path, "unfrozen", "--num_class_images", "2", "-n", "again"))
    assert sorted((tmp_path / "class").iterdir()) == made, "there are enough of them"


@torch.no_grad()
def test_a_file_of_what_changed(place: Path, tmp_path: Path) -> None:
    """On the base model it gives the model that was trained, but for half precision."""
    (tmp_path / "class").mkdir()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "class" / "0.png")
    main(arguments(place, tmp_path, "unfrozen", "lightning.save=diff"))
    after, (path,) = checkpoint(tmp_path), (tmp_path / "logs").glob("*_job/checkpoints/difference.safetensors")
    assert path.stat().st_size < 0.6 * sum(value.nbytes for value in after.values())
    base = instantiate_from_config(small_node(place, ckpt_path=str(place / "base.safetensors")))
    before = {name: value.clone() for name, value in base.named_parameters()}
    with applied(base, read_additions(base, lora=str(path))):
        changed = 0
        for name, value in base.named_parameters():
            changed += not torch.equal(value, before[name])
            torch.testing.assert_close(value, after[name], rtol=0, atol=2e-5)
    assert changed > 50
    with pytest.raises(ConfigError, match=r"lightning\.save is 'some'"):
        main(arguments(place, tmp_path, "unfrozen", "lightning.save=some"))


def test_only_a_lora_learns_beside_class_pictures(place: Path, tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "class" / "0.png")
    main(arguments(place, tmp_path, "lora"))
    assert all(key.startswith("lora.") for key in checkpoint(tmp_path))
    assert list((tmp_path / "logs").glob("*_job/checkpoints/lora.safetensors"))


@pytest.mark.parametrize("dora", [False, True])
def test_a_lora_is_held_to_what_the_base_model_says(tmp_path: Path, dora: bool) -> None:
    """The drift is that of the files on the base model, 0 before anything is learned; its gradient leads back."""
    lora = {"target": "ldm.additions.lora.trained.TrainedLora", "params": {
        "rank": 2, "layers": "kohya", "text_layers": "diffusers", "dora": dora}}  # fmt: skip
    model = small_model(tmp_path, lora_config=lora, reg_weight=1.0, reg_target="base")
    if dora:
        model.lora.take_lengths()
    for one in model.lora.factors.values():
        torch.nn.init.zeros_(one.lora_up)
    batch = {"image": torch.rand(2, 32, 32, 3), "caption": ["a red circle", "a blue square"]}
    assert float(drift_from_base(model, batch).detach()) < 1e-10
    base = said_by(model, batch)
    for one in model.lora.factors.values():
        torch.nn.init.normal_(one.lora_up, std=0.3)
    torch.manual_seed(5)
    drift = drift_from_base(model, batch)
    before = float(drift.detach())
    assert before == pytest.approx(float((said_by(model, batch) - base).square().mean()), rel=1e-3)
    assert before > 1e-4 and not any(one.left_out for one in model.lora.factors.values())
    drift.backward()
    with torch.no_grad():
        for parameter in model.lora.parameters():
            parameter -= 0.05 * parameter.grad / (parameter.grad.norm() + 1e-12)
    torch.manual_seed(5)
    assert float(drift_from_base(model, batch).detach()) < before


@pytest.mark.parametrize("kind", ["upscale_finetune", "embedding", "xl"])
def test_both_see_the_condition_with_the_same_draws(tmp_path: Path, kind: str) -> None:
    """Noise of pictures, embeddings and texts that are left out: a LoRA that has learned nothing drifts nowhere."""
    lora = {"lora_config": {"target": "ldm.additions.lora.trained.TrainedLora", "params": {"rank": 2}}}
    if kind == "xl":
        write_bpe(tmp_path)
        node = small_xl(tmp_path)["model"]
        node["params"] |= {"input_key": "image", "caption_key": "caption", "reg_target": "base", **lora}
        for entry in node["params"]["conditioner_config"]["params"]["emb_models"]:
            entry["ucg_rate"] = 0.5
        model, batch = instantiate_from_config(node), {"image": torch.rand(4, 32, 32, 3), "caption": list("abcd")}
    else:
        model, batch = build(kind, reg_target="base", **lora), pictures_of_variants()
    randomise(model)
    torch.manual_seed(4)
    assert float(drift_from_base(model.train(), batch).detach()) < 1e-10


@torch.no_grad()
def said_by(model: Any, batch: dict[str, Any]) -> Tensor:
    """What a model says of a batch, with the draws of ``drift_from_base``."""
    torch.manual_seed(5)
    z, cond = model.get_input(batch)
    t = torch.randint(0, model.num_timesteps, (len(z),))
    answer: Tensor = model.apply_model(model.q_sample(z, t, torch.randn(z.shape)), t, cond)
    return answer


def test_that_drift_takes_the_place_of_the_pictures_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lora = {"target": "ldm.additions.lora.trained.TrainedLora", "params": {"rank": 2}}
    model = small_model(tmp_path, lora_config=lora, reg_weight=3.0, reg_target="base")
    model.get_input, model.forward = lambda batch: (batch, None), lambda *_: (torch.tensor(1.0), {})
    monkeypatch.setattr("ldm.models.diffusion.latent.drift_from_base", lambda model, batch: torch.tensor(batch["x"]))
    loss, parts = model.shared_step({"train": {}, "reg": {"x": 10.0}})
    assert float(loss) == 31.0 and float(parts["train/loss_reg"]) == 10.0
    base = without_learning(small_node(tmp_path, lora_config=lora, reg_weight=3.0, reg_target="base"))
    assert instantiate_from_config(base).prior.reg_target == "pictures", "the run's YAML opens its base model"
    for params, words in (
        ({"reg_target": "past", "lora_config": lora}, "known: pictures, base"),
        ({"reg_target": "base", "unfreeze_model": True}, "needs a lora_config"),
        ({"reg_target": "base", "lora_config": lora, "unfreeze_model": True}, "a model that stays"),
    ):
        with pytest.raises(ConfigError, match=words):
            small_model(tmp_path, reg_weight=1.0, **params)


def test_sentences_of_subject_and_class(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    of_class = PersonalizedBase(str(tmp_path), 8, reg=True, placeholder_token="dog", repeats=3)
    assert {of_class[i]["caption"] for i in range(3)} == {"photo of a dog"}
    subject = PersonalizedBase(str(tmp_path), 8, repeats=5, templates=["photo of a sks {}"], placeholder_token="dog")
    both = WithPrior(subject, of_class)
    assert len(both) == 3 and both[2]["train"]["caption"] == "photo of a sks dog"
    assert both[2]["reg"]["caption"] == "photo of a dog"


def test_our_yaml_has_the_keys_of_the_original() -> None:
    node: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "configs/stable-diffusion/v1-finetune_unfrozen.yaml"))
    params = node["model"]["params"]
    assert (params["reg_weight"], params["unfreeze_model"], params["use_ema"]) == (1.0, True, False)
    assert node["model"]["base_learning_rate"] == params["model_lr"] == 1e-6
    assert node["data"]["params"]["reg"]["params"] == {
        "size": 512, "set": "train", "reg": True, "per_image_tokens": False, "repeats": 10,
    }  # fmt: skip
    assert node["lightning"]["trainer"]["max_steps"] == 800 and node["data"]["params"]["batch_size"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["model.params.unfreeze_model=false"], "unfreeze_model: true, or a lora_config"),
        (["--class_word", ""], "as in --class_word dog"),
        (["data.params.cache_latents=true"], "without cache_latents"),
        (["--num_class_images", "5", "--reg_data_root", ""], "--num_class_images needs --reg_data_root"),
        (["--reg_data_root", "nowhere"], "there is no folder 'nowhere'"),
    ],
)
def test_what_does_not_fit(place: Path, tmp_path: Path, change: list[str], message: str) -> None:
    with pytest.raises((ConfigError, UserError), match=message):
        main(arguments(place, tmp_path, "unfrozen", *change))
    assert not list(tmp_path.iterdir())


def test_words_are_not_learned_where_the_model_is(place: Path) -> None:
    config: Any = yaml.safe_load((place / "unfrozen.yaml").read_text())
    config["model"].pop("base_learning_rate")
    model = instantiate_from_config(config["model"])
    assert model.embedding_manager is None and not model.learning.additions
    trained = model.trained_parameters()
    assert len(trained) == len([*model.model.parameters(), *model.cond_stage_model.parameters()])
