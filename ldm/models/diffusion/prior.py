"""The parts of a batch with class pictures, which keep a model's idea of a class while it learns one of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.util import ConfigError

SUBJECT, REG = "train", "reg"
PICTURES, BASE = REG_TARGETS = ("pictures", "base")


@dataclass(frozen=True)
class Prior:
    """What is done with class pictures in training.

    Attributes:
        reg_weight: of their loss, DreamBooth's; no words are learned then.
        prior_loss_weight: the same where there is no ``reg_weight``, so that words may learn beside such pictures.
        prior_every: only one step of so many looks at them.
        reg_target: what that loss is: ``pictures``, that of learning them; ``base``, ``drift_from_base`` of a LoRA.
    """

    reg_weight: float | None = None
    prior_loss_weight: float = 1.0
    prior_every: int = 1
    reg_target: str = PICTURES

    @property
    def weight(self) -> float:
        return self.prior_loss_weight if self.reg_weight is None else self.reg_weight

    def check(self, model_learns: bool, has_lora: bool, films: bool) -> None:
        """Refuse what does not go with what learns.

        Raises:
            ConfigError: an unknown target, a weight or a number that means nothing, DreamBooth where only words learn,
                a base model that does not stay, or that of films, whose frames have one timestep together.
        """
        if self.prior_loss_weight < 0 or self.prior_every < 1:
            raise ConfigError(
                "prior_loss_weight must not be negative and prior_every at least 1, got "
                f"{self.prior_loss_weight} and {self.prior_every}"
            )
        if self.reg_weight is not None and not model_learns and not has_lora:
            raise ConfigError("reg_weight is DreamBooth's, whose model learns: unfreeze_model: true, or a lora_config")
        if self.reg_target not in REG_TARGETS:
            raise ConfigError(f"unknown reg_target '{self.reg_target}'; known: {', '.join(REG_TARGETS)}")
        if self.reg_target == BASE and (model_learns or not has_lora):
            raise ConfigError("reg_target: base needs a lora_config, and a model that stays as it is")
        if self.reg_target == BASE and films:
            raise ConfigError("reg_target: base is for models of pictures; this one makes films")


def drift_from_base(model: Any, batch: Mapping[str, Any]) -> Tensor:
    """How far a LoRA that learns has taken a LatentDiffusion from what it says without: a mean square.

    Both see the batch's noised pictures and its prompts, and the base model's answer takes the place of the noise (or
    v, or x0) that the pictures would be learned from (distillation: Li and Hoiem 2016, equation 1). Unlike the loss of
    class pictures it is 0 as long as nothing has changed, and its gradient has no noise of pictures that were drawn.
    """
    z = model.get_latent(batch)
    size, device = (z.shape[-2], z.shape[-1]), z.device
    # what a condition draws (parts left out for guidance, noise of pictures) is the same with and without the LoRA
    drawn_again = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with torch.no_grad(), model.lora.left_out(), drawn_again:
        plain = model.get_condition(batch, size)
    cond = model.get_condition(batch, size)
    first, end = model.timestep_range
    t = torch.randint(first, end, (z.shape[0],), device=device)
    x = model.q_sample(z, t, torch.randn(z.shape, dtype=z.dtype, device=device))
    with torch.no_grad(), model.lora.left_out():
        before = model.apply_model(x, t, plain).float()
    return F.mse_loss(model.apply_model(x, t, cond).float(), before)
