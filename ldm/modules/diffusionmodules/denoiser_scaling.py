"""How a network is preconditioned at a noise level sigma, of latents x = x0 + sigma e.

D(x, sigma) = c_out net(c_in x, c_noise) + c_skip x is what it takes for the clean latent (Karras et al. 2022, table 1
and equation 7).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from ldm.util import ConfigError


class Factors(NamedTuple):
    """c_skip, c_out, c_in and c_noise, each shaped like the sigma that they are for."""

    skip: Tensor
    out: Tensor
    enter: Tensor
    noise: Tensor


class Scaling(Protocol):
    """The factors of a sigma; ``predicts`` says in one word what the network is asked for."""

    predicts: str

    def __call__(self, sigma: Tensor) -> Factors: ...


class EpsScaling:
    """A network that predicts the noise, of inputs with variance 1."""

    predicts = "eps"

    def __call__(self, sigma: Tensor) -> Factors:
        return Factors(sigma.new_ones(sigma.shape), -sigma, (sigma**2 + 1).rsqrt(), sigma)


class VScaling:
    """A network that predicts v, signal e - noise x0 in the scale of Salimans and Ho 2022."""

    predicts = "v"

    def __call__(self, sigma: Tensor) -> Factors:
        variance = sigma**2 + 1
        return Factors(1 / variance, -sigma * variance.rsqrt(), variance.rsqrt(), sigma)


class VScalingWithEDMcNoise(VScaling):
    """A network that predicts v and is told ln(sigma) / 4."""

    def __call__(self, sigma: Tensor) -> Factors:
        return super().__call__(sigma)._replace(noise=0.25 * sigma.log())


class EDMScaling:
    """The preconditioning of Karras et al. 2022, for clean latents of deviation ``sigma_data``."""

    predicts = "edm"

    def __init__(self, sigma_data: float = 0.5) -> None:
        """Raises ConfigError: ``sigma_data`` is not above 0."""
        if not sigma_data > 0:
            raise ConfigError(f"sigma_data is a deviation, above 0, got {sigma_data}")
        self.sigma_data = sigma_data

    def __call__(self, sigma: Tensor) -> Factors:
        data = self.sigma_data
        variance = sigma**2 + data**2
        return Factors(data**2 / variance, sigma * data * variance.rsqrt(), variance.rsqrt(), 0.25 * sigma.log())
