"""From a command line to a trained model: the one page of straight code behind main.py."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from ldm.building.kinds import CALLBACK, DATA_MODULE, LOGGER, MODULE
from ldm.checkpoint import load_weights
from ldm.released import how_to_get
from ldm.runs import LAST, given_or_latest
from ldm.seeds import DRAW, settled_seed
from ldm.training import legacy
from ldm.training.averages import averages_asked_for
from ldm.training.callbacks import StopOnSignal, StopRequestedError
from ldm.training.captions import CaptionLengths
from ldm.training.checkpoints import AccumulatesByHand, AtomicCheckpointIO, TrainCheckpoint
from ldm.training.config import (
    PERSONALIZATION,
    apply_personalization,
    check_placeholders,
    read_config,
    require,
    warn_of_nothing_to_hold,
)
from ldm.training.datamodule import DataModuleFromConfig
from ldm.training.ending import Ending
from ldm.training.finite import FiniteGuard
from ldm.training.image_logger import ImageLogger
from ldm.training.learner import fresh_in
from ldm.training.memory import change_memory, convert_frozen, keep_text_states
from ldm.training.offload import offload
from ldm.training.optimizers import apply_optimizer
from ldm.training.options import parse
from ldm.training.progress import ProgressLine
from ldm.training.resume import ExactResume
from ldm.training.run_folder import RunFolder, choose_run_folder, claimed, saved_configurations
from ldm.training.sharding import NAMES, ShardedStrategy, check_sharding
from ldm.training.stages import apply_stages
from ldm.training.trainer_settings import section, trainer_settings
from ldm.util import ConfigError, MissingPartError, UserError, instantiate_from_config

log = logging.getLogger(__name__)

LAST_SEED = 2**32 - 1  # that numpy takes
TERMINATE = "trainer.terminate_on_nan"
STEPWISE = "metrics_over_trainsteps_checkpoint"  # the name that YAMLs have for it

# What Lightning says that is not so, or not news, in this project.
NOISE = (
    ".*ended before the epoch ended and your dataloader is not resumable",  # the sampler is
    ".*in eval mode at the start of training",  # frozen parts are, on purpose
    ".*exists and is not empty",  # a resumed run goes on with its folder
    ".*smaller than the logging interval",
    ".*ambiguous collection. The batch size",  # latents and texts, as many of each
    ".*sync_dist=True.` when logging",  # what is logged are the values of one process
    "Total length of `list` across ranks is zero",  # there is no such data set in the YAML
    "Using ModelCheckpoint with manual optimization",
    ".*isinstance.treespec, LeafSpec.. is deprecated",
)


def main(arguments: list[str] | None = None) -> None:
    """Do what a command line asks for.

    Raises:
        UserError: something in it, or in a file that it names, is wrong; nothing has been written then.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # what is there, what it restores, its products
    options, changes = parse(sys.argv[1:] if arguments is None else arguments)
    run = choose_run_folder(options)
    config = read_config(options.base, changes, saved_configurations(options, run))
    apply_personalization(config, options)
    check_placeholders(config)
    warn_of_nothing_to_hold(config)
    lightning = config.pop("lightning", OmegaConf.create())
    options.seed = seed_of(options.seed)
    apply_stages(config, lightning)
    apply_optimizer(config, lightning)
    settings = trainer_settings(config, lightning)
    pl.seed_everything(options.seed, workers=True, verbose=False)

    weights = starting_weights(options, lightning)
    model = build_model(config)
    if weights and (options.actual_resume or not model.strict_loading):
        # whatever of it there is; a resumed run reads it where it saved a part only
        load_weights(model, weights, fresh=fresh_in(model))
    data = instantiate_from_config(require(config, "data"), DATA_MODULE)
    tests = not options.no_test and isinstance(data, DataModuleFromConfig) and "test" in data.dataset_configs
    if not options.train and not tests:
        raise UserError("nothing to do: -t trains; without it, the YAML needs a data set under data.params.test")
    data.setup("fit")
    with claimed(options, run) as run:
        trainer = make_trainer(options, run, config, lightning, settings)
        rate = learning_rate(options, config, trainer)
        setattr(model, "learning_rate", rate)  # noqa: B010  (a plain float, no submodule)
        train_by_hand(trainer, model)
        check_sharding(trainer, model)
        change_memory(model, lightning)
        convert_frozen(model, lightning, trainer.strategy.root_device)
        keep_text_states(model, lightning)
        offload(model, lightning, trainer.strategy.root_device, run.path)
        if options.train:
            fit(trainer, model, data, run)
        if tests:
            trainer.test(model, data, ckpt_path=None if options.train else run.checkpoint)


