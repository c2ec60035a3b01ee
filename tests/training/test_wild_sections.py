"""Sections of YAMLs as public repositories have them, which are neither today's Lightning nor the first code's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from omegaconf import OmegaConf
from pytorch_lightning.strategies import DDPStrategy
from torch.utils.data import DataLoader, Dataset

from ldm.training import launch
from ldm.training.checkpoints import TrainCheckpoint
from ldm.training.datamodule import DataModuleFromConfig
from ldm.training.image_logger import ImageLogger
from ldm.training.legacy import translate_trainer
from ldm.training.options import parse
from ldm.training.run_folder import RunFolder
from ldm.training.trainer_settings import trainer_settings
from ldm.util import ConfigError, UserError

# Stable Diffusion XL's code: callbacks without a target, a strategy beside the trainer, devices as text
SDXL = """
strategy: {target: pytorch_lightning.strategies.DDPStrategy, params: {find_unused_parameters: true}}
modelcheckpoint: {params: {every_n_train_steps: 5000}}
callbacks:
  metrics_over_trainsteps_checkpoint: {params: {every_n_train_steps: 25000}}
  image_logger:
    target: main.ImageLogger
    params: {disabled: false, enable_autocast: false, batch_frequency: 1000, max_images: 8, increase_log_steps: true}
trainer: {devices: "0,", benchmark: true, num_sanity_val_steps: 0, accumulate_grad_batches: 1, max_epochs: 1000}
"""
# image variations of Stable Diffusion 1
LAMBDA = """
find_unused_parameters: false
modelcheckpoint: {params: {every_n_train_steps: 2000, save_top_k: -1, monitor: null}}
callbacks:
  image_logger:
    target: main.ImageLogger
    params:
      {batch_frequency: 2000, max_images: 4, increase_log_steps: false, log_first_step: true, log_all_val: true,
       log_images_kwargs: {use_ema_scope: true, inpaint: false, N: 4, unconditional_guidance_label: [""]}}
trainer: {benchmark: true, num_sanity_val_steps: 0, accumulate_grad_batches: 1}
"""
COLOSSAL = """
trainer:
  {devices: 1, max_epochs: 2, precision: 32, auto_select_gpus: false, log_gpu_memory: all,
   strategy: {params: {find_unused_parameters: false}}, log_every_n_steps: 2, logger: true}
