"""Old YAMLs and flags, written for Lightning 1: one table of what each key is called today."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from ldm.building.kinds import STRATEGY
from ldm.util import ConfigError, class_from_str, instantiate_from_config, nearest

log = logging.getLogger(__name__)

Settings = dict[str, Any]
DDP = "pytorch_lightning.strategies.DDPStrategy"


def _gpus(value: Any) -> Settings:
    """``0,``, ``[0]`` and 0 are device 0, ``2`` is any two, ``-1`` is all; without CUDA: the CPU."""
    if value in (None, ""):
        return {}
    devices = value
    if isinstance(value, str) and "," in value:
        devices = [int(part) for part in value.split(",") if part.strip()]
    elif not isinstance(value, list):
        devices = int(value)
    if not torch.cuda.is_available():
        log.warning("gpus=%s was asked for, but this machine has no CUDA device: training on the CPU", value)
        return {"accelerator": "cpu", "devices": 1}
    if value in (0, "0"):  # none at all to Lightning 1, which few people mean
        log.warning("gpus=0 is taken as '0,': device 0; --accelerator cpu (without gpus) trains on the CPU")
        return {"accelerator": "gpu", "devices": [0]}
    return {"accelerator": "gpu", "devices": devices}


def _devices(value: Any) -> Settings:
    """``0,`` is device 0, as of ``gpus``; a number is so many, and without CUDA it is that of processes."""
    return _gpus(value) if isinstance(value, str) and "," in value else {"devices": value}


def _accelerator(value: Any) -> Settings:
    """Lightning 1 called the strategy an accelerator."""
    is_strategy = str(value).startswith(("dp", "ddp", "deepspeed", "horovod"))
    return _strategy(value) if is_strategy else {"accelerator": value}


def _strategy(value: Any) -> Settings:
    """A name, or a node ``{target, params}``; without a target it is the usual one of several processes."""
    if isinstance(value, dict):
        return {"strategy": strategy_of(value)}
    return {"strategy": {"ddp2": "ddp", "dp": "ddp", "ddp_sharded": "ddp"}.get(str(value), value)}


def strategy_of(node: dict[str, Any]) -> Any:
    """The strategy of a node: what its class and PyTorch's DistributedDataParallel take are its parameters.

    Raises:
        ConfigError: a parameter that neither takes, or a class that is no strategy.
    """
    target = str(node.get("target", DDP))
    params = dict(node.get("params") or {})
    kind = class_from_str(target, STRATEGY)
    if not issubclass(kind, DDPStrategy):
        return instantiate_from_config({"target": target, "params": params}, STRATEGY)
    known = [name for of in (kind, DistributedDataParallel) for name in inspect.signature(of.__init__).parameters]
    unknown = [name for name in params if name not in known]
    if unknown:
        raise ConfigError(f"target '{target}' has no parameter '{unknown[0]}'; {nearest(unknown[0], known)}")
    return kind(**params)


def _precision(value: Any) -> Settings:
    names = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
    return {"precision": names.get(str(value), value)}


def _refresh_rate(value: Any) -> Settings:
    return {"enable_progress_bar": value is None or int(value) != 0}


def _renamed(name: str) -> Callable[[Any], Settings]:
    return lambda value: {name: value}


def _dropped(value: Any) -> Settings:
    return {}


def _switch(value: Any) -> Settings:
    """Obeyed by ``ldm.training.finite``."""
    if value not in (True, False, None):
        raise ValueError
    return {}


# Old key of the Trainer -> what it means today. Keys that only tuned Lightning 1 itself are dropped; loggers are under
# lightning.logger.
TRAINER_KEYS: dict[str, Callable[[Any], Settings]] = {
    "gpus": _gpus,
    "num_gpus": _gpus,
    "accelerator": _accelerator,
    "strategy": _strategy,
    "devices": _devices,
    "distributed_backend": _accelerator,
    "precision": _precision,
    "num_processes": _renamed("devices"),
    "replace_sampler_ddp": _renamed("use_distributed_sampler"),
    "checkpoint_callback": _renamed("enable_checkpointing"),
    "progress_bar_refresh_rate": _refresh_rate,
    "weights_summary": lambda value: {"enable_model_summary": value is not None},
    "terminate_on_nan": _switch,
    "reload_dataloaders_every_epoch": lambda value: {"reload_dataloaders_every_n_epochs": int(value)},
    **dict.fromkeys(
        (
            "amp_backend", "amp_level", "auto_select_gpus", "auto_scale_batch_size", "auto_lr_find",
            "flush_logs_every_n_steps", "log_gpu_memory", "logger", "move_metrics_to_cpu", "multiple_trainloader_mode",
            "prepare_data_per_node", "process_position", "track_grad_norm", "weights_save_path",
            "stochastic_weight_avg", "max_images",
        ),
        _dropped,
    ),
}  # fmt: skip

TARGETS = {
    "pytorch_lightning.loggers.TestTubeLogger": "pytorch_lightning.loggers.TensorBoardLogger",
    "pytorch_lightning.callbacks.ModelCheckpoint": "ldm.training.checkpoints.TrainCheckpoint",
}


def translate_trainer(old: dict[str, Any]) -> dict[str, Any]:
    """Arguments of today's Trainer from those in a YAML; a device named on purpose wins over ``gpus``.

    Raises:
        ConfigError: a key that neither Lightning 1 nor Lightning 2 has, or an old one's value that means nothing.
    """
    known = set(inspect.signature(pl.Trainer.__init__).parameters) - {"self"}
    new: dict[str, Any] = {}
    for key, value in old.items():
        if key not in known and key not in TRAINER_KEYS:
            raise ConfigError(f"lightning.trainer has no option '{key}'; see the Trainer of Lightning {pl.__version__}")
        try:
            settings = TRAINER_KEYS.get(key, _renamed(key))(value)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"lightning.trainer.{key} is {str(value)[:80]!r}, which means nothing there") from error
        if key in ("gpus", "num_gpus"):
            new = {**settings, **new}
        else:
            new |= settings
    return new
