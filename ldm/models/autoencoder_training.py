"""How autoencoders train: the part that KL and VQ share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from ldm.checkpoint import load_weights, read_state_dict
from ldm.models.hooks import Hooked
from ldm.modules.diffusionmodules.model import Decoder, Encoder
from ldm.modules.ema import LitEma
from ldm.modules.losses.adversarial import AdversarialLoss
from ldm.util import instantiate_from_config

if TYPE_CHECKING:
    from pytorch_lightning.core.optimizer import LightningOptimizer

FIRST_STAGE = "first_stage_model."  # what the keys of a diffusion model's autoencoder begin with
GAN_BETAS = (0.5, 0.9)  # a discriminator and its generator forget faster (Radford et al. 2016)
PLAIN_BETAS = (0.9, 0.99)


class TrainedAutoencoder(Hooked):
    """Encoder, decoder and loss; subclasses have what lies between.

    With a loss that has a discriminator, both optimisers step on every batch (Lightning's manual optimisation), so
    that Lightning's ``global_step``, and with it ``max_steps``, advances by two a batch. The discriminator's
    ``disc_start`` counts batches all the same, or updates where gradients of several batches are added up.

    Attributes:
        accumulate_grad_batches: with a discriminator, batches whose gradients are added up for one update.
        between_updates: whether the last batch completed one.
    """

    accumulate_grad_batches = 1
    between_updates = True

    encoder: Encoder
    decoder: Decoder
    quant_conv: nn.Conv2d  # between encoder and latent, and
    post_quant_conv: nn.Conv2d  # between latent and decoder: the subclasses make them

    def __init__(
        self,
        networks: Mapping[str, Any] | tuple[Encoder, Decoder],  # a ddconfig, or encoder and decoder
        lossconfig: Mapping[str, Any],
        image_key: str,
        colorize_nlabels: int | None,
        monitor: str | None,
        scheduler_config: Mapping[str, Any] | None,
        lr_g_factor: float,
    ) -> None:
        super().__init__()
        if isinstance(networks, Mapping):
            networks = Encoder(**networks), Decoder(**networks)
        self.encoder, self.decoder = networks
        self.loss = instantiate_from_config(lossconfig)
        self.image_key = image_key
        self.monitor = monitor
        self.scheduler_config = scheduler_config
        self.lr_g_factor = lr_g_factor
        self.learning_rate = 4.5e-6  # main.py sets it
        self.adversarial = isinstance(self.loss, AdversarialLoss)
        self.automatic_optimization = not self.adversarial
        self.model_ema: LitEma | None = None
        self._added = 0  # batches since the last update
        if colorize_nlabels is not None:
            self.register_buffer("colorize", torch.randn(3, colorize_nlabels, 1, 1, device="cpu"))

    @property
    def factor(self) -> int:
        """How many times smaller than the picture a latent is."""
        return 2 ** (len(self.encoder.down) - 1)

    def keep_average(self, decay: float | None) -> None:
        """Keep averaged weights from now on (None: do not); call it when every parameter is there."""
        self.model_ema = LitEma(self, decay=decay) if decay is not None else None

    def init_from_ckpt(self, path: str | None, ignore_keys: Sequence[str] = ()) -> None:
        """Load weights, of an autoencoder or of a latent diffusion model that has one; None loads nothing."""
        if path is None:
            return
        weights = read_state_dict(path)
        prefix = FIRST_STAGE if any(key.startswith(FIRST_STAGE) for key in weights) else ""
        load_weights(self, path, prefix=prefix, ignore=tuple(ignore_keys))

    def reconstruct(self, x: torch.Tensor) -> tuple[torch.Tensor, Any, dict[str, Any]]:
        """Pictures [B, C, H, W] -> reconstructions, what the loss regularises, further keywords for the loss."""
        raise NotImplementedError

    def resized(self, x: torch.Tensor) -> torch.Tensor:
        """A training batch [B, C, H, W] at the size to train on."""
        return x

    def get_last_layer(self) -> torch.Tensor:
        """The weight at which the pulls of loss and discriminator are compared."""
        return self.decoder.conv_out.weight

    @contextlib.contextmanager
    def ema_scope(self, context: str | None = None) -> Iterator[None]:
        """Within the block the weights are the averaged ones, if there are any."""
        if self.model_ema is None:
            yield
            return
        with self.model_ema.applied(self):
            yield

    def get_input(self, batch: Mapping[str, Any], key: str | None = None) -> torch.Tensor:
        """Pictures of a batch, [B,H,W,C] or [B,H,W], as [B,C,H,W] float32 on the model's device."""
        images = batch[key or self.image_key]
        images = images[..., None] if images.dim() == 3 else images
        return images.movedim(-1, 1).to(self.get_last_layer().device).float()

    @property
    def batches_seen(self) -> int:
        """Training batches, or updates of several, since the start of the run, resumed ones included."""
        return self.global_step // (2 if self.adversarial else 1)

    def next_command(self, folder: str) -> str:
        """What makes the file that a diffusion model's YAML names."""
        return f"python -m scripts.export_model {folder}/checkpoints/last.ckpt autoencoder.safetensors"

    # ---- steps ----------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Raises MissingPartError before the first step if the loss needs what is not there."""
        if isinstance(self.loss, AdversarialLoss):
            self.loss.prepare()

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> torch.Tensor | None:
        x = self.resized(self.get_input(batch))
        if self.automatic_optimization:
            loss, log = self._loss(x, self.reconstruct(x), 0, "train")
            self._log_training("aeloss", loss, log)
            return loss
        self._added += 1
        self.between_updates = self._added == self.accumulate_grad_batches or self.trainer.is_last_batch
        for index, optimizer in enumerate(self._optimizers()):
            self.toggle_optimizer(optimizer)
            if index == 0:
                step = self.batches_seen  # both optimisers of a batch are at the same step
                parts = self.reconstruct(x)
            loss, log = self._loss(x, parts, index, "train", step)
            self.manual_backward(loss / self.accumulate_grad_batches)
            if self.between_updates:
                optimizer.step()
                optimizer.zero_grad()
            self.untoggle_optimizer(optimizer)
            self._log_training(("aeloss", "discloss")[index], loss, log)
        if self.between_updates:
            self._added = 0
            self._step_schedulers()
            self._update_average()
        return None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Lightning's, for a loss without discriminator; the average follows before any checkpoint is written."""
        super().optimizer_step(*args, **kwargs)
        self._update_average()

    def _update_average(self) -> None:
        if self.model_ema is not None:
            self.model_ema(self)

    @torch.no_grad()
    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        self._validate(batch, "val")
        if self.model_ema is not None:
            with self.ema_scope():
                self._validate(batch, "val_ema")

    def _validate(self, batch: Mapping[str, Any], split: str) -> None:
        x = self.get_input(batch)
        parts = self.reconstruct(x)
        log: dict[str, torch.Tensor] = {}
        for index in range(2 if self.adversarial else 1):
            log |= self._loss(x, parts, index, split)[1]
        self.log_dict(log, prog_bar=False, logger=True, on_step=False, on_epoch=True, batch_size=len(x))

    def _loss(
        self, x: torch.Tensor, parts: tuple[torch.Tensor, Any, dict[str, Any]], index: int, split: str,
        step: int | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        reconstructions, regulariser, more = parts
        step = self.batches_seen if step is None else step
        return self.loss(
            x, reconstructions.float(), regulariser, index, step, last_layer=self.get_last_layer(), split=split, **more
        )

    def _log_training(self, name: str, loss: torch.Tensor, log: dict[str, torch.Tensor]) -> None:
        self.log(name, loss.detach(), prog_bar=True, logger=False, on_step=True, on_epoch=False)
        self.log_dict(log, prog_bar=False, logger=True, on_step=True, on_epoch=False)

    # ---- optimisers -----------------------------------------------------------------------------------------------

    def trained_parameters(self) -> list[nn.Parameter]:
        """Everything but the loss."""
        parts = (self.encoder, self.decoder, self.quant_conv, self.post_quant_conv)
        return [p for part in parts for p in part.parameters()]

    def configure_optimizers(self) -> Any:
        rate = self.learning_rate
        betas = GAN_BETAS if self.adversarial else PLAIN_BETAS
        optimizers = [torch.optim.Adam(self.trained_parameters(), lr=self.lr_g_factor * rate, betas=betas)]
        if isinstance(self.loss, AdversarialLoss):
            optimizers.append(torch.optim.Adam(self.loss.discriminator.parameters(), lr=rate, betas=betas))
        if self.scheduler_config is None:
            return optimizers
        factor = instantiate_from_config(self.scheduler_config).schedule
        schedulers = [
            {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor), "interval": "step", "frequency": 1}
            for optimizer in optimizers
        ]
        return optimizers, schedulers

    def _optimizers(self) -> list[LightningOptimizer]:
        optimizers = self.optimizers()
        return list(optimizers) if isinstance(optimizers, list) else [optimizers]

    def _step_schedulers(self) -> None:
        schedulers = self.lr_schedulers()
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
            if isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
                scheduler.step()

    # ---- pictures -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def log_images(self, batch: Mapping[str, Any], only_inputs: bool = False, **_: Any) -> dict[str, torch.Tensor]:
        """Pictures to look at during training, each [B,3,H,W] about [-1,1]."""
        x = self.get_input(batch)
        images = {"inputs": x}
        if not only_inputs:
            images["reconstructions"] = self.reconstruct(x)[0]
            images |= self.more_images(x)
        return {name: self.to_rgb(image.float()) for name, image in images.items()}

    def more_images(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """What else to show for pictures ``x`` [B, C, H, W]: name -> [B, C, H, W]."""
        if self.model_ema is None:
            return {}
        with self.ema_scope():
            return {"reconstructions_ema": self.reconstruct(x)[0]}

    def to_rgb(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures [B, C, H, W] as [B, 3, H, W]: in the random colours of ``colorize_nlabels``, if there are any.

        Those lie in [-1, 1]. Without them the first three channels are taken; one or three stay as they are.
        """
        colours = self._buffers.get("colorize")
        if colours is None or x.shape[1] == 3:
            return x if x.shape[1] in (1, 3) else x[:, :3]
        x = F.conv2d(x, colours.to(x))
        low, high = x.amin(), x.amax()
        return 2.0 * (x - low) / (high - low) - 1.0
