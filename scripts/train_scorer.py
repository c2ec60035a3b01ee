"""Train the scorer of the rendered world.

    python -m scripts.train_scorer
    python -m scripts.train_scorer --out outputs/scorer.safetensors --seed 1
    python -m scripts.train_scorer --out outputs/scorer.safetensors --steps 200 --trials 480

About 4 minutes on 2 cores. It learns from rendered pictures of the training combinations that were blurred, disturbed
and coarsened, and is then tried on held-out combinations, disturbed and clean. Photographs and empty pictures are shown
with no answer being right, so that it is unsure about what is not of its world.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ldm.checkpoint import save_state_dict
from ldm.modules.scorer import AttributeScorer
from ldm.util import atomic_write, run_command
from ldm.world.attributes import COLOURS, Attributes
from ldm.world.degrade import degrade
from ldm.world.photos import BundledPhotos
from ldm.world.scoring import as_json, compare, labels, table
from ldm.world.shapes import ShapesWorld
from scripts.score import see

SIZE = 64
STRANGERS = 0.06  # share of pictures that are not of the world
JITTER = 0.04


def batch(world: ShapesWorld, start: int, n: int) -> tuple[Tensor, list[Attributes]]:
    """Pictures [n, 3, 64, 64] and what is on them."""
    indices = range(start, start + n)
    pictures = np.stack([item["image"] for item in world.__getitems__(indices)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), [world.attributes(i) for i in indices]


def strangers(photos: BundledPhotos, start: int, n: int, generator: torch.Generator) -> Tensor:
    """Photographs, and every second time a background without an object."""
    pictures = [torch.from_numpy(photos[i]["image"]).permute(2, 0, 1) for i in range(start, start + n)]
    colours = torch.tensor(list(COLOURS.values())) / 127.5 - 1
    for i in range(0, n, 2):
        colour = colours[int(torch.randint(len(colours), (), generator=generator))]
        pictures[i] = colour[:, None, None].expand(3, SIZE, SIZE)
    return torch.stack(pictures)


def loss_of(logits: dict[str, Tensor], targets: dict[str, Tensor], known: int) -> Tensor:
    """Cross-entropy of the first `known` pictures; even odds for the rest."""
    total = torch.zeros(())
    for name, values in logits.items():
        total = total + F.cross_entropy(values[:known], targets[name])
        if known < len(values):
            total = total - 0.1 * values[known:].log_softmax(-1).mean()
    return total


def train(model: AttributeScorer, steps: int, size: int, seed: int, rate: float) -> None:
    world = ShapesWorld("train", SIZE, length=steps * size, seed=seed, jitter=JITTER)
    odd = max(1, round(STRANGERS * size))
    photos = BundledPhotos("train", SIZE, length=steps * odd, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    model.train()
    progress = tqdm(range(steps), desc="training the scorer")
    for step in progress:
        pictures, drawn = batch(world, step * size, size)
        pictures = torch.cat([pictures, strangers(photos, step * odd, odd, generator)])
        logits = model(degrade(pictures, generator))
        targets = {n: torch.tensor([v.index(getattr(a, n)) for a in drawn]) for n, v in labels().items()}
        loss = loss_of(logits, targets, size)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.3f}")


def trial(model: AttributeScorer, split: str, strength: float, n: int, seed: int) -> tuple[list[Attributes], list]:
    """What was drawn and what the scorer sees, on renders that it never saw."""
    world = ShapesWorld(split, SIZE, length=n, seed=seed, jitter=JITTER)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    drawn: list[Attributes] = []
    seen: list = []
    for start in range(0, n, 256):
        pictures, attributes = batch(world, start, min(256, n - start))
        seen += see(model, degrade(pictures, generator, strength))
        drawn += attributes
    return drawn, seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("models/ldm/tiny/scorer.safetensors"))
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch_size", type=int, default=96)
    parser.add_argument("--learning_rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=4320, help="pictures in each of the final trials")
    parser.add_argument("--debug", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = AttributeScorer({name: len(values) for name, values in labels().items()})
    began = time.monotonic()
    train(model, options.steps, options.batch_size, options.seed, options.learning_rate)
    minutes = (time.monotonic() - began) / 60
    half = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    about = {"labels": json.dumps(labels()), "steps": str(options.steps), "seed": str(options.seed)}
    save_state_dict(half, options.out, about)
    model.load_state_dict(half)  # try what was saved
    report: dict[str, object] = {"minutes": round(minutes, 1), "steps": options.steps, "batch": options.batch_size}
    for name, split, strength in (("clean", "heldout", 0.0), ("degraded", "heldout", 1.0), ("trained", "train", 1.0)):
        rows = compare(*trial(model.eval(), split, strength, options.trials, options.seed + 1))
        print(f"\n{name} renders, {split} combinations\n{table(rows)}")
        report[name] = as_json(rows)
    with atomic_write(options.out.with_suffix(".json")) as path:
        path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{minutes:.1f} minutes; weights in {options.out}, these tables in {options.out.with_suffix('.json')}")


if __name__ == "__main__":
    run_command(main)
