"""Keep what a network gets wrong in scenes, with what its blocks hold then, for a corrector to learn from.

    python -m scripts.sample_errors outputs/errors
    python -m scripts.sample_errors outputs/errors -n 4096 --seed 12
    python -m scripts.sample_errors outputs/errors --first 24576    # a second process beside the first

The scenes are ones that training may see. For each the true latent is noised as good as whole, and what the network
expects of it is asked about once more, which takes two calls in place of a walk and leaves much the same mistakes: what
learns from them takes as much away after true walks (models/ldm/tiny/README.md). Started again, it goes on where it
stopped. `configs/tiny/corrector.yaml` trains on the folder.
"""

from __future__ import annotations

import random
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ldm.arguments import Parser
from ldm.arrays import write_array
from ldm.data.errors import EMPTY, METRIC, portion, read_portions
from ldm.models.diffusion.loop import Level, estimator
from ldm.models.diffusion.sampling import step_rule
from ldm.models.diffusion.settling import settling_levels
from ldm.modules.corrector import PATCH, holding, patches_of, seen_in_patches
from ldm.modules.losses.shades import lab, seen_as
from ldm.util import UserError, run_command
from ldm.workflows.plan import make_plan
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio, open_studio
from ldm.world.grounds import CELL
from ldm.world.paint import box, paint
from ldm.world.scene import Scene
from ldm.world.scenes import SceneWorld
from ldm.world.sentences import say
from scripts.sample_scenes import add_model_flags, begin_folder

AT_ONCE = 64  # scenes that are asked about together
PORTION = 256  # scenes to a file
BEGUN = 4  # of a walk's first levels a picture begins at one
ASIDE = 2  # steps by which the level asked at may lie aside of that at which pictures are corrected
TWO = 0.25  # share of scenes with two things
LOST = 0.3  # mean square of a latent's error above which it shows something else
MEASURED = 60  # scenes on which the metric is taken
STEP = 0.3  # by which a channel is moved to see what it changes