def seed_of(seed: int) -> int:
    """The seed of a run: the one given, or for -1 one that is drawn, which all processes of the run share.

    Raises:
        UserError: no generator takes it, or processes that were started apart could not draw the same one.
    """
    count = os.environ.get("SLURM_NTASKS" if SLURMEnvironment.detect() else "WORLD_SIZE", "1")
    started_apart = int(count) > 1
    if seed == DRAW and "LOCAL_RANK" in os.environ and "PL_GLOBAL_SEED" in os.environ:
        return int(os.environ["PL_GLOBAL_SEED"])  # the first process has drawn, and started this one
    if seed == DRAW and started_apart:
        raise UserError("--seed -1: several processes would each draw another seed; give one as a number")
    return settled_seed(seed, last=LAST_SEED)


def starting_weights(options: argparse.Namespace, lightning: DictConfig) -> str:
    """The checkpoint that a run begins from; empty for none. The run's configuration keeps the path.

    Raises:
        ConfigError: the configuration has something else there.
        UserError: there is no such file.
    """
    if options.actual_resume:
        lightning.actual_resume = str(given_or_latest(options.actual_resume, LAST, options.logdir).resolve())
    weights = lightning.get("actual_resume") or ""
    if not isinstance(weights, str):
        raise ConfigError(f"lightning.actual_resume is '{str(weights)[:80]}'; it must be a file")
    if options.actual_resume and not Path(weights).exists():  # said before a large network is built
        raise UserError(f"there is no file '{options.actual_resume}'; {how_to_get(weights)}")
    return weights


def build_model(config: DictConfig) -> pl.LightningModule:
    """The model that the ``model:`` section describes.

    Raises:
        ConfigError: it is nothing that Lightning could train.
    """
    node = require(config, "model")
    model = instantiate_from_config(node, MODULE)
    if not isinstance(model, pl.LightningModule):
        raise ConfigError(f"model.target '{node['target']}' is no LightningModule, so it cannot be trained")
    return model


def fit(trainer: pl.Trainer, model: pl.LightningModule, data: pl.LightningDataModule, run: RunFolder) -> None:
    """Train; when asked to stop, leave with a checkpoint, a hint and exit code 130 or 143 (0 in helper processes).

    Raises:
        ConfigError: Lightning finds that the trainer's options do not fit together.
        UserError: the run came to NaN or infinity; see ``FiniteGuard`` and the Trainer's ``detect_anomaly``.
    """
    stop = next(one for one in trainer.callbacks if isinstance(one, StopOnSignal))  # type: ignore[attr-defined]
    try:
        with contextlib.closing(stop):
            trainer.fit(model, data, ckpt_path=run.checkpoint)
    except StopRequestedError:
        pass
    except MisconfigurationException as error:
        raise ConfigError(f"lightning.trainer does not fit: {one_line(error)}") from error
    except ValueError as error:
        if "val_check_interval" not in str(error):
            raise
        raise ConfigError(f"there are too few training data: {one_line(error)}") from error
    except RuntimeError as error:
        if "returned nan values in its" not in str(error):  # the words of torch's detect_anomaly
            raise
        raise UserError(f"training stopped at step {trainer.global_step}: {one_line(error)}") from error
    else:
        if not stop.wish.number:
            return
    log.warning("stopped; everything is in %s; go on with: %s -t -r %s", stop.path, Path(sys.argv[0]).name, run.path)
    sys.exit(stop.wish.exit_code if trainer.is_global_zero else 0)


def learning_rate(options: argparse.Namespace, config: DictConfig, trainer: pl.Trainer) -> float:
    """``base_learning_rate``, times devices x batch size x accumulation unless ``--scale_lr false``."""
    asked = require(config, "model.base_learning_rate")
    try:
        base = float(asked)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.base_learning_rate is {str(asked)[:80]!r}; it must be a number") from error
    if not options.scale_lr:
        return base
    devices = trainer.num_devices * trainer.num_nodes
    batch_size = int(require(config, "data.params.batch_size"))
    rate = base * devices * batch_size * trainer.accumulate_grad_batches
    log.info(
        "learning rate %.2e = %d (accumulation) x %d (devices) x %d (batch size) x %.2e (base_learning_rate)",
        rate, trainer.accumulate_grad_batches, devices, batch_size, base,
    )  # fmt: skip
    return rate