logger_config: {wandb: {target: loggers.WandbLogger, params: {name: nowname, save_dir: /tmp/diff_log/}}}
"""


def trainer_of(text: str, folder: Path) -> pl.Trainer:
    section = OmegaConf.create({"lightning": yaml.safe_load(text)}).lightning
    options, _ = parse(["-l", str(folder)])
    config = OmegaConf.create({"model": {"target": "x"}})
    return launch.make_trainer(options, run_folder(folder), config, section, trainer_settings(config, section))


def run_folder(folder: Path) -> RunFolder:
    return RunFolder(folder, "now")


@pytest.fixture(autouse=True)
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_callbacks_without_a_target_a_strategy_and_devices_as_text(tmp_path: Path) -> None:
    trainer = trainer_of(SDXL, tmp_path)
    assert isinstance(trainer.strategy, DDPStrategy) and trainer.num_devices == 1
    assert trainer.strategy._ddp_kwargs["find_unused_parameters"] is True
    kept = [one for one in trainer.callbacks if isinstance(one, TrainCheckpoint)]  # type: ignore[attr-defined]
    stepwise = next(one for one in kept if one.save_weights_only)
    assert stepwise._every_n_train_steps == 25000 and stepwise.save_top_k == -1
    assert Path(str(stepwise.dirpath)).name == "trainstep_checkpoints" and not stepwise.save_last


@pytest.mark.parametrize("text", [LAMBDA, COLOSSAL])
def test_others_build(tmp_path: Path, text: str) -> None:
    assert trainer_of(text, tmp_path).max_steps is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("callbacks: {mine: {params: {a: 1}}}",
         "lightning.callbacks.mine has no 'target': those that need none are .*image_logger.*metrics_over"),
        ("callbacks: [1, 2]", "lightning.callbacks is .* must be settings by name"),
        ("callbacks: {mine: text}", "lightning.callbacks.mine has no 'target'.*got text"),
        ("strategy: {target: pytorch_lightning.strategies.DDPStrategy, params: {find_unused: true}}",
         "DDPStrategy' has no parameter 'find_unused'; the nearest that it has: find_unused_parameters"),
        ("strategy: {target: strategies.ColossalAIStrategy, params: {use_chunk: true}}", "take DDPStrategy"),
        ("trainer: {strategy: {target: torch.nn.Identity}}", "it must be a strategy, profiler or plugin"),
        ("trainer: {devices: 'two'}", "lightning.trainer does not fit"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        trainer_of(text, tmp_path)
    assert "\n" not in str(raised.value)


def test_a_callback_that_is_null_is_left_out(tmp_path: Path) -> None:
    trainer_of("callbacks: {mine: null}", tmp_path)


@pytest.mark.parametrize("name", ["static_graph", "gradient_as_bucket_view", "bucket_cap_mb", "process_group_backend"])
def test_keyword_arguments_of_ddp(name: str) -> None:
    params = {name: "gloo" if name.endswith("backend") else 1}
    settings = translate_trainer({"strategy": {"target": "pytorch_lightning.strategies.DDPStrategy", "params": params}})
    strategy = settings["strategy"]
    assert isinstance(strategy, DDPStrategy) and (name in strategy._ddp_kwargs or name == "process_group_backend")


@pytest.mark.parametrize(("value", "cuda", "expected"), [
    ("0,", False, {"accelerator": "cpu", "devices": 1}), ("0,", True, {"accelerator": "gpu", "devices": [0]}),
    ("0,2", True, {"accelerator": "gpu", "devices": [0, 2]}), (2, True, {"devices": 2}),
    ("auto", True, {"devices": "auto"}),
])  # fmt: skip
def test_devices(monkeypatch: pytest.MonkeyPatch, value: Any, cuda: bool, expected: dict[str, Any]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert translate_trainer({"devices": value}) == expected


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return index


def test_workers_of_the_validation() -> None:
    node = {"target": f"{__name__}.Numbers"}
    data = DataModuleFromConfig(batch_size=2, num_workers=1, num_val_workers=0, train=node, validation=node)
    data.setup()
    loaders = [data.train_dataloader(), data.val_dataloader()]
    assert [one.num_workers for one in loaders if isinstance(one, DataLoader)] == [1, 0]
    same = DataModuleFromConfig(batch_size=2, num_workers=1, train=node, validation=node)
    assert same.num_val_workers == 1


def test_no_more_workers_than_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    node = {"target": f"{__name__}.Numbers"}
    data = DataModuleFromConfig(batch_size=2, num_workers=14, num_val_workers=3, train=node)
    assert (data.num_workers, data.num_val_workers) == (2, 2)


@pytest.mark.parametrize(("every", "batches"), [(False, [0]), (True, [0, 1, 2])])
def test_pictures_of_every_batch_of_a_validation(tmp_path: Path, every: bool, batches: list[int]) -> None:
    drawn: list[int] = []

    class Draws:
        training = True

        def modules(self) -> list[Any]:
            return []

        def eval(self) -> None: ...

        def log_images(self, batch: Any, split: str) -> dict[str, Any]:
            drawn.append(batch)
            return {"inputs": torch.zeros(1, 3, 8, 8)}

    trainer: Any = argparse.Namespace(global_step=5, current_epoch=0, is_global_zero=True, loggers=[], callbacks=[])
    logger = ImageLogger(100, 4, log_all_val=every, enable_autocast=False, folder=tmp_path)
    model: Any = Draws()
    for number in range(3):
        logger.on_validation_batch_end(trainer, model, None, number, number)
    assert drawn == batches


def test_only_a_part_of_the_network_learns() -> None:
    from ldm.util import instantiate_from_config
    from tests.models.test_condition import PLAIN

    def learning(part: Any) -> set[str]:
        node = {**PLAIN["text"], "params": {**PLAIN["text"]["params"], "unet_trainable": part}}
        model = instantiate_from_config(node)
        trained = {id(p) for p in model.trained_parameters()}
        return {name for name, p in model.model.named_parameters() if id(p) in trained}

    every = learning(True)
    assert learning("all") == every and all(".attn2." in name for name in learning("attn")) and learning("attn")
    assert learning("conv_in") == {"diffusion_model.input_blocks.0.0.weight", "diffusion_model.input_blocks.0.0.bias"}
    for part in ("none", False, "attn3"):
        with pytest.raises(ConfigError, match="unet_trainable must be true, all, attn or conv_in"):
            learning(part)
