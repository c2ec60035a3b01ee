"""Which noise levels sigma training draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldm.util import instantiate_from_config


class EDMSampling:
    """exp(p_mean + p_std n) with standard normal n (Karras et al. 2022, table 1)."""

    def __init__(self, p_mean: float = -1.2, p_std: float = 1.2) -> None:
        self.p_mean, self.p_std = p_mean, p_std

    def __call__(self, n_samples: int, rand: Tensor | None = None) -> Tensor:
        """Sigmas [n_samples] on the CPU; ``rand`` in place of n, which is drawn all the same."""
        drawn = torch.randn(n_samples)
        return (self.p_mean + self.p_std * (drawn if rand is None else rand)).exp()


class DiscreteSampling:
    """An entry of a table of sigmas, each as often.

    Args:
        discretization_config: the table's sigmas.
        num_idx: how many they are.
        num_idx_start: the first entry that is drawn.
        do_append_zero: whether 0 is one of them.
        flip: whether the table ascends.
    """

    def __init__(
        self,
        discretization_config: Mapping[str, Any],
        num_idx: int,
        num_idx_start: int = 0,
        do_append_zero: bool = False,
        flip: bool = True,
    ) -> None:
        self.num_idx, self.first = num_idx, num_idx_start
        discretization = instantiate_from_config(discretization_config)
        self.sigmas = discretization(num_idx, do_append_zero=do_append_zero, flip=flip)

    def __call__(self, n_samples: int, rand: Tensor | None = None) -> Tensor:
        """Sigmas [n_samples] on the CPU; ``rand`` are entries [n_samples] in place of the drawn ones."""
        drawn = torch.randint(self.first, self.num_idx, (n_samples,))
        return self.sigmas[drawn if rand is None else rand.cpu()]