def make_trainer(
    options: argparse.Namespace, run: RunFolder, config: DictConfig, lightning: DictConfig, settings: Mapping[str, Any]
) -> pl.Trainer:
    """The Trainer with its loggers and callbacks; ``settings`` are those of ``trainer_settings``.

    Raises:
        ConfigError: Lightning does not accept the settings.
    """
    settings = {"default_root_dir": str(run.path), "plugins": [AtomicCheckpointIO(run.path)],
                "enable_model_summary": False, **settings}  # fmt: skip
    callbacks = make_callbacks(options, run, config, lightning)
    if settings.get("strategy") in NAMES:
        settings["strategy"] = ShardedStrategy()
        callbacks = [one for one in callbacks if not isinstance(one, ImageLogger)]  # one process alone draws nothing
    own_bar = any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks)
    if settings.get("enable_progress_bar", True) and not own_bar:
        callbacks.append(ProgressLine())
    accumulation = settings.get("accumulate_grad_batches", 1)
    if isinstance(accumulation, dict):
        callbacks.append(pl.callbacks.GradientAccumulationScheduler(accumulation))
        del settings["accumulate_grad_batches"]
    try:
        return pl.Trainer(logger=make_loggers(options, run, lightning), callbacks=callbacks, **settings)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError(f"lightning.trainer does not fit: {one_line(error)}") from error


def train_by_hand(trainer: pl.Trainer, model: pl.LightningModule) -> None:
    """Where a model's optimisers take turns: it adds gradients up itself, and each turn leaves some parameters out."""
    if model.automatic_optimization:
        return
    if isinstance(model, AccumulatesByHand):
        model.accumulate_grad_batches = trainer.accumulate_grad_batches
        trainer.accumulate_grad_batches = 1
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)


def make_callbacks(
    options: argparse.Namespace, run: RunFolder, config: DictConfig, lightning: DictConfig
) -> list[pl.Callback]:
    """The usual callbacks, each of which ``lightning.callbacks.<name>`` may change, and further ones from there."""
    nodes = {
        "setup_callback": {
            "target": "ldm.training.callbacks.SetupCallback",
            "params": {
                "resume": options.resume,
                "now": run.now,
                "logdir": str(run.path),
                "ckptdir": str(run.checkpoints),
                "cfgdir": str(run.configs),
            },
        },
        "image_logger": {
            "target": "ldm.training.image_logger.ImageLogger",
            "params": {"batch_frequency": 750, "max_images": 4, "clamp": True},
        },
        "learning_rate_logger": {
            "target": "pytorch_lightning.callbacks.LearningRateMonitor",
            "params": {"logging_interval": "step"},
        },
        "cuda_callback": {"target": "ldm.training.callbacks.CUDACallback"},
    }
    base = lightning.get("actual_resume") or OmegaConf.select(config, "model.params.ckpt_path")
    nodes["embeddings"] = {  # whatever is learned on top of a model
        "target": "ldm.training.additions.AdditionFiles",
        "params": {"folder": str(run.checkpoints), "base_model": "/".join(Path(base).parts[-2:]) if base else ""},
    }
    if wants_difference(lightning, base):
        place = {"folder": str(run.checkpoints), "base": str(base)}
        nodes["difference"] = {"target": "ldm.training.difference.DifferenceFile", "params": place}
    if OmegaConf.select(config, PERSONALIZATION) is not None:
        nodes["loss_curve"] = {"target": "ldm.training.loss_curve.LossCurve"}
    further = section(lightning, "callbacks")
    if STEPWISE in further:
        nodes[STEPWISE] = stepwise(run)
    wanted = plain(OmegaConf.merge(nodes, {name: node for name, node in further.items() if node is not None}))
    # as they are written: values of the environment are not saved
    written = {"config": OmegaConf.to_container(config), "lightning_config": OmegaConf.to_container(lightning)}
    known = [*nodes, STEPWISE]
    built = [
        build(node, f".{name}", known, **(written if name == "setup_callback" else {})) for name, node in wanted.items()
    ]
    guard = FiniteGuard(run.checkpoints, OmegaConf.select(lightning, TERMINATE))
    last = [StopOnSignal(run.checkpoints), make_checkpoint(run, lightning), Ending(run.path, base or "")]
    averages = averages_asked_for(lightning)  # before those that write or show them
    return [ExactResume(options.seed), guard, CaptionLengths(), *averages, *built, *last]