@dataclass
class Asking:
    """A model that is asked about scenes of ``size`` pixels."""

    studio: Studio
    size: int
    steps: int  # of a walk

    @torch.no_grad()
    def encoded(self, scenes: list[Scene]) -> Tensor:
        """The true latents of scenes, [B, C, h, w]."""
        pictures = torch.from_numpy(paint(scenes, self.size)).permute(0, 3, 1, 2)
        model = self.studio.model
        return model.get_first_stage_encoding(model.encode_first_stage(pictures.to(model.device)).mode()).float()

    @torch.no_grad()
    def asked(self, scenes: list[Scene], seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """What is seen in each patch of a latent, how far what is expected is off there, and the latent's own error.

        Returns:
            [B, P, D], [B, P, 4 C], [B] (mean squares).
        """
        model, rng = self.studio.model, random.Random(seed)
        generator = torch.Generator().manual_seed(seed)
        levels = step_rule("ddim").levels(model.schedule, self.steps)
        first, last = settling_levels(levels)
        true = self.encoded(scenes)
        texts = [say(scene, "en", None if rng.random() < 0.5 else random.Random(rng.random())) for scene in scenes]
        denoise = estimator(model, model.condition(texts, size=tuple(true.shape[-2:])))

        def expected(x0: Tensor, level: Level) -> Tensor:
            noise = torch.randn(x0.shape, generator=generator).to(x0.device)
            return denoise(level.noised(x0, noise), level).x0

        x0 = expected(true, levels[2 + rng.randrange(BEGUN)])
        x0 = (x0 + expected(x0, first)) / 2
        aside = levels[levels.index(last) + rng.randint(-ASIDE, ASIDE)]
        with holding(model.model.diffusion_model) as held:
            wanted = expected(x0, aside)
            seen = seen_in_patches(x0, wanted, held)
        return seen, patches_of(wanted - true), (x0 - true).square().mean((1, 2, 3))

    def rows(self, scenes: list[Scene], seed: int) -> tuple[Tensor, Tensor]:
        """What is kept of each patch of scenes, [B, P, N], and the errors of their latents, [B] (mean squares)."""
        seen, error, lost = self.asked(scenes, seed)
        return torch.cat([seen, error], dim=-1), lost

    def kept(self, scenes: list[Scene], seed: int) -> NDArray[Any]:
        """What is kept of patches on and near the things of scenes, and of some others, [patches, N]."""
        all_rows, lost = self.rows(scenes, seed)
        near = self.near(scenes).flatten(1)
        first = seed % 2**32  # the number of the first scene: see ``portion``
        others = torch.rand(near.shape, generator=torch.Generator().manual_seed(first)) < EMPTY
        kept = ((near | others) & (lost.cpu() < LOST)[:, None]).to(all_rows.device)
        return all_rows[kept].half().cpu().numpy()

    def near(self, scenes: list[Scene]) -> Tensor:
        """Which patches of scenes lie on their things or beside them, [B, P, P]."""
        return torch.from_numpy(np.stack([near_things(scene, self.size) for scene in scenes]))

    def portion(self, world: SceneWorld, first: int) -> NDArray[Any]:
        """What is kept of ``PORTION`` scenes."""
        end = min(first + PORTION, len(world))
        parts = (range(start, min(start + AT_ONCE, end)) for start in range(first, end, AT_ONCE))
        return np.concatenate([self.kept(scenes_of(world, part), (world.seed << 32) + part.start) for part in parts])

    @torch.no_grad()
    def metric(self, world: SceneWorld) -> NDArray[np.float32]:
        """How much a small change of a latent's cell changes the picture's shades, [C, C]: for d [C], d G d.

        That is the squared change in CIELAB, chroma counted as CIE94 does: the sum over all pixels, for each pixel of a
        cell; the mean over cells of true scenes.
        """
        true = self.encoded(scenes_of(world, range(min(MEASURED, len(world)))))
        before = self._shades(true)
        weights = seen_as(before)
        changes = []
        for channel in range(true.shape[1]):
            moved = true.clone()
            moved[:, channel, 2::4, 2::4] += STEP  # far enough from one another
            changes.append(((self._shades(moved) - before) * weights / STEP).flatten())
        pixels = true[:, 0, 2::4, 2::4].numel() * (before.shape[-1] // true.shape[-1]) ** 2
        return (torch.stack(changes) @ torch.stack(changes).T / pixels).float().cpu().numpy()

    def _shades(self, latents: Tensor) -> Tensor:
        return lab(self.studio.model.decode_first_stage(latents))


def scenes_of(world: SceneWorld, numbers: Sequence[int]) -> list[Scene]:
    """What is on pictures of a world."""
    return [scene for scene in world.contents(numbers) if isinstance(scene, Scene)]


def near_things(scene: Scene, size: int) -> NDArray[np.bool_]:
    """Which patches [P, P] of a scene lie in the boxes of its things or beside them."""
    patch = CELL * PATCH
    near = np.zeros((size // patch, size // patch), bool)
    for thing in scene.things:
        left, top, side = (value // patch for value in box(str(thing.size), str(thing.place), size))
        near[max(0, top - 1) : top + side + 1, max(0, left - 1) : left + side + 1] = True
    return near


def sample_errors(studio: Studio, folder: Path, count: int, seed: int, first: int = 0) -> int:
    """Ask about ``count`` scenes, portion by portion; how many patches are in the folder.

    Raises:
        UserError: as ``begin_folder`` and ``sample_portions``.
    """
    asking = Asking(studio, **asked_as(studio))
    world = world_of(asking.size, count, seed)
    begin_folder(folder, {"weights": studio.fingerprint, "seed": seed, "count": count})
    if not (folder / METRIC).exists():
        write_array(folder / METRIC, asking.metric(world))
    return sample_portions(asking, world, folder, first)


def asked_as(studio: Studio) -> dict[str, int]:
    """The size and the steps of a model's own pictures."""
    plan = make_plan(Txt2ImgOptions(settle=0), studio)
    return {"size": plan.width, "steps": plan.steps}


def world_of(size: int, count: int, seed: int) -> SceneWorld:
    """The scenes that are asked about, ``size`` pixels wide."""
    return SceneWorld("train", size, length=count, seed=seed, two=TWO, figures=0.0)


def sample_portions(asking: Asking, world: SceneWorld, folder: Path, first: int = 0) -> int:
    """Keep what is asked of all of a world's scenes that a folder does not have yet, by portions; how many it has then.

    Raises:
        UserError: ``first`` is not where a portion begins, or the folder cannot be written.
    """
    if first % PORTION:
        raise UserError(f"a portion has {PORTION} scenes, so that --first must be a multiple of that, got {first}")
    count = len(world)
    with tqdm(total=count, desc="asking about scenes") as progress:
        starts = range(0, count, PORTION)
        for start in (*starts[first // PORTION :], *starts[: first // PORTION]):
            path = portion(folder, start // PORTION)
            if not path.exists():
                write_array(path, asking.portion(world, start))
            progress.update(min(PORTION, count - start))
    return sum(len(rows) for rows in read_portions(folder))


def add_sampling_flags(parser: Parser, count: int, seed: int) -> None:
    """Which scenes are asked about, of which model, and where what is kept goes."""
    parser.add_argument("folder", type=Path, help="where they go")
    parser.add_argument("-n", type=int, default=count, help="how many scenes (%(default)s)")
    parser.add_argument("--seed", type=int, default=seed, help="which scenes, and their noise (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the scene to begin with; those before come at the end")
    add_model_flags(parser)


def asked_studio(options: Namespace) -> Studio:
    """The model that the flags name.

    Raises:
        UserError: it cannot be opened, or the number of scenes is below 1.
    """
    if options.n < 1:
        raise UserError(f"-n must be at least 1, got {options.n}")
    return open_studio(options.ckpt, options.config, device=options.device, precision=options.precision)


def main() -> None:
    """Raises UserError: as ``sample_errors``."""
    parser = Parser(description=__doc__)
    add_sampling_flags(parser, count=49152, seed=11)
    options = parser.parse_args()
    kept = sample_errors(asked_studio(options), options.folder, options.n, options.seed, options.first)
    print(f"{options.folder}: {kept} patches of {options.n} scenes")


if __name__ == "__main__":
    run_command(main)
