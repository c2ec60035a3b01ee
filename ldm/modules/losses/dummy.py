"""The loss of an autoencoder that is only used, never trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ldm.util import ConfigError


class DummyLoss(nn.Module):
    """Stands in configurations for inference; training with it is an error that says so."""

    def forward(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Raises ConfigError, always."""
        raise ConfigError("the autoencoder's lossconfig is DummyLoss, which cannot train: "
                          "name ldm.modules.losses.ReconstructionLoss or LPIPSWithDiscriminator")
