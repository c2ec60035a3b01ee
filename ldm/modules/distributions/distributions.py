"""The Gaussian that a KL autoencoder's encoder describes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

LOGVAR_RANGE = (-30.0, 20.0)


class DiagonalGaussianDistribution:
    """A normal distribution with a mean and a log-variance for every element, in float32."""

    def __init__(self, parameters: torch.Tensor, deterministic: bool = False) -> None:
        """``parameters`` [B,2C,h,w]: means, then log-variances (clamped to [-30, 20]). Deterministic: no deviation."""
        self.parameters = parameters.float()
        self.mean, logvar = self.parameters.chunk(2, dim=1)
        self.logvar = logvar.clamp(*LOGVAR_RANGE)
        self.deterministic = deterministic
        spread = torch.zeros_like if deterministic else torch.exp
        self.std = spread(0.5 * self.logvar)
        self.var = spread(self.logvar)

    def sample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """[B,C,h,w]; the noise comes from the CPU, so that a seed means the same on every device."""
        noise = torch.randn(self.mean.shape, generator=generator, device="cpu")
        return self.mean + self.std * noise.to(self.mean.device)

    def mode(self) -> torch.Tensor:
        """The mean, [B,C,h,w]."""
        return self.mean

    def kl(self, other: DiagonalGaussianDistribution | None = None) -> torch.Tensor:
        """KL divergence from ``other`` (default: the standard normal), in nats for each of the batch: [B]."""
        if self.deterministic:
            return self.mean.new_zeros(len(self.mean))
        mean, logvar = (other.mean, other.logvar) if other is not None else (0.0, 0.0)
        return normal_kl(self.mean, self.logvar, mean, logvar).sum(dim=(1, 2, 3))

    def nll(self, sample: torch.Tensor, dims: Sequence[int] = (1, 2, 3)) -> torch.Tensor:
        """Negative log-likelihood of ``sample`` [B, C, h, w], in nats, summed over ``dims``: [B] as a rule."""
        if self.deterministic:
            return self.mean.new_zeros(len(self.mean))
        squared = (sample - self.mean) ** 2 / self.var
        return 0.5 * (math.log(2.0 * math.pi) + self.logvar + squared).sum(dim=tuple(dims))


def normal_kl(
    mean1: torch.Tensor | float,
    logvar1: torch.Tensor | float,
    mean2: torch.Tensor | float,
    logvar2: torch.Tensor | float,
) -> torch.Tensor:
    """KL(N(mean1, var1) || N(mean2, var2)) element by element, in nats; numbers and tensors broadcast.

    Raises:
        TypeError: none of the four is a tensor.
    """
    like = next((value for value in (mean1, logvar1, mean2, logvar2) if isinstance(value, torch.Tensor)), None)
    if like is None:
        raise TypeError("normal_kl needs at least one tensor among its arguments")
    m1, l1, m2, l2 = (torch.as_tensor(value, dtype=like.dtype, device=like.device)
                      for value in (mean1, logvar1, mean2, logvar2))
    return 0.5 * (l2 - l1 - 1.0 + (l1 - l2).exp() + (m1 - m2) ** 2 * (-l2).exp())
