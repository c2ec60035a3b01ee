"""PLMS under the name that old scripts import; it is defined in ``ldm.models.diffusion.samplers.plms``."""

from ldm.models.diffusion.samplers.plms import PLMSSampler

__all__ = ["PLMSSampler"]
