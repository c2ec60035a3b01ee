"""How an encoder's output becomes a distribution over latents, as configurations of the ``sgm`` world name it."""

from __future__ import annotations

from torch import Tensor, nn

from ldm.modules.distributions.distributions import DiagonalGaussianDistribution


class DiagonalGaussianRegularizer(nn.Module):
    """Means and log-variances [B, 2C, h, w] -> a Gaussian over latents [B, C, h, w].

    Args:
        sample: false makes its every sample the mean.
    """

    def __init__(self, sample: bool = True) -> None:
        super().__init__()
        self.sample = sample

    def forward(self, moments: Tensor) -> DiagonalGaussianDistribution:
        return DiagonalGaussianDistribution(moments, deterministic=not self.sample)
