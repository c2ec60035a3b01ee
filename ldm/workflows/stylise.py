"""StyleID on tensors under its old path."""

from ldm.workflows.restyle.stylise import executed_timesteps, start_noise, stylise

__all__ = ["executed_timesteps", "start_noise", "stylise"]
