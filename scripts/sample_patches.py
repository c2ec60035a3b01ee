"""Keep pictures as a model draws them and as they truly are, for a retoucher to learn from patches of them.

    python -m scripts.sample_patches outputs/patches
    python -m scripts.sample_patches outputs/patches -n 4096 --seed 18
    python -m scripts.sample_patches outputs/patches --first 24576    # a second process beside the first

The scenes are ones that training may see, and latents of them as `scripts.sample_errors` has them, put right by the
model's corrector and decoded. Started again, it goes on where it stopped. `configs/tiny/retoucher.yaml` trains on the
folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ldm.arguments import Parser
from ldm.data.drawn_patches import drawing_record
from ldm.modules.corrector import PATCH, Corrector, from_patches
from ldm.pictures.images import as_bytes
from ldm.util import UserError, run_command
from ldm.workflows.correcting import correction_for
from ldm.workflows.record import fingerprint
from ldm.workflows.studio import Studio
from ldm.world.grounds import CELL
from ldm.world.paint import paint
from ldm.world.scene import Scene
from scripts.sample_errors import (
    LOST,
    Asking,
    add_sampling_flags,
    asked_as,
    asked_studio,
    sample_portions,
    world_of,
)
from scripts.sample_scenes import begin_folder


@dataclass
class Drawing(Asking):
    """A model that is asked about scenes and draws what it then takes them for."""

    corrector: Corrector

    @torch.no_grad()
    def drawn(self, scenes: list[Scene], seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Corrected latents [B, C, h, w], the pictures [B, 3, H, W] that they decode to; and ``lost``."""
        seen, _, lost = self.asked(scenes, seed)
        cells = self.size // CELL
        width = PATCH**2 * self.studio.model.channels
        latents = from_patches(seen[..., width : 2 * width] - self.corrector(seen), cells, cells)
        return latents, self.studio.model.decode_first_stage(latents), lost

    def kept(self, scenes: list[Scene], seed: int) -> NDArray[Any]:
        """A record of each scene that is not lost, [N]."""
        latents, drawn, lost = self.drawn(scenes, seed)
        true = torch.from_numpy(paint(scenes, self.size)).permute(0, 3, 1, 2)
        shown = lost.cpu() < LOST
        records = np.empty(int(shown.sum()), drawing_record(self.size, latents.shape[1], latents.shape[-1]))
        fields = {"drawn": as_bytes(drawn), "true": as_bytes(true), "latent": latents.half(), "near": self.near(scenes)}
        for name, values in fields.items():
            records[name] = values.cpu()[shown].numpy()
        return records


def sample_patches(studio: Studio, folder: Path, count: int, seed: int, first: int = 0) -> int:
    """Draw ``count`` scenes, portion by portion; how many of their pictures are in the folder.

    Raises:
        UserError: as ``begin_folder`` and ``sample_portions``, or the model has no corrector.
    """
    correction = correction_for(studio)
    if correction is None:
        raise UserError(f"what is retouched is corrected before, and '{studio.name}' has no corrector")
    drawing = Drawing(studio, **asked_as(studio), corrector=correction.corrector)
    weights = {"weights": studio.fingerprint, "corrector": fingerprint(correction.corrector)}
    begin_folder(folder, {**weights, "seed": seed, "count": count, "kept": "pictures"})
    return sample_portions(drawing, world_of(drawing.size, count, seed), folder, first)


def main() -> None:
    """Raises UserError: as ``sample_patches``."""
    parser = Parser(description=__doc__)
    add_sampling_flags(parser, count=49152, seed=17)
    options = parser.parse_args()
    kept = sample_patches(asked_studio(options), options.folder, options.n, options.seed, options.first)
    print(f"{options.folder}: {kept} pictures of {options.n} scenes")


if __name__ == "__main__":
    run_command(main)
