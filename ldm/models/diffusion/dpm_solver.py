"""DPM-Solver++ under the name that old scripts import; see ``ldm.models.diffusion.samplers.dpm_solver``."""

from ldm.models.diffusion.samplers.dpm_solver import DPMSolverSampler

__all__ = ["DPMSolverSampler"]
