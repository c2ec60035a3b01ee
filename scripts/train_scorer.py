"""Train the scorer of the rendered world.

    python -m scripts.train_scorer
    python -m scripts.train_scorer --out outputs/scorer.safetensors --seed 1
    python -m scripts.train_scorer --out outputs/scorer.safetensors --steps 200 --trials 480
    python -m scripts.train_scorer --start outputs/scorer.safetensors --learning_rate 1e-3     # further

About half an hour on 2 cores. It learns from true renders of scenes that training may see, blurred, disturbed and
coarsened, and is then tried on held-out ones, disturbed and clean. Some things are moved out of their places.
Photographs and empty pictures are shown with no answer being right, so that it is unsure about what is not its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ldm.arguments import Parser
from ldm.checkpoint import save_state_dict
from ldm.checkpoint.byte_weights import in_bytes
from ldm.modules.scorer import AttributeScorer
from ldm.util import atomic_write, run_command
from ldm.world.degrade import degrade
from ldm.world.labels import ASTRAY, classes, labels_of
from ldm.world.photos import BundledPhotos
from ldm.world.scene import COLOURS, Scene, Split
from ldm.world.scenes import SceneWorld
from ldm.world.scoring import Judgement, as_json, rows_of, table
from scripts.score import load_scorer, new_scorer, see

SIZE = 64
STRANGERS = 0.06  # share of pictures that are not of the world
ASTRAY_SHARE = 0.05
NEAR, FAR = 2, 9  # pixels: a thing may stand so far from its place; one that is astray stands 6 to 9 pixels from it


def world_of(split: Split, length: int, seed: int, drawn_at: int) -> SceneWorld:
    """Scenes with more shapes and pairs than the model's training has: they are harder to name."""
    return SceneWorld(split, drawn_at, length=length, seed=seed, shapes=0.35, two=0.35, figures=0.0)


def scenes_of(world: SceneWorld, start: int, n: int) -> list[Scene]:
    """What is on ``n`` pictures."""
    return [scene for scene in world.contents(range(start, start + n)) if isinstance(scene, Scene)]


def pictures_of(world: SceneWorld, size: int, workers: int = 0) -> Iterator[Tensor]:
    """The pictures of a world in order, made smaller where they are larger, [size, 3, 64, 64] at a time."""
    loader = DataLoader(world, size, num_workers=workers, collate_fn=lambda items: [item["image"] for item in items])
    for images in loader:
        drawn = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        yield F.interpolate(drawn, (SIZE, SIZE), mode="bilinear", antialias=True)


def strangers(photos: BundledPhotos, start: int, n: int, generator: torch.Generator) -> Tensor:
    """Photographs, and every second time a background without an object."""
    pictures = [torch.from_numpy(photos[i]["image"]).permute(2, 0, 1) for i in range(start, start + n)]
    colours = torch.tensor(list(COLOURS.values())) / 127.5 - 1
    for i in range(0, n, 2):
        colour = colours[int(torch.randint(len(colours), (), generator=generator))]
        pictures[i] = colour[:, None, None].expand(3, SIZE, SIZE)
    return torch.stack(pictures)


def astray(n: int, generator: torch.Generator) -> Tensor:
    """Which of ``n`` pictures show things out of their places, [n] bool."""
    return torch.rand(n, generator=generator) < ASTRAY_SHARE


