"""A small network that puts right what a UNet regularly gets wrong in pictures of its own.

A UNet that is asked about a finished latent, noised a little, holds in its blocks what it takes for what is there and
where. Its last layer reads from that what it expects; another network, trained on nothing but the errors of what is
expected, reads from the same how far off it is, shades above all. It looks at patches of two by two cells, each by
itself: the blocks have looked around already.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.checkpoint import load_weights

PATCH = 2  # cells of a latent along each side of what the network looks at
FURTHEST = 6.0  # deviations: blocks hold now and then what is far from all that was trained on


@contextlib.contextmanager
def holding(unet: nn.Module) -> Iterator[list[Tensor]]:
    """Within the block the list has what the UNet's middle and decoder blocks held in its last call, [B, C, h, w] each.

    A block that enlarges is asked before it does.
    """
    held: dict[int, Tensor] = {}
    seen: list[Tensor] = []

    def keep(number: int, output: Tensor) -> None:
        held[number] = output
        if number == len(blocks) - 1:
            seen[:] = [held.pop(one) for one in range(len(blocks))]

    blocks = [unet.get_submodule("middle_block"), *unet.get_submodule("output_blocks").children()]
    with contextlib.ExitStack() as hooks:
        for number, block in enumerate(blocks):
            layers = [layer for layer in block.children() if "Upsample" not in type(layer).__name__]
            handle = layers[-1].register_forward_hook(lambda _, __, output, number=number: keep(number, output))
            hooks.callback(handle.remove)
        yield seen


def patches_of(x: Tensor) -> Tensor:
    """A latent [B, C, h, w] as its patches, [B, h/2 * w/2, 4 C]."""
    return F.pixel_unshuffle(x, PATCH).flatten(2).transpose(1, 2)


def from_patches(patches: Tensor, height: int, width: int) -> Tensor:
    """Patches [B, h/2 * w/2, 4 C] as the latent [B, C, h, w]."""
    return F.pixel_shuffle(patches.transpose(1, 2).unflatten(2, (height // PATCH, width // PATCH)), PATCH)


def seen_in_patches(x0: Tensor, expected: Tensor, held: Sequence[Tensor]) -> Tensor:
    """All that is known about each patch of a latent, [B, h/2 * w/2, D].

    Args:
        x0: the latent that was asked about, [B, C, h, w].
        expected: what the UNet expects it to be, likewise.
        held: what its blocks held, at any resolutions; see ``holding``.
    """
    height, width = x0.shape[-2:]
    seen = []
    for one in (x0, expected, *held):
        if one.shape[-2] > height // PATCH:
            seen.append(patches_of(one))
        else:
            seen.append(F.interpolate(one, (height // PATCH, width // PATCH)).flatten(2).transpose(1, 2))
    return torch.cat([one.float() for one in seen], dim=-1)


class Corrector(nn.Module):
    """Layers over all that is known about a patch; the last one, which says the error, begins at zero.

    Args:
        inputs: D of ``seen_in_patches``.
        channels: C of the latents.
        width: of the layers.
        depth: how many there are behind the first one, each added to what comes into it.
        ckpt_path: weights; none leaves them random.
    """

    def __init__(
        self, inputs: int, channels: int, width: int = 1024, depth: int = 1,
        ckpt_path: str | os.PathLike[str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.channels = channels
        self.norm = nn.BatchNorm1d(inputs, momentum=0.01, affine=False)
        self.first = nn.Sequential(nn.Linear(inputs, width), nn.GELU())
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU()) for _ in range(depth)
        )
        self.last = nn.Linear(width, PATCH**2 * channels)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)
        if ckpt_path is not None:
            load_weights(self, ckpt_path, strict=True)

    def forward(self, seen: Tensor) -> Tensor:
        """How far what is expected is off in each patch: [..., D] -> [..., 4 C]."""
        h = self.first(self.norm(seen.flatten(0, -2)).clamp(-FURTHEST, FURTHEST))
        for layer in self.layers:
            h = h + layer(h)
        return self.last(h).unflatten(0, seen.shape[:-1])

    def corrected(self, x0: Tensor, expected: Tensor, held: Sequence[Tensor]) -> Tensor:
        """What is expected without what is wrong with it, [B, C, h, w]; the arguments are ``seen_in_patches``'s."""
        error = self(seen_in_patches(x0, expected, held).to(self.last.weight.dtype))
        return expected - from_patches(error, *x0.shape[-2:])
