"""The perceptual distance LPIPS (Zhang et al., CVPR 2018), from a package that not everybody needs."""

from __future__ import annotations

import importlib

import torch
from torch import nn

from ldm.util import MissingPartError


class PerceptualDistance(nn.Module):
    """LPIPS on VGG16 features, loaded when it is first needed.

    A model for inference is built without the package, and the weights of VGG16 are in no checkpoint written here.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: list[nn.Module] = []  # a list hides it from state_dict and parameters

    def prepare(self) -> None:
        """Load the network now rather than at the first loss.

        Raises:
            MissingPartError: the package 'lpips' or its weights are not there.
        """
        if self._held:
            return
        try:
            network = importlib.import_module("lpips").LPIPS(net="vgg", verbose=False)
        except (ImportError, OSError) as error:
            raise MissingPartError(
                "the perceptual loss needs the package 'lpips', which brings torchvision and downloads VGG16 once "
                f"('pip install lpips'); install it, or set perceptual_weight: 0 in lossconfig ({error})"
            ) from error
        self._held.append(network.eval().requires_grad_(False))

    def forward(self, inputs: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        """[B,3,H,W] twice, in [-1,1] -> distance [B,1,1,1].

        Raises:
            MissingPartError: see ``prepare``.
        """
        self.prepare()
        network = self._held[0].to(inputs.device)
        return network(inputs.contiguous(), reconstructions.contiguous())