def moved(pictures: Tensor, far: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures [B, 3, H, W] moved by up to 2 pixels, and those that are ``far`` [B] by 6 to 9 along one axis."""
    height, width = pictures.shape[-2:]
    shifts = torch.randint(-NEAR, NEAR + 1, (len(pictures), 2), generator=generator)
    long = torch.randint(6, FAR + 1, (len(pictures),), generator=generator)
    long = long * (1 - 2 * torch.randint(2, (len(pictures),), generator=generator))
    axis = torch.randint(2, (len(pictures), 1), generator=generator)
    shifts = torch.where(far[:, None] & (torch.arange(2) == axis), long[:, None], shifts)
    padded = F.pad(pictures, (FAR,) * 4, mode="replicate")
    return torch.stack([
        one[:, FAR + y : FAR + y + height, FAR + x : FAR + x + width]
        for one, (y, x) in zip(padded, shifts.tolist(), strict=True)
    ])  # fmt: skip


def targets_of(scenes: list[Scene], far: Tensor) -> dict[str, Tensor]:
    """The numbers of the right answers, each [B]."""
    found = [labels_of(scene) | ({"layout": ASTRAY} if away else {}) for scene, away in zip(scenes, far, strict=True)]
    return {name: torch.tensor([values.index(one[name]) for one in found]) for name, values in classes().items()}


def loss_of(logits: dict[str, Tensor], targets: dict[str, Tensor], known: int) -> Tensor:
    """Cross-entropy of the first `known` pictures; even odds for the rest."""
    total = torch.zeros(())
    for name, values in logits.items():
        total = total + F.cross_entropy(values[:known], targets[name])
        if known < len(values):
            total = total - 0.1 * values[known:].log_softmax(-1).mean()
    return total


def train(model: AttributeScorer, world: SceneWorld, size: int, rate: float, seed: int, workers: int) -> None:
    """Train on every scene of a world once, ``size`` of them a step."""
    steps = len(world) // size
    odd = max(1, round(STRANGERS * size))
    photos = BundledPhotos("train", SIZE, length=steps * odd, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    model.train()
    progress = tqdm(pictures_of(world, size, workers), total=steps, desc="training the scorer")
    for step, pictures in enumerate(progress):
        far = astray(size, generator)
        seen = torch.cat([moved(pictures, far, generator), strangers(photos, step * odd, odd, generator)])
        loss = loss_of(model(degrade(seen, generator)), targets_of(scenes_of(world, step * size, size), far), size)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.3f}")


def trial(model: AttributeScorer, world: SceneWorld, strength: float, seed: int) -> tuple[list[Scene], list[Judgement]]:
    """What was drawn and what the scorer sees, on renders that it never saw."""
    generator = torch.Generator().manual_seed(seed)
    seen: list[Judgement] = []
    for pictures in pictures_of(world, 256):
        seen += see(model, degrade(pictures, generator, strength))
    return scenes_of(world, 0, len(world)), seen


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("models/ldm/tiny/scorer.safetensors"))
    parser.add_argument("--start", type=Path, help="weights of a scorer that it begins from")
    parser.add_argument("--drawn_at", type=int, default=128, help="width of what is drawn; patterns stay as fine")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch_size", type=int, default=96)
    parser.add_argument("--learning_rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=4096, help="pictures in each of the final trials")
    parser.add_argument("--num_workers", type=int, default=1, help="processes that draw pictures beside the training")
    parser.add_argument("--debug", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = load_scorer(options.start) if options.start else new_scorer()
    began = time.monotonic()
    world = world_of("train", options.steps * options.batch_size, options.seed, options.drawn_at)
    train(model, world, options.batch_size, options.learning_rate, options.seed, options.num_workers)
    minutes = (time.monotonic() - began) / 60
    half = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    about = {"labels": json.dumps(classes()), "steps": str(options.steps), "seed": str(options.seed)}
    save_state_dict(in_bytes(half), options.out, about)
    model = load_scorer(options.out)  # try what was saved
    report: dict[str, object] = {"minutes": round(minutes, 1), "steps": options.steps, "batch": options.batch_size}
    trials: tuple[tuple[str, Split, float], ...] = (
        ("clean", "heldout", 0.0), ("degraded", "heldout", 1.0), ("trained", "train", 1.0),
    )  # fmt: skip
    for name, split, strength in trials:
        tried = world_of(split, options.trials, options.seed + 1, options.drawn_at)
        rows = rows_of(*trial(model.eval(), tried, strength, options.seed + 1))
        print(f"\n{name} renders, {split} combinations\n{table(rows)}")
        report[name] = as_json(rows)
    with atomic_write(options.out.with_suffix(".json")) as path:
        path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{minutes:.1f} minutes; weights in {options.out}, these tables in {options.out.with_suffix('.json')}")


if __name__ == "__main__":
    run_command(main)
