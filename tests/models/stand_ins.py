"""Stand-ins for the models around a UNet: small, deterministic, and easy to compute by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ldm.additions.base import Addition

CONTEXT = 8


class PooledFirstStage(nn.Module):
    """A latent is the picture at half its size, with the mean of its channels as the fourth."""

    def encode(self, x: Tensor) -> Tensor:
        z = F.avg_pool2d(x, 2)
        return torch.cat([z, z.mean(1, keepdim=True)], dim=1)

    def decode(self, z: Tensor) -> Tensor:
        return F.interpolate(z[:, :3], scale_factor=2)


class LetterEncoder(nn.Module):
    """A prompt as 3 vectors that depend on its length."""

    def encode(self, prompts: list[str]) -> Tensor:
        lengths = torch.tensor([float(len(prompt)) for prompt in prompts])
        return torch.sin(lengths[:, None, None] + torch.arange(3 * CONTEXT).reshape(1, 3, CONTEXT))


class Words(Addition, nn.Module):
    """One learned vector, as the EmbeddingManager of textual inversion would own it."""

    def __init__(self, embedder: nn.Module, placeholder_strings: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(CONTEXT))

    def learned(self) -> list[nn.Parameter]:
        return [self.vector]

    def save(self, path: Any, metadata: Any = None) -> None:
        raise NotImplementedError

    def attach(self, model: Any, scale: float = 1.0) -> Any:
        raise NotImplementedError

    def install(self, network: nn.Module) -> None:
        pass


class SlopeDepth(nn.Module):
    """Depth is a multiple of the first channel, and an offset."""

    def __init__(self, scale: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.scale, self.offset = scale, offset
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.offset + self.scale * x[:, :1]


class MeanEmbedder(nn.Module):
    """The embedding of a picture is the mean of its channels, and 1."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3))
        return torch.cat([mean, torch.ones_like(mean[:, :1])], dim=1)


class LevelAugmentation(nn.Module):
    """Adds nothing, and says so: the level's features are zero."""

    def forward(
        self, x: Tensor, noise_level: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return x, torch.zeros_like(x)
