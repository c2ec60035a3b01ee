"""A preconditioned network: what it takes for the clean latent at a noise level sigma (Karras et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ldm.modules.diffusionmodules.denoiser_scaling import Factors, Scaling
from ldm.util import instantiate_from_config


class Denoiser(nn.Module):
    """D(x, sigma) = c_out net(c_in x, c_noise) + c_skip x, for any sigma.

    Args:
        scaling_config: of ``ldm.modules.diffusionmodules.denoiser_scaling``.
        weighting_config: the weight of the loss at a sigma, which YAMLs of 2023-07 have here and not at the loss.
    """

    def __init__(
        self, scaling_config: Mapping[str, Any], weighting_config: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.scaling: Scaling = instantiate_from_config(scaling_config)
        self.weighting = None if weighting_config is None else instantiate_from_config(weighting_config)

    def nearest(self, sigma: Tensor) -> Tensor:
        """The sigma that the network knows in place of another, of the same shape; here itself."""
        return sigma

    def told(self, c_noise: Tensor) -> Tensor:
        """What the network is told for c_noise, of the same shape."""
        return c_noise

    def factors(self, sigma: Tensor) -> Factors:
        """The factors of a sigma of any shape; the last is what the network is told."""
        factors = self.scaling(self.nearest(sigma))
        return factors._replace(noise=self.told(factors.noise))

    def forward(self, network: Callable[..., Tensor], x: Tensor, sigma: Tensor, cond: Any = None) -> Tensor:
        """The clean latents [B, C, h, w] that ``network(x, told, cond)`` sees in noisy ones at sigma [B]; float32."""
        factors = self.factors(sigma)
        skip, out, enter = (factor.reshape(-1, *[1] * (x.dim() - 1)) for factor in factors[:3])
        return network(enter * x, factors.noise, cond).float() * out + skip * x


class DiscreteDenoiser(Denoiser):
    """A network that knows a table of sigmas, and is told which entry it is.

    Args:
        num_idx: entries of the table.
        discretization_config: its sigmas.
        do_append_zero: whether 0 is one of them.
        quantize_c_noise: tell the entry nearest to c_noise; otherwise c_noise itself.
        flip: whether the table ascends.
    """

    sigmas: Tensor

    def __init__(
        self,
        scaling_config: Mapping[str, Any],
        num_idx: int,
        discretization_config: Mapping[str, Any],
        do_append_zero: bool = False,
        quantize_c_noise: bool = True,
        flip: bool = True,
        weighting_config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(scaling_config, weighting_config)
        self.discretization = instantiate_from_config(discretization_config)
        self.quantize_c_noise = quantize_c_noise
        self.num_idx = num_idx
        self.register_buffer("sigmas", self.discretization(num_idx, do_append_zero=do_append_zero, flip=flip))

    def index_of(self, sigma: Tensor) -> Tensor:
        """The nearest entry of the table, long, of the shape of ``sigma``."""
        table = self.sigmas.to(sigma.device, sigma.dtype)
        return (sigma.reshape(-1, 1) - table).abs().argmin(dim=1).reshape(sigma.shape)

    def sigma_at(self, index: Tensor) -> Tensor:
        """The sigmas of some entries."""
        return self.sigmas[index.to(self.sigmas.device)].to(index.device)

    def nearest(self, sigma: Tensor) -> Tensor:
        return self.sigma_at(self.index_of(sigma)).to(sigma.dtype)

    def told(self, c_noise: Tensor) -> Tensor:
        return self.index_of(c_noise) if self.quantize_c_noise else c_noise

    def possibly_quantize_sigma(self, sigma: Tensor) -> Tensor:
        """``nearest`` under the name that older code calls."""
        return self.nearest(sigma)

    def possibly_quantize_c_noise(self, c_noise: Tensor) -> Tensor:
        """``told`` under the name that older code calls."""
        return self.told(c_noise)
