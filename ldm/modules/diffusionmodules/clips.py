"""Films in a batch: its rows are frames of clips, (clip, frame) with the frame fastest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ldm.util import ConfigError

STRATEGIES = ("fixed", "learned", "learned_with_images")


@dataclass(frozen=True)
class Clips:
    """How many frames a clip has, and which of them are pictures on their own.

    Attributes:
        frames: T; a batch of rows [clips T, ...] holds whole clips.
        stills: [clips, T], not 0 where a frame is a still picture that no neighbour says anything about; None: nowhere.
    """

    frames: int
    stills: Tensor | None = None

    def apart(self, rows: Tensor) -> Tensor:
        """[clips T, ...] -> [clips, T, ...]."""
        return rows.unflatten(0, (-1, self.frames))

    def volumes(self, rows: Tensor) -> Tensor:
        """Feature maps [clips T, C, H, W] as a volume a clip, [clips, C, T, H, W]; no copy."""
        return self.apart(rows).transpose(1, 2)

    def rows(self, volumes: Tensor) -> Tensor:
        """The way back: [clips, C, T, H, W] -> [clips T, C, H, W]."""
        return volumes.transpose(1, 2).flatten(0, 1)


class FrameMixer(nn.Module):
    """a spatial + (1 - a) temporal with one learned a for the layer (Blattmann et al. 2023, section 3.1).

    Args:
        strategy: "fixed", where a is ``factor`` itself; "learned", where it is the sigmoid of a parameter that starts
            there; "learned_with_images", likewise, but 1 for frames that are pictures on their own.
        factor: where it starts.

    Raises:
        ConfigError: an unknown strategy.
    """

    mix_factor: Tensor

    def __init__(self, strategy: str = "learned_with_images", factor: float = 0.5) -> None:
        super().__init__()
        if strategy not in STRATEGIES:
            raise ConfigError(f"merge_strategy is '{strategy}'; it must be one of: {', '.join(STRATEGIES)}")
        self.strategy = strategy
        start = torch.tensor([float(factor)])
        if strategy == "fixed":
            self.register_buffer("mix_factor", start)
        else:
            self.mix_factor = nn.Parameter(start)

    def forward(self, spatial: Tensor, temporal: Tensor, clips: Clips) -> Tensor:
        """Both [clips T, ...] -> the same shape."""
        share = self.mix_factor if self.strategy == "fixed" else self.mix_factor.sigmoid()
        share = share.to(spatial.dtype)
        if self.strategy == "learned_with_images" and clips.stills is not None:
            still = clips.stills.bool().reshape(-1, *[1] * (spatial.dim() - 1))
            share = torch.where(still, torch.ones_like(share), share)
        return torch.lerp(temporal.to(spatial.dtype), spatial, share)
