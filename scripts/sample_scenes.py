"""Draw scenes by a model and keep the latents with what they should have been, for the model to learn from.

    python -m scripts.sample_scenes outputs/drawn
    python -m scripts.sample_scenes outputs/more -n 6400 --seed 902 --things even
    python -m scripts.sample_scenes outputs/outlined -n 1120 --seed 904 --things outlined --everything
    python -m scripts.sample_scenes FOLDER --ckpt logs/tiny/first.safetensors --config models/ldm/tiny/config.yaml

The scenes are ones that training may see. What a sentence leaves open is as the picture has it; pictures in which
`scripts.judge` does not find the background, each thing, its place and its outline are left out. With them goes what
a model regularly forgets, such as the outline of a thing before a background of its own colour: ``--everything`` keeps
all whose background is right. Twelve steps are taken, where the small model usually takes 25: its colours are off by as
much. Started again, it goes on where it stopped.
`configs/tiny/drawn.yaml` trains on the folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ldm.arguments import Parser
from ldm.models.diffusion.guidance import guided
from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.sampling import sample
from ldm.seeds import settled_seed
from ldm.texts import read_text
from ldm.util import UserError, atomic_write, parse_json_object, run_command
from ldm.workflows.plan import Plan, latent_size, make_plan
from ldm.workflows.prompts import conditions
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio, open_studio
from ldm.world.drawn import is_there, portion, write_drawn
from ldm.world.judge import judge
from ldm.world.paint import check_size
from ldm.world.scene import Scene
from ldm.world.scene_files import read_scenes
from scripts.scene_prompts import KINDS, prompts

AT_ONCE = 32  # pictures that are drawn together
PORTION = 160  # sentences to a file
ABOUT = "about.json"  # what a folder was begun with: another run does not go on with it


@torch.no_grad()
def draw_latents(studio: Studio, plan: Plan, texts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The latents [B, C, h, w] that a model draws of prompts, and the pictures [B, 3, H, W] that they decode to."""
    model, size = studio.model, latent_size(studio, plan)
    noise = plan.noise_scale * ImageNoise(seeds).draw((model.channels, *size)).to(model.device)
    with studio.mixed():
        wanted, away = conditions(model, texts, plan.negative_prompt, size, plan.guidance_scale != 1)
        latents = sample(
            guided(model, plan.guidance_scale, away), noise, wanted, steps=plan.steps, sampler=plan.sampler
        )
        return latents, model.decode_first_stage(latents)


def shown_scenes(pictures: Tensor, wanted: Sequence[Scene], everything: bool = False) -> list[Scene | None]:
    """The complete scene that each picture [B, 3, H, W] shows, of those asked for; None where the judge misses some.

    Shades may be off by a little: they are what is to be learned. See ``Verdict.shown``. With ``everything`` it is the
    most like one of those asked for wherever the background is right, whatever is missed besides.
    """
    verdicts = [
        judge(picture, scene)
        for picture, scene in zip(pictures.float().permute(0, 2, 3, 1).cpu().numpy(), wanted, strict=True)
    ]
    return [one.true if (one.ground if everything else one.shown) else None for one in verdicts]


def draw_portion(
    studio: Studio, plan: Plan, texts: Sequence[str], wanted: Sequence[Scene], first_seed: int, everything: bool = False
) -> tuple[Tensor, list[Scene]]:
    """The latents [N, C, h, w] of the pictures that show what was asked for, and the scenes."""
    latents, scenes = [], []
    for first in range(0, len(texts), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        seeds = range(first_seed + first, first_seed + first + len(texts[some]))
        made, pictures = draw_latents(studio, plan, texts[some], seeds)
        shown = shown_scenes(pictures, wanted[some], everything)
        latents.append(made.cpu()[[scene is not None for scene in shown]])
        scenes += [scene for scene in shown if scene is not None]
    return torch.cat(latents), scenes


def begin_folder(folder: Path, about: dict[str, object]) -> None:
    """Make a folder, or find it begun with the same model and settings.

    Raises:
        UserError: it holds scenes of others.
    """
    record = folder / ABOUT
    if record.exists():
        if parse_json_object(read_text(record, "record of drawn scenes"), f"'{record}'") != about:
            raise UserError(f"'{folder}' holds scenes of another model, seed or settings: give another folder")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(record) as path:
        path.write_text(json.dumps(about, indent=1) + "\n")


def sample_scenes(
    studio: Studio, folder: Path, count: int, seed: int, steps: int | None = None, things: str = "all",
    everything: bool = False,
) -> int:  # fmt: skip
    """Draw ``count`` sentences about scenes, portion by portion; how many of their pictures are in the folder.

    Raises:
        UserError: as ``begin_folder``, or the number, the seed or the settings do not fit the model or the world.
    """
    plan = make_plan(Txt2ImgOptions(steps=steps, settle=0), studio)
    check_size(plan.width)
    if plan.width != plan.height:
        raise UserError(f"scenes are square; this model's pictures are {plan.width}x{plan.height}")
    seed = settled_seed(seed, count)
    texts, wanted = prompts(count, things, split="train", seed=seed)
    precise = {"precision": studio.effective_precision, "weights": studio.fingerprint}
    about = {**asdict(plan), **precise, "seed": seed, "count": count, "things": things}
    begin_folder(folder, about | ({"everything": True} if everything else {}))
    kept = 0
    with tqdm(total=count, desc="drawing scenes") as progress:
        for number, start in enumerate(range(0, count, PORTION)):
            rows = slice(start, start + PORTION)
            path = portion(folder, number)
            if not is_there(path):
                latents, scenes = draw_portion(studio, plan, texts[rows], wanted[rows], seed + start, everything)
                write_drawn(folder, number, latents.float().numpy(), scenes)
            kept += len(read_scenes(path))
            progress.update(len(texts[rows]))
    return kept


def add_model_flags(parser: Parser) -> None:
    """Which model is asked, and how."""
    parser.add_argument("--ckpt", help="weights; none: the small model")
    parser.add_argument("--config", help="their YAML")
    parser.add_argument("--device", help="cuda, cpu; a GPU if there is one")
    parser.add_argument("--precision", default="autocast", help="full, autocast, bf16 or fp16 (%(default)s)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def main() -> None:
    """Raises UserError: as ``sample_scenes``."""
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where latents and scenes go")
    parser.add_argument("-n", type=int, default=3200, help="how many sentences (%(default)s)")
    parser.add_argument("--things", default="all", help=f"what is asked for: {', '.join(KINDS)} (%(default)s)")
    parser.add_argument("--everything", action="store_true", help="keep also what is wrong in more than shades")
    parser.add_argument("--seed", type=int, default=901, help="which scenes, and their noise (%(default)s)")
    parser.add_argument("--steps", type=int, default=12, help="of the sampler (%(default)s)")
    add_model_flags(parser)
    options = parser.parse_args()
    studio = open_studio(options.ckpt, options.config, device=options.device, precision=options.precision)
    asked = (options.n, options.seed, options.steps, options.things, options.everything)
    kept = sample_scenes(studio, options.folder, *asked)
    shows = "are kept" if options.everything else "show what was asked for"
    print(f"{options.folder}: {kept} of {options.n} pictures {shows}")


if __name__ == "__main__":
    run_command(main)
