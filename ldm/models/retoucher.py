"""Training a retoucher: pixels of pictures as a model draws them, put right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ldm.models.patch_training import PatchTraining, seen
from ldm.modules.losses.shades import SquaredShades
from ldm.modules.retoucher import AROUND, window
from ldm.util import UserError, instantiate_from_config


class RetoucherTraining(PatchTraining):
    """A ``Retoucher`` learns from patches as they are drawn and as they are, in units of what one sees.

    Args:
        retoucher_config: node of a ``Retoucher``.
        scheduler_config, monitor: as ``PatchTraining``'s.
    """

    before = "unretouched"

    def __init__(
        self,
        retoucher_config: Mapping[str, Any],
        scheduler_config: Mapping[str, Any] | None = None,
        monitor: str | None = None,
    ) -> None:
        super().__init__(scheduler_config, monitor)
        self.retoucher = instantiate_from_config(retoucher_config)
        self.distance = SquaredShades()

    def shades(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """How far off a batch's pixels are, retouched and not: means under a patch's window, in units of CIELAB.

        Args:
            batch: ``around`` [..., 16 C], ``drawn`` and ``true`` [..., 3 side^2] in bytes.

        Raises:
            UserError: the patches of the data are not as large as the retoucher's.
        """
        side, channels = self.retoucher.side, self.retoucher.channels
        if batch["drawn"].shape[-1] != 3 * side**2 or batch["around"].shape[-1] != AROUND**2 * channels:
            raise UserError(
                f"the data's patches are not of {side} pixels a side and of latents with {channels} channels"
            )
        drawn, true = (batch[name].float() / 127.5 - 1 for name in ("drawn", "true"))
        retouched = drawn + self.retoucher(batch["around"].float(), drawn).float()
        true, *found = (one.reshape(-1, 3, side, side) for one in (true, retouched, drawn))
        counts = window(side, side, side).to(drawn)
        after, before = (seen(self.distance(one, true), counts) for one in found)
        return after, before

    def next_command(self, folder: str) -> str:
        """What makes the file that a model's YAML names."""
        return f"python -m scripts.export_corrector {folder}/checkpoints/last.ckpt MODEL/retoucher.safetensors"
