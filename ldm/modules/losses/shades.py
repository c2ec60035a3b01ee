"""How far apart the shades of pixels are to an eye, in a form with slopes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHROMA = 0.045  # CIE94: how much less a difference of two strong colours counts, a unit of chroma
BLACK = 1e-4  # of the brightness: beneath it slopes of CIELAB have no limit


def lab(pictures: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] about [-1, 1] in CIELAB, [B, 3, H, W]; L from 0 to 100."""
    from kornia.color import rgb_to_lab  # slow to import

    return rgb_to_lab(((pictures.float() + 1) / 2).clamp(BLACK, 1))


def seen_as(true: Tensor) -> Tensor:
    """What differences of L, a and b from shades [B, 3, H, W] count, likewise: CIE94 without its hue."""
    chroma = true[:, 1:].norm(dim=1, keepdim=True)
    weight = 1 / (1 + CHROMA * chroma)
    return torch.cat([torch.ones_like(chroma), weight, weight], dim=1)


class SquaredShades(nn.Module):
    """How far apart the shades of pixels are, squared; ``lightning.compile`` makes one step of its many small ones."""

    def forward(self, pictures: Tensor, true: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [-1, 1] and true ones -> [B, H, W], in units of CIELAB."""
        wanted = lab(true)
        return ((lab(pictures) - wanted) * seen_as(wanted)).square().sum(1)
