"""Inception v3 (Szegedy et al. 2016) up to its 2048 pooled features: the art one of ArtFID, and that of 2015 of FID.

The two differ in how some branches pool, and in what they are fed: the art network takes [0, 1] at any size, that of
2015 a picture of 299x299, made by TensorFlow's bilinear rule, as (x - 128) / 128.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE_2015 = 299
FEATURES = 2048

Pool = Callable[[Tensor], Tensor]
_keep_size = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1)
average: Pool = partial(_keep_size, count_include_pad=True)
average_2015: Pool = partial(_keep_size, count_include_pad=False)
largest: Pool = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
shrink: Pool = partial(F.max_pool2d, kernel_size=3, stride=2)


class Conv(nn.Module):
    """Convolution, batch normalisation, rectifier."""

    def __init__(
        self,
        width: int,
        channels: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Branches(nn.Module):
    """Ways that a picture takes side by side; a way is a list of convolutions, or several where it parts at its end.

    ``ways`` maps the beginning of the released names to the convolutions of that way.
    """

    def __init__(self, ways: dict[str, list[Conv]], pool: Pool, shrinks: bool = False) -> None:
        super().__init__()
        self.ways = {way: [way + end for end in self.endings(way, len(convs))] for way, convs in ways.items()}
        for way, convs in ways.items():
            for name, conv in zip(self.ways[way], convs, strict=True):
                self.add_module(name, conv)
        self.pool = pool
        self.shrinks = shrinks

    def endings(self, way: str, count: int) -> list[str]:
        """How the convolutions of a way are numbered in the released files."""
        return [""] if count == 1 else [f"_{number}" for number in range(1, count + 1)]

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> what all ways found, side by side."""
        found = [self.run(way, self.pool(x) if way == "branch_pool" else x) for way in self.ways]
        return torch.cat([*found, self.pool(x)] if self.shrinks else found, dim=1)

    def run(self, way: str, x: Tensor) -> Tensor:
        for name in self.ways[way]:
            x = self.get_submodule(name)(x)
        return x


class Parting(Branches):
    """The last blocks: their 3x3 ways end in a 1x3 and a 3x1 convolution side by side."""

    def endings(self, way: str, count: int) -> list[str]:
        if not way.startswith("branch3x3"):
            return super().endings(way, count)
        return [*(f"_{number}" for number in range(1, count - 1)), f"_{count - 1}a", f"_{count - 1}b"]

    def run(self, way: str, x: Tensor) -> Tensor:
        if not way.startswith("branch3x3"):
            return super().run(way, x)
        *first, flat, upright = (self.get_submodule(name) for name in self.ways[way])
        for conv in first:
            x = conv(x)
        return torch.cat([flat(x), upright(x)], dim=1)


def block_a(width: int, pooled: int, pool: Pool) -> Branches:
    return Branches(
        {
            "branch1x1": [Conv(width, 64, 1)],
            "branch5x5": [Conv(width, 48, 1), Conv(48, 64, 5, padding=2)],
            "branch3x3dbl": [Conv(width, 64, 1), Conv(64, 96, 3, padding=1), Conv(96, 96, 3, padding=1)],
            "branch_pool": [Conv(width, pooled, 1)],
        },
        pool,
    )


def block_b(width: int) -> Branches:
    return Branches(
        {
            "branch3x3": [Conv(width, 384, 3, 2)],
            "branch3x3dbl": [Conv(width, 64, 1), Conv(64, 96, 3, padding=1), Conv(96, 96, 3, 2)],
        },
        shrink,
        shrinks=True,
    )


def block_c(narrow: int, pool: Pool) -> Branches:
    flat, upright = ((1, 7), (0, 3)), ((7, 1), (3, 0))

    def conv(width: int, channels: int, shape: tuple[tuple[int, int], tuple[int, int]]) -> Conv:
        return Conv(width, channels, shape[0], padding=shape[1])

    return Branches(
        {
            "branch1x1": [Conv(768, 192, 1)],
            "branch7x7": [Conv(768, narrow, 1), conv(narrow, narrow, flat), conv(narrow, 192, upright)],
            "branch7x7dbl": [
                Conv(768, narrow, 1), conv(narrow, narrow, upright), conv(narrow, narrow, flat),
                conv(narrow, narrow, upright), conv(narrow, 192, flat),
            ],
            "branch_pool": [Conv(768, 192, 1)],
        },
        pool,
    )  # fmt: skip


def block_d() -> Branches:
    return Branches(
        {
            "branch3x3": [Conv(768, 192, 1), Conv(192, 320, 3, 2)],
            "branch7x7x3": [
                Conv(768, 192, 1), Conv(192, 192, (1, 7), padding=(0, 3)), Conv(192, 192, (7, 1), padding=(3, 0)),
                Conv(192, 192, 3, 2),
            ],
        },
        shrink,
        shrinks=True,
    )  # fmt: skip


def block_e(width: int, pool: Pool) -> Branches:
    def ends() -> list[Conv]:
        return [Conv(384, 384, (1, 3), padding=(0, 1)), Conv(384, 384, (3, 1), padding=(1, 0))]

    return Parting(
        {
            "branch1x1": [Conv(width, 320, 1)],
            "branch3x3": [Conv(width, 384, 1), *ends()],
            "branch3x3dbl": [Conv(width, 448, 1), Conv(448, 384, 3, padding=1), *ends()],
            "branch_pool": [Conv(width, 192, 1)],
        },
        pool,
    )


class Inception(nn.Module):
    """Pictures -> features [B, 2048].

    Args:
        of_2015: pool as the network does that FID is defined with.
    """

    def __init__(self, of_2015: bool = False) -> None:
        super().__init__()
        pool = average_2015 if of_2015 else average
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b = block_a(192, 32, pool)
        self.Mixed_5c = block_a(256, 64, pool)
        self.Mixed_5d = block_a(288, 64, pool)
        self.Mixed_6a = block_b(288)
        self.Mixed_6b = block_c(128, pool)
        self.Mixed_6c = block_c(160, pool)
        self.Mixed_6d = block_c(160, pool)
        self.Mixed_6e = block_c(192, pool)
        self.Mixed_7a = block_d()
        self.Mixed_7b = block_e(1280, pool)
        self.Mixed_7c = block_e(2048, largest if of_2015 else pool)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(shrink(x)))
        x = shrink(x)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean(dim=(2, 3))


def enter_2015(pictures: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] as the network of 2015 takes them.

    TensorFlow's rule of that time put the corner of a pixel, not its middle, at whole numbers: output pixel i is read
    at i times the ratio of the sides. Pictures become 8-bit numbers first, as they are in files.
    """
    x = (pictures * 255).round()
    rows, columns = (_places(side).to(x) for side in x.shape[-2:])
    x = _between(x, rows, dim=2)
    return (_between(x, columns, dim=3) - 128) / 128


def _places(side: int) -> Tensor:
    return torch.arange(SIDE_2015) * (side / SIDE_2015)


def _between(x: Tensor, places: Tensor, dim: int) -> Tensor:
    """Linear interpolation along one axis at places that are no whole numbers; the last pixel goes on beyond."""
    low = places.floor().long()
    high = (low + 1).clamp(max=x.shape[dim] - 1)
    share = (places - low).view([-1 if axis == dim else 1 for axis in range(x.dim())])
    return x.index_select(dim, low) * (1 - share) + x.index_select(dim, high) * share
