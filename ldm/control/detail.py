"""The content's fine structure, added where the network has drifted from the content."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.control.features import FeatureStore
from ldm.control.registry import register
from ldm.control.seam import Call
from ldm.control.sources import FeatureSource, Rows, for_rows
from ldm.util import UserError


def high_pass(h: Tensor, r: float) -> Tensor:
    """F^-1[(1 - exp(-D^2 / 2 r^2)) F[h]] of feature maps [b c h w], float32.

    D is the distance from the zero frequency, where 1 is the highest frequency of an axis.
    """
    height, width = h.shape[-2:]
    y = 2 * torch.fft.fftfreq(height, device=h.device)[:, None]
    x = 2 * torch.fft.rfftfreq(width, device=h.device)[None]
    kept = 1 - torch.exp(-(x**2 + y**2) / (2 * r**2))
    return torch.fft.irfft2(kept * torch.fft.rfft2(h.float()), s=(height, width))


@register("detail")
class Detail:
    """phi + (1 - cos(phi, phi_c)) F^-1[(1 - exp(-D^2 / 2 r^2)) F[phi_c]] for a residual branch phi.

    The cosine is that of the channel vectors at each place, phi_c the same branch of the content.
    """

    def __init__(
        self,
        source: FeatureSource,  # "residual" of the content
        r: float = 0.3,  # of the high-pass filter, in units of the highest frequency
        timesteps: Collection[float] | None = None,  # only at these
        rows: Rows | None = None,  # only for these rows of the batch
    ) -> None:
        """Raises UserError for an r that is not above 0."""
        if not 0 < r < float("inf"):
            raise UserError(f"detail r, the radius of the high-pass filter, must be a number above 0, got {r}")
        self.source, self.r, self.rows = source, r, rows
        self.timesteps = None if timesteps is None else frozenset(timesteps)

    def __call__(self, h: Tensor, *, call: Call) -> Tensor:
        if self.timesteps is not None and call.timestep not in self.timesteps:
            return call.inner(h)
        rows = self.rows or Rows(0, h.shape[0])
        own = rows.read(call, "residual", h)
        content = for_rows(self.source.read(call, "residual", h), len(rows), call.site)
        drift = 1 - F.cosine_similarity(own.float(), content.float(), dim=1)[:, None]
        changed = own + (drift * high_pass(content, self.r)).to(h.dtype)
        return call.inner(rows.write(h, changed))


@register("save_residual")
class SaveResidual:
    """Keep what residual blocks add to their skip, as "residual"; nothing changes."""

    def __init__(
        self, store: FeatureStore, timesteps: Collection[float] | None = None, rows: Rows | None = None
    ) -> None:
        """``timesteps``, ``rows``: only at these, and of the batch only these."""
        self.store, self.rows = store, rows
        self.timesteps = None if timesteps is None else frozenset(timesteps)

    def __call__(self, h: Tensor, *, call: Call) -> Tensor:
        if self.timesteps is None or call.timestep in self.timesteps:
            kept = h if self.rows is None else self.rows.read(call, "residual", h)
            self.store.put(call.site, call.index, "residual", kept, call.timestep)
        return call.inner(h)
