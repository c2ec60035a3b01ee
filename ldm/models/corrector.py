"""Training a corrector: what a UNet expects of its own drawings, without what it regularly gets wrong there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldm.models.patch_training import PatchTraining, seen
from ldm.util import instantiate_from_config


class CorrectorTraining(PatchTraining):
    """A ``Corrector`` learns from patches and the errors in them, in units of what one sees of an error.

    Args:
        corrector_config: node of a ``Corrector``.
        scheduler_config, monitor: as ``PatchTraining``'s.
    """

    before = "uncorrected"

    def __init__(
        self,
        corrector_config: Mapping[str, Any],
        scheduler_config: Mapping[str, Any] | None = None,
        monitor: str | None = None,
    ) -> None:
        super().__init__(scheduler_config, monitor)
        self.corrector = instantiate_from_config(corrector_config)

    def shades(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """How far off the shades of a batch's cells are, with the correction and without: means, in units of CIELAB.

        Args:
            batch: ``seen`` [..., D], ``error`` [..., 4 C], ``metric`` [..., C, C].
        """
        metric = batch["metric"].reshape(-1, *batch["metric"].shape[-2:])[0]
        scale = torch.linalg.cholesky(metric.double()).to(batch["error"])
        left = batch["error"] - self.corrector(batch["seen"]).float()
        after, before = (
            seen((one.unflatten(-1, (len(scale), -1)).transpose(-1, -2) @ scale).square().sum(-1))
            for one in (left, batch["error"])
        )
        return after, before

    def next_command(self, folder: str) -> str:
        """What makes the file that a model's YAML names."""
        return f"python -m scripts.export_corrector {folder}/checkpoints/last.ckpt MODEL/corrector.safetensors"
