"""What kind of class each place of a configuration asks for.

A kind is told by base classes or by methods, and its base classes are looked up among the modules that are already
imported: a class that derives from one has imported it, so that asking costs no import.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A kind of class.

    Attributes:
        words: for messages, such as "a data set".
        bases: dotted names of classes, one of which it derives from, or
        methods: groups of methods; it has all of one group.
        own: whether any class of this project will do as well.
    """

    words: str
    bases: tuple[str, ...] = ()
    methods: tuple[tuple[str, ...], ...] = ()
    own: bool = False

    def fits(self, found: type) -> bool:
        """Whether a class is of this kind."""
        bases = tuple(base for base in map(_imported, self.bases) if base is not None)
        if issubclass(found, bases) or (self.own and _is_own(found)):
            return True
        return any(all(_has(found, name) for name in group) for group in self.methods)


def _imported(path: str) -> type | None:
    """The class that a dotted name stands for, if its module is imported."""
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if inspect.isclass(found) else None


def _is_own(found: type) -> bool:
    return found.__module__.partition(".")[0] == "ldm"


def _has(found: type, name: str) -> bool:
    """A method that somebody wrote in Python: those of built-in types, such as an array's length, do not count."""
    return any(inspect.isfunction(vars(base).get(name)) for base in found.__mro__)


def _lightning(*names: str) -> tuple[str, ...]:
    return tuple(f"{package}.{name}" for package in ("pytorch_lightning", "lightning.pytorch") for name in names)


MODULE = Kind("a module (torch.nn.Module)", ("torch.nn.Module",))
DATA_MODULE = Kind(
    "a data module (pytorch_lightning.LightningDataModule)", _lightning("LightningDataModule"), (("train_dataloader",),)
)
DATA = Kind(
    "a data set (torch.utils.data.Dataset) or a data module",
    ("torch.utils.data.Dataset", *DATA_MODULE.bases),
    (("__len__", "__getitem__"), *DATA_MODULE.methods),
)
CALLBACK = Kind("a callback (pytorch_lightning.Callback)", _lightning("Callback"))
LOGGER = Kind(
    "a logger (pytorch_lightning.loggers.Logger)", (*_lightning("loggers.Logger"), "lightning_fabric.loggers.Logger")
)
SCHEDULE = Kind(
    "a schedule of the learning rate (a class with a method 'schedule')",
    ("torch.optim.lr_scheduler.LRScheduler",),
    (("schedule",),),
)
OPTIMIZER = Kind("an optimizer (torch.optim.Optimizer)", ("torch.optim.Optimizer",))
STRATEGY = Kind(
    "a strategy, profiler or plugin of the Trainer",
    (*_lightning("strategies.Strategy", "profilers.Profiler", "accelerators.Accelerator"),
     *_lightning("plugins.CheckpointIO", "plugins.Precision", "plugins.environments.ClusterEnvironment"),
     "lightning_fabric.plugins.CheckpointIO", "lightning_fabric.plugins.environments.ClusterEnvironment"),
)  # fmt: skip
ATTENTION = Kind("an attention mode (a class whose objects can be called)", ("torch.nn.Module",), (("__call__",),))
_KINDS = (MODULE, DATA, CALLBACK, LOGGER, SCHEDULE, OPTIMIZER, STRATEGY)
ANY = Kind(
    "a module, data set, callback, logger, schedule, optimizer or strategy",
    tuple(base for kind in _KINDS for base in kind.bases),
    tuple(group for kind in _KINDS for group in kind.methods),
    own=True,
)

# key above a node of a configuration -> what it must be; elsewhere ANY
PLACES: dict[str, Kind] = {
    **dict.fromkeys(
        (
            "model", "unet_config", "diff_model_config", "network_config", "first_stage_config", "cond_stage_config",
            "personalization_config", "lossconfig", "low_scale_config", "embedder_config", "noise_aug_config",
            "depth_stage_config", "aligner_config", "model_config", "perceptual_config", "regularizer_config",
            "encoder_config", "decoder_config", "denoiser_config", "conditioner_config", "loss_fn_config",
        ),
        MODULE,
    ),
    **dict.fromkeys(("data", "train", "validation", "test", "predict"), DATA),
    **dict.fromkeys(("scheduler_config", "lr_scheduler_config"), SCHEDULE),
    "optimizer_config": OPTIMIZER,
    "callbacks.": CALLBACK,  # each node below it
    "modelcheckpoint": CALLBACK,
    "logger": LOGGER,
    **dict.fromkeys(("strategy", "profiler", "plugins"), STRATEGY),
}  # fmt: skip


def nodes(config: Any, kind: Kind | None = None) -> list[tuple[dict[str, Any], Kind]]:
    """Every ``{target: ...}`` node in plain nested containers, the outermost first, and the kind that it must be.

    Args:
        config: containers without interpolations.
        kind: of ``config`` itself, where that is a node; ANY if not given.
    """
    found: list[tuple[dict[str, Any], Kind]] = []
    waiting: list[tuple[Any, Kind, bool]] = [(config, kind or ANY, False)]
    while waiting:
        value, expected, listed = waiting.pop(0)
        if isinstance(value, dict):
            if "target" in value:
                found.append((value, expected))
            waiting += [(child, *_below(key, child, expected if listed else None)) for key, child in value.items()]
        elif isinstance(value, (list, tuple)):
            waiting += [(child, expected, listed) for child in value]
    return found


def _below(key: Any, child: Any, named: Kind | None) -> tuple[Kind, bool]:
    """The kind of a child, and whether it is a table of nodes of that kind (``callbacks: {name: node}``).

    ``named`` is the kind that the table asks for which the child lies in.
    """
    if f"{key}." in PLACES and isinstance(child, dict) and "target" not in child:
        return PLACES[f"{key}."], True
    return named or PLACES.get(str(key), ANY), False
