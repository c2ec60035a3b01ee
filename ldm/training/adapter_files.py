"""The small files of a run that trains adapters of a text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl

from ldm.util import ConfigError


@runtime_checkable
class HasAdapters(Protocol):
    """A text encoder with adapters that can be written by themselves."""

    def save_adapters(self, path: Path, metadata: dict[str, str]) -> None: ...


class AdapterFiles(pl.Callback):
    """Writes ``checkpoints/adapters_gs-<step>.safetensors`` every so often, and ``adapters.safetensors`` at the end.

    Args:
        every_n_steps: how often.
    """

    def __init__(self, every_n_steps: int = 500) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"adapters are saved every_n_steps, which must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raises ConfigError: the model's text encoder has no adapters."""
        self._adapted(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step and step % self.every_n_steps == 0 and not trainer.fit_loop._should_accumulate():
            self._save(trainer, pl_module, f"adapters_gs-{step}.safetensors")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer, pl_module, "adapters.safetensors")

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> None:
        if trainer.is_global_zero:
            folder = Path(trainer.checkpoint_callback.dirpath)  # type: ignore[union-attr]
            self._adapted(pl_module).save_adapters(folder / name, {"steps": str(trainer.global_step)})

    @staticmethod
    def _adapted(pl_module: Any) -> HasAdapters:
        encoder = pl_module.cond_stage_model
        if not isinstance(encoder, HasAdapters):
            raise ConfigError(
                f"the text encoder {type(encoder).__name__} has no adapters to save; "
                "take ldm.modules.encoders.post_BERT.AdapterBERTEmbedder"
            )
        return encoder
