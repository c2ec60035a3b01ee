"""The loss of the KL autoencoders (Rombach et al. 2022, appendix G)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.modules.losses.adversarial import AdversarialLoss, Log, with_split


class LPIPSWithDiscriminator(AdversarialLoss):
    """Laplace likelihood of pixels and LPIPS with one log-variance for all, plus KL, plus discriminator.

    Sums over a picture, means over a batch: ``kl_weight`` is small (1e-6) for that reason.
    """

    def __init__(self, disc_start: int, logvar_init: float = 0.0, kl_weight: float = 1.0, **adversarial: Any) -> None:
        """``adversarial`` are the parameters of ``AdversarialLoss``.

        Raises:
            ConfigError: a name that is not known.
        """
        super().__init__(disc_start, **adversarial)
        self.kl_weight = kl_weight
        self.logvar = nn.Parameter(torch.full((), float(logvar_init)))

    def forward(
        self,
        inputs: torch.Tensor,
        reconstructions: torch.Tensor,
        posteriors: DiagonalGaussianDistribution,
        optimizer_idx: int,
        global_step: int,
        last_layer: torch.Tensor,
        split: str = "train",
    ) -> tuple[torch.Tensor, Log]:
        """Pictures [B,3,H,W] and their reconstructions -> scalar loss and numbers to log.

        Raises:
            MissingPartError: LPIPS is asked for and not installed.
        """
        if optimizer_idx == 1:
            return self.discriminator_term(inputs, reconstructions, global_step, split)
        distance, _ = self.distances(inputs, reconstructions)
        likelihood = (distance / self.logvar.exp() + self.logvar).sum() / len(inputs)
        kl = posteriors.kl().mean()
        adversarial, log = self.generator_term(reconstructions, likelihood, global_step, last_layer)
        loss = likelihood + self.kl_weight * kl + adversarial
        log |= {"total_loss": loss, "logvar": self.logvar, "kl_loss": kl, "nll_loss": likelihood,
                "rec_loss": distance.mean()}
        return loss, with_split(split, log)
