"""What Lightning calls while a diffusion model trains: hooks, and nothing else."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldm.models.diffusion.latent import LatentModel
from ldm.models.diffusion.loss import DiffusionModel
from ldm.models.diffusion.preview import diffusion_row, latent_previews, preview_samples
from ldm.models.diffusion.prior import REG, SUBJECT
from ldm.models.diffusion.sampler_errors import DRAWN
from ldm.models.hooks import Hooked
from ldm.util import instantiate_from_config

log = logging.getLogger(__name__)


class DiffusionHooks(DiffusionModel, Hooked):
    """The hooks of a diffusion model."""

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        loss, parts = self.shared_step(with_empty_conditions(batch, self.ucg_training))
        of_subject = batch.get(SUBJECT, batch)
        size = len(of_subject[self.first_stage_key]) if self.first_stage_key in of_subject else None
        self.log_dict(parts, prog_bar=True, logger=True, on_step=True, on_epoch=True, batch_size=size)
        self.log("global_step", float(self.global_step), prog_bar=False, logger=True, on_step=True, on_epoch=False)
        return loss

    @torch.no_grad()
    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        _, parts = self.shared_step(batch)
        averaged = parts
        if self.model_ema is not None:
            with self.ema_scope():
                _, averaged = self.shared_step(batch)
        parts |= {f"{name}_ema": value for name, value in averaged.items()}
        self.log_dict(parts, prog_bar=False, logger=True, on_step=False, on_epoch=True)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Update weights, then their average: before any checkpoint of this step is written, so that both are in it."""
        super().optimizer_step(*args, **kwargs)
        if self.model_ema is not None:
            self.model_ema(self.model)

    def configure_optimizers(self) -> Any:
        parameters = self.trained_parameters()
        if self.optimizer_config is None:
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate)
        else:
            optimizer = instantiate_from_config(self.optimizer_config, params=parameters, lr=self.learning_rate)
        if self.scheduler_config is None:
            return optimizer
        factor = instantiate_from_config(self.scheduler_config).schedule
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda=factor)
        return [optimizer], [{"scheduler": scheduler, "interval": "step", "frequency": 1}]

    @torch.no_grad()
    def log_images(
        self, batch: Mapping[str, Any], N: int = 8, sample: bool = True, split: str = "train", **options: Any
    ) -> dict[str, Any]:
        """Pictures to look at during training: inputs, noised inputs and samples, each [n, 3, H, W] in [-1, 1]."""
        x, _ = self.get_input(batch)
        images = {"inputs": x[:N], "diffusion_row": diffusion_row(self, x[: min(N, 4)])}
        if sample:
            with self.ema_scope("sampling"):
                images["samples"] = preview_samples(self, x[:N].shape, None, **options)
        return images


class LatentHooks(LatentModel, DiffusionHooks):
    """The hooks of a latent diffusion model."""

    @torch.no_grad()
    def on_train_batch_start(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """The scale of the latents is that of the first batch, where it is not given."""
        if self.scale_by_std and self.global_step == 0 and batch_idx == 0:
            self.set_scale(self.get_latent(batch.get(SUBJECT, batch)))
            log.info("scale_factor set to %.5f", float(self.scale_factor))

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """As in the base; of class pictures only in the steps that look at them."""
        looks = self.global_step % self.prior.prior_every == 0
        return super().training_step(batch if looks else batch.get(SUBJECT, batch), batch_idx)

    @torch.no_grad()
    def log_images(
        self, batch: Mapping[str, Any], N: int = 8, sample: bool = True, split: str = "train", **options: Any
    ) -> dict[str, Any]:
        """Pictures to look at during training, the same for every split; see ``ldm.models.diffusion.preview``."""
        with self.ema_scope("sampling"), self._not_counted():
            return self.previews(batch.get(SUBJECT, batch), N, sample, **options)

    def previews(self, batch: Mapping[str, Any], N: int, sample: bool, **options: Any) -> dict[str, Any]:
        """What ``log_images`` shows of a batch, by name."""
        return latent_previews(self, batch, N, sample, **options)

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        with self._not_counted():
            super().validation_step(batch, batch_idx)

    def _not_counted(self) -> contextlib.AbstractContextManager[Any]:
        """What is encoded in the block does not bring progressive words on."""
        return contextlib.nullcontext() if self.embedding_manager is None else self.embedding_manager.paused()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what learns: a run for a few words does not carry the model along."""
        if self.embedding_manager is not None:
            checkpoint["progressive_counter"] = self.embedding_manager.progressive_counter
        checkpoint["state_dict"] = self.learning.part_to_save(self, checkpoint["state_dict"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.embedding_manager is not None:
            self.embedding_manager.progressive_counter = checkpoint.get("progressive_counter", 0)


def with_empty_conditions(batch: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Some conditions of a training batch replaced by the empty one, so that guidance can work (Ho & Salimans 2022).

    Args:
        options: key of the batch -> ``p``, how often, and ``val``, what stands for nothing (a text of no words).
    """
    if REG in batch:
        return {name: with_empty_conditions(part, options) for name, part in batch.items()}
    changed = dict(batch)
    if DRAWN in batch:  # what no prompt asks for may stay as it was drawn
        return changed
    for key, option in options.items():
        empty = option.get("val") if option.get("val") is not None else ""
        drop = torch.rand(len(batch[key])) < option["p"]
        values = batch[key].clone() if isinstance(batch[key], Tensor) else list(batch[key])
        for i in drop.nonzero().flatten().tolist():
            values[i] = empty
        changed[key] = values
    return changed
