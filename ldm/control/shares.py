"""Masks at any resolution, and the share of each source that they ask for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.util import UserError

Grid = tuple[int, int]


def check_share(what: str, value: float) -> float:
    """``value`` itself.

    Raises:
        UserError: it does not lie between 0 and 1; ``what`` says what it is.
    """
    if not 0 <= value <= 1:
        raise UserError(f"{what} must lie between 0 and 1, got {value}")
    return value


def check_masks(masks: Tensor, styles: int) -> Tensor:
    """Masks [styles, H, W] or [rows, styles, H, W] as [rows or 1, styles, H, W] float32.

    Raises:
        UserError: another shape or number, values outside [0, 1], NaN, or nothing masked at all.
    """
    if masks.dim() not in (3, 4) or masks.shape[-3] != styles:
        raise UserError(f"{styles} style(s) need masks of the shape ({styles}, H, W), got {tuple(masks.shape)}")
    masks = masks.float() if masks.dim() == 4 else masks.float()[None]
    if not bool(((masks >= 0) & (masks <= 1)).all()):
        raise UserError("mask values must lie between 0 and 1, without NaN")
    if not bool(masks.any()):
        raise UserError("the masks are empty: no pixel of any of them is above 0")
    return masks


def resized(masks: Tensor, grid: Grid) -> Tensor:
    """Masks [..., S, H, W] at another size, as the means of the areas that fall together."""
    return masks if masks.shape[-2:] == grid else F.interpolate(masks, size=grid, mode="area")


def normalised(masks: Tensor) -> tuple[Tensor, Tensor]:
    """(w, coverage) of raw masks [b, S, ...]: w sums to 1 over S or is 0; coverage [b, ...] = min(1, sum)."""
    total = masks.sum(dim=1)
    return torch.where(total[:, None] > 0, masks / total[:, None], torch.zeros_like(masks)), total.clamp(max=1)


class ShareMap:
    """The share of each source for each position; source 0 is the content, the others are the styles."""

    def __init__(self, masks: Tensor | None, styles: int, pi: float) -> None:
        """``masks`` None: the styles share every position equally.

        Raises:
            UserError: no style, masks that do not fit, or ``pi`` outside [0, 1].
        """
        if styles < 1:
            raise UserError("attention needs at least one style to mix with the content")
        self.pi = check_share("pi, the styles' share inside their masks,", pi)
        self.masks = torch.full((1, styles, 1, 1), 1 / styles) if masks is None else check_masks(masks, styles)
        self._kept: dict[tuple[str, Grid, torch.device], Tensor] = {}

    def shares(self, grid: Grid, device: torch.device) -> Tensor:
        """pi_c, pi_1, ... [b, sources, n], which sum to 1."""
        return self._at("shares", grid, device)

    def masks_beside_content(self, grid: Grid, device: torch.device) -> Tensor:
        """1 for the content and the normalised masks w_j, [b, sources, n]."""
        return self._at("masks", grid, device)

    def queries(self, source: int, grid: Grid, device: torch.device) -> Tensor | slice:
        """The positions at which a source has any share: their indices [k], or a slice that is all of them."""
        key = (f"queries {source}", grid, device)
        if key not in self._kept:
            self._kept[key] = self.shares(grid, device)[:, source].amax(dim=0).nonzero().flatten()
        found = self._kept[key]
        return slice(None) if len(found) == grid[0] * grid[1] else found

    def _at(self, what: str, grid: Grid, device: torch.device) -> Tensor:
        key = (what, grid, device)
        if key not in self._kept:
            w, coverage = normalised(resized(self.masks, grid).flatten(2))
            styles = w if what == "masks" else self.pi * coverage[:, None] * w
            content = torch.ones_like(coverage) if what == "masks" else 1 - styles.sum(dim=1)
            self._kept[key] = torch.cat([content.clamp(min=0)[:, None], styles], dim=1).to(device)
        return self._kept[key]
