"""DDIM under the name that old scripts import; it is defined in ``ldm.models.diffusion.samplers.ddim``."""

from ldm.models.diffusion.samplers.ddim import DDIMSampler

__all__ = ["DDIMSampler"]
