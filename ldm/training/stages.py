"""Stages of a run: first some additions learn, then others. Pivotal tuning learns a word, then a LoRA around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from ldm.training.learner import learned_by
from ldm.util import ConfigError


@dataclass(frozen=True)
class Stage:
    """What learns, by the names of its files, and for how many optimizer steps."""

    learn: tuple[str, ...]
    steps: int

    @classmethod
    def of(cls, node: Any) -> Stage:
        """Raises ConfigError: it is no stage."""
        if not isinstance(node, Mapping) or set(node) != {"learn", "steps"}:
            raise ConfigError(f"a stage says what learns and for how long, as in {EXAMPLE}; got {str(node)[:80]}")
        learn, steps = node["learn"], node["steps"]
        names = (learn,) if isinstance(learn, str) else tuple(map(str, learn or ()))
        if not names or isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ConfigError(f"a stage needs something that learns and steps >= 1, as in {EXAMPLE}")
        return cls(names, steps)


EXAMPLE = "{learn: [embeddings], steps: 1000}"


class Stages(pl.Callback):
    """Lets the additions of each stage learn, and no others; what a stage leaves out stays as it is.

    Which stage it is, is told by the step alone, so that a run that goes on goes on with its stage. After the last one
    nothing changes any more.

    Args:
        stages: nodes ``{learn: [embeddings], steps: 1000}``: names of additions' files (embeddings, lora, adapters).

    Raises:
        ConfigError: there is no stage, or one is none.
    """

    def __init__(self, stages: Sequence[Mapping[str, Any]]) -> None:
        self.stages = [Stage.of(node) for node in stages]
        if not self.stages:
            raise ConfigError(f"'stages' is empty; it needs stages such as {EXAMPLE}")

    def at(self, step: int) -> Stage:
        """The stage of an optimizer step; the last one after all."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raises ConfigError: a stage names what does not learn on the model."""
        there = {addition.file_name for addition in learned_by(pl_module)}
        for stage in self.stages:
            missing = [name for name in stage.learn if name not in there]
            if missing:
                known = ", ".join(sorted(there)) or "nothing"
                raise ConfigError(f"a stage wants '{missing[0]}' to learn, but what the model learns is {known}")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        learn = self.at(trainer.global_step).learn
        for addition in learned_by(pl_module):
            wanted = addition.file_name in learn
            for parameter in addition.learned():
                parameter.requires_grad_(wanted)
                if not wanted:
                    parameter.grad = None


def apply_stages(config: DictConfig, lightning: DictConfig) -> None:
    """Move the YAML's ``stages:`` to the callbacks; their steps together are the run's, unless it says others.

    Raises:
        ConfigError: as ``Stages``.
    """
    nodes = config.pop("stages", None)
    if nodes is None:
        return
    plain: Any = OmegaConf.to_container(nodes, resolve=True) if OmegaConf.is_config(nodes) else nodes
    if not isinstance(plain, list):
        raise ConfigError(f"'stages' must be a list of stages such as {EXAMPLE}")
    stages = Stages(plain).stages
    node = {"target": "ldm.training.stages.Stages", "params": {"stages": plain}}
    OmegaConf.update(lightning, "callbacks.stages", node, force_add=True)
    if OmegaConf.select(lightning, "trainer.max_steps") is None:
        OmegaConf.update(lightning, "trainer.max_steps", sum(stage.steps for stage in stages), force_add=True)