def wants_difference(lightning: DictConfig, base: str | None) -> bool:
    """Whether ``lightning.save`` is ``diff``: a file of what changed is wanted at the end, besides ``last.ckpt``.

    Raises:
        ConfigError: another value, or there are no weights that the run begins from.
    """
    wish = lightning.get("save") or "all"
    if wish not in ("all", "diff"):
        raise ConfigError(f"lightning.save is '{wish}'; it must be all or diff")
    if wish == "diff" and not base:
        raise ConfigError("lightning.save: diff needs weights to differ from: --actual_resume, or ckpt_path")
    return wish == "diff"


def make_checkpoint(run: RunFolder, lightning: DictConfig) -> TrainCheckpoint:
    """Checkpoints in the run folder, changed by ``lightning.modelcheckpoint.params``."""
    asked = section(lightning, "modelcheckpoint").get("params") or {}
    if not isinstance(asked, dict):
        raise ConfigError(f"lightning.modelcheckpoint.params is {str(asked)[:80]!r}; it must be settings by name")
    params = {"filename": "{epoch:06}-{step:09}", **asked}
    params = {key: value for key, value in params.items() if key != "period"} | {"dirpath": str(run.checkpoints)}
    return instantiate_from_config({"target": "ldm.training.checkpoints.TrainCheckpoint", "params": params}, CALLBACK)


def make_loggers(options: argparse.Namespace, run: RunFolder, lightning: DictConfig) -> list[Any]:
    """CSV and TensorBoard under metrics/, or CSV and the logger that ``lightning.logger`` names.

    Raises:
        MissingPartError: wandb is asked for but not installed.
    """
    csv = pl.loggers.CSVLogger(str(run.path), name="metrics", flush_logs_every_n_steps=10)
    node = {"target": "pytorch_lightning.loggers.TensorBoardLogger", **section(lightning, "logger")}
    target = legacy.TARGETS.get(node["target"], node["target"])
    params: dict[str, Any] = {"save_dir": str(run.path), "name": "metrics"}
    if target.endswith("TensorBoardLogger"):
        params["version"] = csv.version
    if target.endswith("WandbLogger"):
        if importlib.util.find_spec("wandb") is None:
            raise MissingPartError("lightning.logger names wandb, which is not installed: run 'pip install wandb'")
        params |= {"name": run.path.name, "id": run.path.name}
        params |= {"project": options.project} if options.project else {}
    given = {} if target != node["target"] else node.get("params") or {}
    return [csv, instantiate_from_config({"target": target, "params": params | given}, LOGGER)]


def stepwise(run: RunFolder) -> dict[str, Any]:
    """The callback that keeps the weights alone every so many steps, beside the checkpoints that come and go."""
    params = {
        "dirpath": str(run.checkpoints / "trainstep_checkpoints"), "filename": "{epoch:06}-{step:09}",
        "save_last": False, "save_top_k": -1, "every_n_train_steps": 10_000, "save_weights_only": True,
    }  # fmt: skip
    return {"target": "ldm.training.checkpoints.TrainCheckpoint", "params": params}


def build(node: Any, place: str = "", known: Sequence[str] = (), **extra: Any) -> Any:
    """A callback from its node, under the name that its class has here.

    Args:
        place: where the node is, below ``lightning.callbacks``.
        known: the names under which there are callbacks without any ``target``.

    Raises:
        ConfigError: no node with a ``target``, or a target that is no callback or does not take these parameters.
    """
    if not isinstance(node, dict) or "target" not in node:
        raise ConfigError(
            f"lightning.callbacks{place} has no 'target': those that need none are {', '.join(known)}; "
            f"got {str(node)[:80]}"
        )
    target = legacy.TARGETS.get(node["target"], node["target"])
    return instantiate_from_config({**node, "target": target}, CALLBACK, **extra)


def one_line(error: Exception) -> str:
    """Lightning's messages are often paragraphs."""
    return " ".join(str(error).split())[:300]


def plain(node: Any) -> Any:
    """Lists and dicts out of a configuration node, resolved; anything else as it is."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
