"""A plain loss for autoencoders: no discriminator, no second network, one optimiser."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.modules.losses.adversarial import Log, with_split
from ldm.util import ConfigError


class ReconstructionLoss(nn.Module):
    """l1 and l2 distance at several scales, l1 between the slopes, and KL (or a codebook's loss).

    All are means over elements, so that the weights do not depend on the size of the picture.
    """

    def __init__(
        self,
        l1_weight: float = 1.0,
        l2_weight: float = 0.0,
        gradient_weight: float = 0.0,  # differences of neighbouring pixels: keeps edges sharp
        scales: int = 1,  # how often the pictures are compared, each time at half the size of the last
        kl_weight: float = 1e-6,  # times the nats per latent element
        codebook_weight: float = 1.0,
    ) -> None:
        """Raises ConfigError: ``scales`` is less than 1, or a weight is negative."""
        super().__init__()
        weights = {"l1_weight": l1_weight, "l2_weight": l2_weight, "gradient_weight": gradient_weight,
                   "kl_weight": kl_weight, "codebook_weight": codebook_weight}
        negative = [name for name, weight in weights.items() if weight < 0]
        if negative:
            raise ConfigError(f"{negative[0]} of the reconstruction loss must not be negative")
        if scales < 1:
            raise ConfigError(f"scales of the reconstruction loss must be at least 1, got {scales}")
        self.l1_weight, self.l2_weight, self.gradient_weight = l1_weight, l2_weight, gradient_weight
        self.scales, self.kl_weight, self.codebook_weight = scales, kl_weight, codebook_weight

    def forward(
        self,
        inputs: torch.Tensor,
        reconstructions: torch.Tensor,
        regulariser: DiagonalGaussianDistribution | torch.Tensor,
        optimizer_idx: int = 0,
        global_step: int = 0,
        last_layer: torch.Tensor | None = None,
        split: str = "train",
        predicted_indices: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Log]:
        """Pictures [B,3,H,W] and their reconstructions -> scalar loss and numbers to log."""
        difference = (reconstructions - inputs).float()
        mse = difference.square().mean()
        distance = self.distance(difference)
        for _ in range(1, self.scales):
            difference = F.avg_pool2d(difference, 2)
            distance = distance + self.distance(difference)
        distance = distance / self.scales
        if isinstance(regulariser, torch.Tensor):
            name, extra = "quant_loss", regulariser.mean()
            loss = distance + self.codebook_weight * extra
        else:
            name, extra = "kl_loss", regulariser.kl().mean() / regulariser.mean[0].numel()
            loss = distance + self.kl_weight * extra
        # Pictures span 2, and 2 squared is 4. A library's would take the difference again, and infinity where it is 0.
        psnr = 10 * torch.log10(4.0 / mse.clamp(min=1e-12))
        return loss, with_split(split, {"total_loss": loss, "rec_loss": distance, "psnr": psnr, name: extra})

    def distance(self, difference: torch.Tensor) -> torch.Tensor:
        """The weighted distance at one scale, a number, for a difference [B, C, H, W]."""
        total = self.l1_weight * difference.abs().mean() + self.l2_weight * difference.square().mean()
        if self.gradient_weight:
            slopes = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
            total = total + self.gradient_weight * slopes
        return total
