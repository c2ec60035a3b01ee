"""The diffusion model without a condition, with the loss that trains it.

Sources: Ho et al. 2020 (DDPM), Salimans and Ho 2022 (v), Hang et al. 2023 (min-SNR).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.flat_options import flat
from ldm.models.diffusion.condition import Condition
from ldm.models.diffusion.guidance import repeat_condition
from ldm.models.diffusion.network import DiffusionNetwork, Start
from ldm.util import ConfigError, UserError

# what YAMLs call a part of the network -> what the names of its weights have in them
LEARNING_PARTS = {"attn": ".attn2.", "conv_in": ".input_blocks.0.0."}
LOSS_MASK = "loss_mask"  # the batch's key of masks [B, H, W] in [0, 1] of what is learned of its pictures


class DiffusionModel(DiffusionNetwork):
    """Denoising diffusion on images or latents x0 [B, C, H, W], without a condition: a network and its loss.

    ``ldm.models.diffusion.ddpm.DDPM`` is this as a Lightning module.
    """

    @flat(start=Start)
    def __init__(
        self,
        loss_type: str = "l2",
        l_simple_weight: float = 1.0,
        original_elbo_weight: float = 0.0,  # weight of the variational bound's term
        learn_logvar: bool = False,  # learn the log-variance that the loss at each timestep is scaled by
        logvar_init: float = 0.0,
        min_snr_gamma: float | None = None,  # weights the loss by min(SNR, gamma); 5 in the paper
        draws: int = 1,  # noises and timesteps that a picture of a batch is trained with; it is encoded once for all
        offset_noise: float = 0.0,  # of noise that is one number a channel (Guttenberg 2023); 0.1 is usual
        timestep_range: Sequence[int] | None = None,  # [first, end): the timesteps that training draws; None: all
        first_stage_key: str = "image",  # the batch's key of the picture
        monitor: str | None = "val/loss",
        log_every_t: int = 100,
        scheduler_config: dict[str, Any] | None = None,  # step -> factor of the learning rate
        optimizer_config: dict[str, Any] | None = None,  # {target, params} instead of AdamW
        ucg_training: dict[str, Any] | None = None,  # {key: {p, val}}: how often a condition becomes the empty one
        unet_trainable: bool | str = True,  # what of the network learns: all, attn (to the condition) or conv_in
        *,
        start: Start,
        **network: Any,
    ) -> None:
        """Raises ConfigError for values that are not known; ``network`` are the parameters of DiffusionNetwork."""
        super().__init__(**network)
        if loss_type not in ("l1", "l2"):
            raise ConfigError(f"unknown loss_type '{loss_type}'; known: l1, l2")
        if draws < 1:
            raise ConfigError(f"draws, the noises of a picture in a batch, must be 1 or more, got {draws}")
        self.loss_type = loss_type
        self.draws = draws
        self.l_simple_weight = l_simple_weight
        self.original_elbo_weight = original_elbo_weight
        self.min_snr_gamma = min_snr_gamma
        self.offset_noise = offset_noise
        self.timestep_range = range_of_timesteps(timestep_range, self.num_timesteps)
        self.first_stage_key = first_stage_key
        self.monitor = monitor
        self.log_every_t = log_every_t
        self.scheduler_config = scheduler_config
        self.optimizer_config = optimizer_config
        self.ucg_training = ucg_training or {}
        self.learning_rate = 1e-4  # main.py sets it
        self.learn_logvar = learn_logvar
        freeze_all_but(self.model, unet_trainable)
        self.logvar: Tensor | nn.Parameter = torch.full((self.num_timesteps,), float(logvar_init), device="cpu")
        if learn_logvar:
            self.logvar = nn.Parameter(self.logvar)
        self.begin(start)

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
        self, x_start: Tensor, cond: Condition, t: Tensor, noise: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss at timesteps t [B] for clean latents [B, C, h, w], and its parts for the log; see ``losses_of``."""
        if noise is None:  # not randn_like, whose values depend on how x_start lies in memory
            noise = torch.randn(x_start.shape, dtype=x_start.dtype, device=x_start.device)
            if self.offset_noise:
                same = torch.randn(*x_start.shape[:2], 1, 1, dtype=x_start.dtype, device=x_start.device)
                noise = noise + self.offset_noise * same
        output = self.apply_model(self.q_sample(x_start, t, noise), t, cond).float()
        return self.losses_of(output, x_start, noise, t, mask)

    def losses_of(
        self, output: Tensor, x_start: Tensor, noise: Tensor, t: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of what the network said [B, C, h, w], float32, for x_start with that noise, and its parts.

        With ``mask`` [B, H, W], of any size, an error counts as much as the mask says there.
        """
        difference = output - self.get_target(x_start, noise, t).float()
        error = difference.abs() if self.loss_type == "l1" else difference.square()
        per_picture = error.flatten(1).mean(dim=1) if mask is None else mean_within(error, mask)

        logvar = self.logvar.to(t.device)[t]
        weighted = self.loss_weights(t) * per_picture / logvar.exp() + logvar
        vlb = (self.lvlb_weights[t] * per_picture).mean()
        loss = self.l_simple_weight * weighted.mean() + self.original_elbo_weight * vlb

        stage = "train" if self.training else "val"
        parts = {"loss_simple": per_picture.mean(), "loss_vlb": vlb, "loss": loss}
        if self.learn_logvar:
            parts |= {"loss_gamma": weighted.mean(), "logvar": self.logvar.mean()}
        return loss, {f"{stage}/{name}": value.detach() for name, value in parts.items()}

    def forward(
        self, x: Tensor, cond: Condition = None, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss for clean latents [B, C, h, w] at random timesteps; in training, for ``draws`` of them a latent."""
        if self.training and self.draws > 1:
            cond = repeat_condition(cond, x.shape[0], self.draws)
            x = x.repeat(self.draws, *[1] * (x.dim() - 1))
            mask = None if mask is None else mask.repeat(self.draws, 1, 1)
        t = torch.randint(*self.timestep_range, (x.shape[0],), device=x.device)
        return self.p_losses(x, cond, t) if mask is None else self.p_losses(x, cond, t, mask=mask)

    def get_input(self, batch: Mapping[str, Any]) -> tuple[Tensor, Condition]:
        """What a batch holds: x0 [B, C, H, W] and a condition."""
        return images_to_channels_first(batch[self.first_stage_key]).to(self.device), None

    def shared_step(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and its parts; where the batch has masks (LOSS_MASK), that of what they mark."""
        masked = {"mask": batch[LOSS_MASK].to(self.device)} if LOSS_MASK in batch else {}
        return self(*self.get_input(batch), **masked)

    def trained_parameters(self) -> list[Any]:
        """What the optimiser changes: parameters, or groups of them with options of their own."""
        extra = [self.logvar] if isinstance(self.logvar, nn.Parameter) else []
        return [p for p in self.model.parameters() if p.requires_grad] + extra


def mean_within(error: Tensor, mask: Tensor) -> Tensor:
    """The mean [B] of errors [B, C, h, w] within masks [B, H, W]; of one that marks nothing it is 0.

    It is the mean of what is marked, so that a small thing is learned as fast as a large one.
    """
    weight = F.adaptive_avg_pool2d(mask[:, None].to(error), (error.shape[-2], error.shape[-1]))
    return (weight * error).mean(dim=(1, 2, 3)) / weight.mean(dim=(1, 2, 3)).clamp(min=1e-6)


def refuse_mask(mask: Tensor | None) -> None:
    """For models whose loss takes none.

    Raises:
        UserError: there is one.
    """
    if mask is not None:
        raise UserError("this model learns whole pictures: data.params.train.params.masks=false passes masks over")


def freeze_all_but(network: nn.Module, part: bool | str) -> None:
    """Have only a part of a network learn, as YAMLs of image variations name it: all (or True), attn, conv_in.

    Raises:
        ConfigError: another part, or the network has no such layers.
    """
    if part is True or part == "all":
        return
    if part not in LEARNING_PARTS:
        raise ConfigError(f"unet_trainable must be true, all, {' or '.join(LEARNING_PARTS)}, got '{part}'")
    learns = {name: LEARNING_PARTS[part] in f".{name}" for name, _ in network.named_parameters()}
    if not any(learns.values()):
        raise ConfigError(f"unet_trainable: {part} names layers that this network does not have")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(learns[name])


def range_of_timesteps(given: Sequence[int] | None, count: int) -> tuple[int, int]:
    """[first, end) of the timesteps that training draws from.

    Raises:
        ConfigError: there is none in it, or the model has not so many.
    """
    if given is None:
        return 0, count
    if len(given) != 2 or not 0 <= given[0] < given[1] <= count:
        raise ConfigError(f"timestep_range must be two numbers, 0 <= first < end <= {count}, got {list(given)}")
    return given[0], given[1]


def images_to_channels_first(images: Tensor) -> Tensor:
    """A batch's pictures [B, H, W, C] or [B, H, W] as [B, C, H, W] float32."""
    images = images[..., None] if images.dim() == 3 else images
    return images.permute(0, 3, 1, 2).contiguous().float()
