"""The diffusion model without a condition: what the network predicts, the loss and the optimiser.

Sources: Ho et al. 2020 (DDPM), Salimans and Ho 2022 (v), Hang et al. 2023 (min-SNR).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ldm.checkpoint import load_weights
from ldm.models.diffusion.gaussian import GaussianDiffusion
from ldm.models.diffusion.preview import diffusion_row, preview_samples
from ldm.models.diffusion.wrapper import Condition, DiffusionWrapper, as_parts
from ldm.models.hooks import Hooked
from ldm.modules.diffusionmodules.schedule import PARAMETERIZATIONS, make_beta_schedule
from ldm.modules.ema import LitEma
from ldm.util import ConfigError, instantiate_from_config

log = logging.getLogger(__name__)


class DiffusionModel(GaussianDiffusion, Hooked):
    """Denoising diffusion on images or latents x0 [B, C, H, W], without a condition.

    What the network predicts, the loss and the optimiser; the schedule is that of :class:`GaussianDiffusion`.
    """

    def __init__(
        self,
        unet_config: dict[str, Any],
        timesteps: int = 1000,
        beta_schedule: str = "linear",
        linear_start: float = 1e-4,
        linear_end: float = 2e-2,
        cosine_s: float = 8e-3,
        given_betas: Sequence[float] | None = None,  # instead of a named schedule
        parameterization: str = "eps",  # what the network predicts: eps, v or x0
        loss_type: str = "l2",
        l_simple_weight: float = 1.0,
        original_elbo_weight: float = 0.0,  # weight of the variational bound's term
        v_posterior: float = 0.0,  # posterior variance: 0 the true one, 1 beta, between: mixed
        learn_logvar: bool = False,  # learn the log-variance that the loss at each timestep is scaled by
        logvar_init: float = 0.0,
        min_snr_gamma: float | None = None,  # weights the loss by min(SNR, gamma); 5 in the paper
        use_ema: bool = True,
        ema_decay: float = 0.9999,
        conditioning_key: str | None = None,
        first_stage_key: str = "image",  # the batch's key of the picture
        image_size: int | Sequence[int] = 256,
        channels: int = 3,
        clip_denoised: bool = True,
        log_every_t: int = 100,
        monitor: str | None = "val/loss",
        scheduler_config: dict[str, Any] | None = None,  # step -> factor of the learning rate
        optimizer_config: dict[str, Any] | None = None,  # {target, params} instead of AdamW
        ucg_training: dict[str, Any] | None = None,  # {key: {p, val}}: how often a condition becomes the empty one
        ckpt_path: str | None = None,
        ignore_keys: Sequence[str] = (),
        load_only_unet: bool = False,
        reset_ema: bool = False,  # start the average anew from the loaded weights
        reset_num_ema_updates: bool = False,
        use_positional_encodings: bool = False,  # accepted for old YAMLs; no released model has them
        make_it_fit: bool = False,  # accepted for old YAMLs; weights that do not fit are an error here
    ) -> None:
        """Raises ConfigError for values that are not known."""
        super().__init__()
        if parameterization not in PARAMETERIZATIONS:
            raise ConfigError(f"unknown parameterization '{parameterization}'; known: {', '.join(PARAMETERIZATIONS)}")
        if loss_type not in ("l1", "l2"):
            raise ConfigError(f"unknown loss_type '{loss_type}'; known: l1, l2")
        self.parameterization = parameterization
        self.loss_type = loss_type
        self.l_simple_weight = l_simple_weight
        self.original_elbo_weight = original_elbo_weight
        self.v_posterior = v_posterior
        self.min_snr_gamma = min_snr_gamma
        self.first_stage_key = first_stage_key
        self.image_size = image_size
        self.channels = channels
        self.clip_denoised = clip_denoised
        self.log_every_t = log_every_t
        self.monitor = monitor
        self.scheduler_config = scheduler_config
        self.optimizer_config = optimizer_config
        self.ucg_training = ucg_training or {}
        self.learning_rate = 1e-4  # main.py sets it

        betas = make_beta_schedule(beta_schedule, timesteps, linear_start, linear_end, cosine_s)
        self.register_schedule(betas if given_betas is None else np.asarray(given_betas, dtype=np.float64))

        self.model = DiffusionWrapper(unet_config, conditioning_key)
        self.use_ema = use_ema
        self.model_ema = LitEma(self.model, decay=ema_decay) if use_ema else None
        self.learn_logvar = learn_logvar
        self.logvar: Tensor | nn.Parameter = torch.full((self.num_timesteps,), float(logvar_init), device="cpu")
        if learn_logvar:
            self.logvar = nn.Parameter(self.logvar)

        if ckpt_path is not None:
            self.init_from_ckpt(ckpt_path, ignore_keys, load_only_unet)
            if self.model_ema is not None and reset_ema:
                self.model_ema = LitEma(self.model, decay=ema_decay)
        if reset_num_ema_updates and self.model_ema is not None:
            self.model_ema.reset_num_updates()

    @property
    def device(self) -> torch.device:
        """Where the model is; Lightning's own record is not kept when weights are assigned."""
        return self.betas.device

    def p_mean_variance(
        self, x: Tensor, c: Condition = None, t: Tensor | None = None, clip_denoised: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and log-variance of the model's p(x_{t-1} | x_t)."""
        assert t is not None
        x0 = self.schedule.to_x0(self.apply_model(x, t, c), x, t)
        return self.q_posterior(x0.clamp(-1, 1) if clip_denoised else x0, x, t)

    # ---- network --------------------------------------------------------------------------------------------------

    def apply_model(self, x_noisy: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        """The network's raw output for x_t [B, C, H, W] at timesteps t [B] under a condition."""
        return self.model(x_noisy, t, **as_parts(cond, self.model.conditioning_key))

    def predict(self, x: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        """As ``apply_model``, in float32: what a sampler calls."""
        return self.apply_model(x, t, cond).float()

    @contextlib.contextmanager
    def ema_scope(self, context: str | None = None) -> Iterator[None]:
        """Within the block the network has its averaged weights, if it keeps any."""
        if self.model_ema is None:
            yield
            return
        with self.model_ema.applied(self.model):
            yield

    def init_from_ckpt(
        self, weights: str | Mapping[str, Tensor], ignore_keys: Sequence[str] = (), only_model: bool = False
    ) -> None:
        """Load weights, a file or a state dict; ``only_model`` takes those of the network alone."""
        target: nn.Module = self.model if only_model else self
        load_weights(target, weights, ignore=tuple(ignore_keys), prefix="model." if only_model else "")

    # ---- loss -----------------------------------------------------------------------------------------------------

    def get_target(self, x_start: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should say: the noise, v or x0."""
        if self.parameterization == "eps":
            return noise
        return self.get_v(x_start, noise, t) if self.parameterization == "v" else x_start

    def loss_weights(self, t: Tensor) -> Tensor | float:
        """min-SNR weights [B] for the chosen prediction (Hang et al. 2023, section 3.4), or 1."""
        if self.min_snr_gamma is None:
            return 1.0
        acp = self.alphas_cumprod[t]
        snr = acp / (1 - acp)
        weight = snr.clamp(max=self.min_snr_gamma)
        return weight / {"eps": snr, "v": snr + 1, "x0": torch.ones_like(snr)}[self.parameterization]

    def p_losses(
        self, x_start: Tensor, cond: Condition, t: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss at timesteps t [B] for clean latents [B, C, h, w], and its parts for the log."""
        if noise is None:  # not randn_like, whose values depend on how x_start lies in memory
            noise = torch.randn(x_start.shape, dtype=x_start.dtype, device=x_start.device)
        output = self.apply_model(self.q_sample(x_start, t, noise), t, cond).float()
        return self.losses_of(output, x_start, noise, t)

    def losses_of(self, output: Tensor, x_start: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of what the network said [B, C, h, w], float32, for x_start with that noise, and its parts."""
        difference = output - self.get_target(x_start, noise, t).float()
        error = difference.abs() if self.loss_type == "l1" else difference.square()
        per_picture = error.flatten(1).mean(dim=1)

        logvar = self.logvar.to(t.device)[t]
        weighted = self.loss_weights(t) * per_picture / logvar.exp() + logvar
        vlb = (self.lvlb_weights[t] * per_picture).mean()
        loss = self.l_simple_weight * weighted.mean() + self.original_elbo_weight * vlb

        stage = "train" if self.training else "val"
        parts = {"loss_simple": per_picture.mean(), "loss_vlb": vlb, "loss": loss}
        if self.learn_logvar:
            parts |= {"loss_gamma": weighted.mean(), "logvar": self.logvar.mean()}
        return loss, {f"{stage}/{name}": value.detach() for name, value in parts.items()}

    def forward(self, x: Tensor, cond: Condition = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss for clean latents [B, C, h, w] at random timesteps."""
        t = torch.randint(0, self.num_timesteps, (x.shape[0],), device=x.device)
        return self.p_losses(x, cond, t)

    def get_input(self, batch: Mapping[str, Any]) -> tuple[Tensor, Condition]:
        """What a batch holds: x0 [B, C, H, W] and a condition."""
        return images_to_channels_first(batch[self.first_stage_key]).to(self.device), None

    def shared_step(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and its parts."""
        return self(*self.get_input(batch))

    # ---- Lightning ------------------------------------------------------------------------------------------------

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        loss, parts = self.shared_step(self._with_empty_conditions(batch))
        size = len(batch[self.first_stage_key]) if self.first_stage_key in batch else None
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

    def _with_empty_conditions(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Some conditions of a training batch replaced by the empty one, so that guidance can work (Ho & Salimans)."""
        changed = dict(batch)
        for key, option in self.ucg_training.items():
            empty = option.get("val") if option.get("val") is not None else ""
            drop = torch.rand(len(batch[key])) < option["p"]
            values = batch[key].clone() if isinstance(batch[key], Tensor) else list(batch[key])
            for i in drop.nonzero().flatten().tolist():
                values[i] = empty
            changed[key] = values
        return changed

    def trained_parameters(self) -> list[Any]:
        """What the optimiser changes: parameters, or groups of them with options of their own."""
        extra = [self.logvar] if isinstance(self.logvar, nn.Parameter) else []
        return [p for p in self.model.parameters() if p.requires_grad] + extra

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


def images_to_channels_first(images: Tensor) -> Tensor:
    """A batch's pictures [B, H, W, C] or [B, H, W] as [B, C, H, W] float32."""
    images = images[..., None] if images.dim() == 3 else images
    return images.permute(0, 3, 1, 2).contiguous().float()
