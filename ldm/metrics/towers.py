"""The convolutions of AlexNet and VGG, under torchvision's names, as far as measures look into them.

torchvision itself brings the same few layers and a compiled part that has to fit torch's own build.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
POOL = 0  # in a plan, where VGG halves the picture
VGG16 = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512, 512)
VGG19 = (64, 64, POOL, 128, 128, POOL, 256)  # as far as relu3_1, which is all that is asked of it


class Tower(nn.Module):
    """Layers one after the other, and which of them are looked at.

    Attributes:
        taps: numbers of the layers whose outputs are returned.
    """

    def __init__(self, features: nn.Sequential, taps: Sequence[int]) -> None:
        super().__init__()
        self.features = features
        self.taps = tuple(taps)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised pictures [B, 3, H, W] -> the features [B, C, h, w] of each tap."""
        found = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                found.append(x)
        return found


def alexnet() -> Tower:
    """AlexNet (Krizhevsky 2014, arXiv 1404.5997); taps after its five rectifiers."""
    pool = nn.MaxPool2d(3, 2)
    layers = [
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), pool,
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), pool,
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    ]  # fmt: skip
    return Tower(nn.Sequential(*layers), (1, 4, 7, 9, 11))


def vgg(plan: Sequence[int], taps: Sequence[int]) -> Tower:
    """VGG (Simonyan & Zisserman 2015) by its plan: channels of each 3x3 convolution, ``POOL`` between them."""
    layers: list[nn.Module] = []
    width = 3
    for channels in plan:
        if channels == POOL:
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()]
            width = channels
    return Tower(nn.Sequential(*layers), taps)


def vgg16() -> Tower:
    """Taps relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3: those of LPIPS."""
    return vgg(VGG16, (3, 8, 15, 22, 29))


def vgg19() -> Tower:
    """One tap, relu3_1: that of CFSD."""
    return vgg(VGG19, (11,))


def normalised(pictures: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] as networks trained on ImageNet take them."""
    mean, std = (torch.tensor(values, device=pictures.device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pictures - mean) / std
