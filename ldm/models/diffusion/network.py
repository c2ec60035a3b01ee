"""The network of a diffusion model: fed with a condition's parts, told a timestep, averaged, and loaded from files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldm.checkpoint import load_weights
from ldm.flat_options import flat
from ldm.models.diffusion.condition import KINDS, Condition, as_parts
from ldm.models.diffusion.gaussian import GaussianDiffusion, ScheduleOptions
from ldm.modules.ema import LitEma
from ldm.util import ConfigError, instantiate_from_config


class DiffusionWrapper(nn.Module):
    """The network under ``diffusion_model``, fed with the parts of a condition.

    Shapes: x [B, C, h, w], t [B], c_concat list of [B, *, h, w], c_crossattn list of [B, N, D], c_adm [B] or [B, D],
    c_frames [B, T] -> [B, C, h, w]. In films rows are frames, (film, frame), and each has its film's T indicators.
    """

    def __init__(self, diff_model_config: dict[str, Any], conditioning_key: str | None) -> None:
        """Raises ConfigError for an unknown ``conditioning_key``."""
        super().__init__()
        if conditioning_key not in KINDS:
            known = ", ".join(str(kind) for kind in KINDS)
            raise ConfigError(f"unknown conditioning_key '{conditioning_key}'; known: {known}")
        self.diffusion_model = instantiate_from_config(diff_model_config)
        self.conditioning_key = conditioning_key

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: list[Tensor] | None = None,
        c_crossattn: list[Tensor] | None = None,
        c_adm: Tensor | None = None,
        c_frames: Tensor | None = None,
    ) -> Tensor:
        parts = KINDS[self.conditioning_key]
        inputs: dict[str, Any] = {}
        if "c_concat" in parts and c_concat is not None:
            x = torch.cat([x, *c_concat], dim=1)
        if "c_crossattn" in parts and c_crossattn is not None:
            inputs["context"] = c_crossattn[0] if len(c_crossattn) == 1 else torch.cat(c_crossattn, dim=1)
        if "c_adm" in parts:
            inputs["y"] = c_adm
        if "c_frames" in parts and c_frames is not None:
            inputs["image_only_indicator"] = c_frames[:: c_frames.shape[1]]
        return self.diffusion_model(x, t, **inputs)


@dataclass(frozen=True)
class Start:
    """The weights that a model begins with."""

    ckpt_path: str | None = None
    ignore_keys: Sequence[str] = ()  # beginnings of keys that are left aside
    load_only_unet: bool = False
    reset_ema: bool = False  # start the average anew from the loaded weights
    reset_num_ema_updates: bool = False


class DiffusionNetwork(GaussianDiffusion):
    """A noise schedule and the network that works along it: all that a sampler knows of a model.

    Images or latents are x [B, C, H, W], timesteps t [B]. Weights are loaded at the end of the constructor of the class
    that is built, when all its parts are there: each passes what is not its own on, and calls :meth:`begin`.
    """

    @flat(schedule=ScheduleOptions, start=Start)
    def __init__(
        self,
        unet_config: dict[str, Any],
        conditioning_key: str | None = None,
        image_size: int | Sequence[int] = 256,
        channels: int = 3,
        clip_denoised: bool = True,
        use_ema: bool = True,
        ema_decay: float = 0.9999,
        use_positional_encodings: bool = False,  # accepted for old YAMLs; no released model has them
        make_it_fit: bool = False,  # accepted for old YAMLs; weights that do not fit are an error here
        *,
        schedule: ScheduleOptions,
        start: Start,
    ) -> None:
        """Raises ConfigError for values that are not known."""
        super().__init__()
        self.image_size = image_size
        self.channels = channels
        self.clip_denoised = clip_denoised
        self.register_schedule(schedule)
        self.model = DiffusionWrapper(unet_config, conditioning_key)
        self.use_ema = use_ema
        self.ema_decay = ema_decay
        self.model_ema = LitEma(self.model, decay=ema_decay) if use_ema else None
        self.begin(start)

    def begin(self, start: Start) -> None:
        """Load the weights that a configuration names, if it names any.

        Raises:
            UserError: as :meth:`init_from_ckpt`.
        """
        if start.ckpt_path is not None:
            self.init_from_ckpt(start.ckpt_path, start.ignore_keys, start.load_only_unet)
            if self.model_ema is not None and start.reset_ema:
                self.model_ema = LitEma(self.model, decay=self.ema_decay)
        if self.model_ema is not None and start.reset_num_ema_updates:
            self.model_ema.reset_num_updates()

    @property
    def fresh_keys(self) -> tuple[str, ...]:
        """Beginnings of the keys of what a run is to learn, which weights to start from need not have."""
        return ()

    @property
    def device(self) -> torch.device:
        """Where the model is; Lightning's own record is not kept when weights are assigned."""
        return self.betas.device

    def apply_model(self, x_noisy: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        """The network's raw output for x_t [B, C, H, W] at timesteps t [B] under a condition."""
        return self.model(x_noisy, t, **as_parts(cond, self.model.conditioning_key))

    def predict(self, x: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        """As ``apply_model``, in float32: what a sampler calls."""
        return self.apply_model(x, t, cond).float()

    def p_mean_variance(
        self, x: Tensor, c: Condition = None, t: Tensor | None = None, clip_denoised: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [B, C, H, W], variance and log-variance [B, 1, 1, 1] of the model's p(x_{t-1} | x_t).

        ``clip_denoised`` keeps the x0 that is expected in [-1, 1], which is for images.
        """
        assert t is not None
        x0 = self.schedule.to_x0(self.apply_model(x, t, c), x, t)
        return self.q_posterior(x0.clamp(-1, 1) if clip_denoised else x0, x, t)

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
        """Load weights, a file or a state dict; ``only_model`` takes those of the network alone.

        Raises:
            UserError: as ``ldm.checkpoint.load_weights``.
        """
        target: nn.Module = self.model if only_model else self
        prefix = "model." if only_model else ""
        load_weights(target, weights, ignore=tuple(ignore_keys), prefix=prefix, fresh=self.fresh_keys)
