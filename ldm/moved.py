"""Pictures moved along a path: where what moves is in each frame of a film, and what the first frame shows there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def origins_of(path: Tensor, aspect: float = 1.0) -> Tensor:
    """The affine maps from places in each frame to where what moves had them in the first.

    With its middle m_t, its turn a_t and its growth g_t: x_0 = m_0 + R(-a_t) (x_t - m_t) / e^(g_t).

    Shapes: path [B, T, 4], of each frame the middle x and y in picture sides from the top left, how far it has turned
    clockwise in degrees, and the logarithm of its size -> [B, T, 2, 3].

    Args:
        aspect: a picture's width by its height.
    """
    since = path - path[:, :1]
    angle, scale = since[..., 2].deg2rad(), since[..., 3].neg().exp()
    cos, sin = angle.cos() * scale, angle.sin() * scale
    back = torch.stack([torch.stack([cos, sin / aspect], -1), torch.stack([-sin * aspect, cos], -1)], -2)
    from_middle = (back * path[..., None, :2]).sum(-1)
    return torch.cat([back, (path[:, :1, :2] - from_middle)[..., None]], dim=-1)


def moved_along(pictures: Tensor, path: Tensor) -> Tensor:
    """Pictures moved, all of each, as what moves in them does; the border's values come in from outside.

    Shapes: pictures [B, 3, H, W] in [-1, 1], path [B, T, 4] as in :func:`origins_of` -> [B, T, 3, H, W].
    """
    height, width = pictures.shape[-2:]
    maps = origins_of(path.to(pictures.device, torch.float32), width / height).flatten(0, 1)[:, None, None]
    y, x = ((torch.arange(side, device=pictures.device) + 0.5) / side for side in (height, width))
    places = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)  # [H, W, 2]
    # no matrix product, as in F.affine_grid, which mixed precision would round
    origins = (maps[..., :2] * places[..., None, :]).sum(-1) + maps[..., 2]
    frames = pictures.float().repeat_interleave(path.shape[1], dim=0)
    moved = F.grid_sample(frames, 2 * origins - 1, mode="bicubic", padding_mode="border", align_corners=False)
    return moved.clamp(-1, 1).unflatten(0, (len(pictures), -1))
