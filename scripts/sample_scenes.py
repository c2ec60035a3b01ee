"""Draw scenes by a model and keep the latents with what they should have been, for the model to learn from.

    python -m scripts.sample_scenes outputs/drawn
    python -m scripts.sample_scenes outputs/drawn -n 6400 --seed 901 --steps 12
    python -m scripts.sample_scenes FOLDER --ckpt logs/tiny/first.safetensors --config models/ldm/tiny/config.yaml

The scenes are ones that training may see. What a sentence leaves open is as the picture has it; pictures in which
`scripts.judge` does not find the background, each thing, its place and its outline are left out. Started again, it goes
on where it stopped. `configs/tiny/drawn.yaml` trains on the folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ldm.models.diffusion.guidance import guided
from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.sampling import sample
from ldm.texts import read_text
from ldm.util import UserError, atomic_write, run_command
from ldm.workflows.plan import Plan, latent_size, make_plan
from ldm.workflows.prompts import conditions
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio, open_studio
from ldm.world.drawn import write_drawn
from ldm.world.judge import judge
from ldm.world.scene import Scene
from scripts.scene_prompts import prompts

AT_ONCE = 32  # pictures that are drawn together
PORTION = 160  # of sentences to a file
ABOUT = "about.json"  # what a folder was begun with: another run does not go on with it


@torch.no_grad()
def drawn(studio: Studio, plan: Plan, texts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The latents [B, C, h, w] that a model draws of prompts, and the pictures [B, 3, H, W] that they decode to."""
    model, size = studio.model, latent_size(studio, plan)
    noise = plan.noise_scale * ImageNoise(seeds).draw((model.channels, *size)).to(model.device)
    with studio.mixed():
        wanted, away = conditions(model, texts, plan.negative_prompt, size, plan.guidance_scale != 1)
        latents = sample(
            guided(model, plan.guidance_scale, away), noise, wanted, steps=plan.steps, sampler=plan.sampler
        )
        return latents, model.decode_first_stage(latents)


def found_right(pictures: Tensor, wanted: Sequence[Scene]) -> list[Scene | None]:
    """The complete scene that each picture [B, 3, H, W] shows, of those asked for; None where the judge misses some.

    Colours may be off: they are what is to be learned.
    """
    verdicts = [
        judge(picture, scene)
        for picture, scene in zip(pictures.float().permute(0, 2, 3, 1).cpu().numpy(), wanted, strict=True)
    ]
    return [verdict.true if verdict.shown else None for verdict in verdicts]


def begin_folder(folder: Path, about: dict[str, object]) -> None:
    """Make a folder, or find it begun with the same model and settings.

    Raises:
        UserError: it holds scenes of others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / ABOUT).exists():
        try:
            same = json.loads(read_text(folder / ABOUT, "record of drawn scenes")) == about
        except json.JSONDecodeError:
            same = False
        if not same:
            raise UserError(f"'{folder}' holds scenes of another model, seed or settings: give another folder")
        return
    with atomic_write(folder / ABOUT) as path:
        path.write_text(json.dumps(about, indent=1) + "\n")


def sample_scenes(studio: Studio, folder: Path, count: int, seed: int, steps: int | None = None) -> int:
    """Draw ``count`` sentences about scenes, portion by portion; how many are in the folder, right ones only.

    Raises:
        UserError: as ``begin_folder``, or the settings do not fit the model.
    """
    plan = make_plan(Txt2ImgOptions(steps=steps), studio)
    begin_folder(folder, {**asdict(plan), "weights": studio.fingerprint, "seed": seed, "count": count})
    texts, wanted = prompts(count, split="train", seed=seed)
    kept = 0
    with tqdm(total=count, desc="drawing scenes") as progress:
        for number, start in enumerate(range(0, count, PORTION)):
            rows = range(start, min(start + PORTION, count))
            scenes_file = folder / f"{number:04}.jsonl"
            if scenes_file.exists():
                kept += len(scenes_file.read_text(encoding="utf-8").splitlines())
                progress.update(len(rows))
                continue
            latents, scenes = [], []
            for first in range(rows.start, rows.stop, AT_ONCE):
                some = range(first, min(first + AT_ONCE, rows.stop))
                made, pictures = drawn(studio, plan, [texts[i] for i in some], [seed + i for i in some])
                shown = found_right(pictures, [wanted[i] for i in some])
                latents += [latent for latent, scene in zip(made.cpu(), shown, strict=True) if scene is not None]
                scenes += [scene for scene in shown if scene is not None]
                progress.update(len(some))
            if scenes:
                write_drawn(folder, number, torch.stack(latents).numpy(), scenes)
                kept += len(scenes)
    return kept


def main() -> None:
    """Raises UserError: as ``sample_scenes``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where latents and scenes go")
    parser.add_argument("-n", type=int, default=3200, help="how many sentences (%(default)s)")
    parser.add_argument("--seed", type=int, default=901, help="which scenes, and their noise (%(default)s)")
    parser.add_argument("--steps", type=int, default=12, help="of the sampler (%(default)s)")
    parser.add_argument("--ckpt", help="weights; none: the small model")
    parser.add_argument("--config", help="their YAML")
    parser.add_argument("--device", help="cuda, cpu; a GPU if there is one")
    parser.add_argument("--precision", default="autocast", help="full, autocast, bf16 or fp16 (%(default)s)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    studio = open_studio(options.ckpt, options.config, device=options.device, precision=options.precision)
    kept = sample_scenes(studio, options.folder, options.n, options.seed, options.steps)
    print(f"{options.folder}: {kept} of {options.n} scenes, found right")


if __name__ == "__main__":
    run_command(main)
