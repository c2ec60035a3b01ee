"""What guidance by attention does to pictures of two shapes, and edits to one: ``python -m benchmarks.guidance``.

Prompts name two shapes; each has a box at random. Pictures are made plainly, with boxes, with Attend-and-Excite, and
with both, from the same seeds. Edits give a shape another colour, in new pictures and on true ones as if those were
photographs. How well a photograph's own way through the noise is kept is measured for four methods. A judge knows the
true colours.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.guidance_judge import Task, judge, tasks
from ldm.models.diffusion.guidance import guided
from ldm.models.diffusion.loop import ask
from ldm.models.diffusion.samplers.ddim import DDIM, transfer
from ldm.pictures.images import image_to_tensor, make_grid
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.inversion.invert import Inversion, invert_with_features
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio, open_studio
from ldm.workflows.txt2img import Made, txt2img
from ldm.workflows.watch import Watch
from ldm.world.scene import COLOURS
from ldm.world.scoring import wilson

NULL_STEPS, NULL_RATE = 10, 1e-2  # of null-text optimisation (Mokady et al. 2023)
SHOWN = 6  # tasks in the sheet


def made(studio: Studio, task: Task, steps: int, **asked: Any) -> Made:
    """One picture."""
    found: list[Made] = []
    options = Txt2ImgOptions(
        prompt=task.prompt, seed=task.seed, steps=steps, n_samples=1, skip_save=True, skip_grid=True, progress=False,
        **asked,
    )  # fmt: skip
    txt2img(options, studio, Watch(on_result=found.append))
    return found[0]


def guidance_rows(studio: Studio, asked: Sequence[Task], steps: int, sheet: Path) -> list[dict[str, Any]]:
    """A row for each way to guide."""
    rows, shown = [], []
    for name in ("plain", "layout", "excite", "both"):
        seen = []
        for number, task in enumerate(asked):
            ways: dict[str, Any] = {"boxes": task.boxes} if name in ("layout", "both") else {}
            ways |= {"excite": [shape.name for shape in task.shapes]} if name in ("excite", "both") else {}
            one = made(studio, task, steps, **ways)
            seen.append(judge(one.image, task))
            if number < SHOWN:
                shown.append((one.boxed or one.image).resize((256, 256), Image.Resampling.NEAREST))
        count, every = len(asked), [found for pair in seen for found in pair]
        row: dict[str, Any] = {"way": name, "pictures": count}
        for what, right in (
            ("both there", [all(found.there for found in pair) for pair in seen]),
            ("both centred", [all(found.centred for found in pair) for pair in seen]),
            ("all right", [all(found.right for found in pair) for pair in seen]),
        ):
            row[what] = [sum(right), *(round(side, 3) for side in wilson(sum(right), count))]
        row["mean overlap"] = round(float(np.mean([found.overlap for found in every])), 3)
        rows.append(row)
    make_grid(shown, columns=min(SHOWN, len(asked))).save(sheet)
    return rows


def edit_rows(studio: Studio, asked: Sequence[Task], steps: int, sheet: Path) -> list[dict[str, Any]]:
    """A row for each kind of edit: the new colour is there, and how far the background has moved, of 255."""
    rows, shown = [], []
    for name in ("new", "new, blended", "photograph", "photograph, blended"):
        there, moved = [], []
        for number, task in enumerate(asked):
            (shape,) = task.shapes
            other = next(c for c in COLOURS if c not in (task.ground, shape.colour, "black", "white"))
            second = replace(task, shapes=(replace(shape, colour=other),))
            ways: dict[str, Any] = {"edit": second.prompt} | ({"blend": shape.name} if "blended" in name else {})
            if "photograph" in name:
                task.true().save(sheet.with_name("photograph.png"))
                ways["edit_photo"] = str(sheet.with_name("photograph.png"))
            one = made(studio, task, steps, **ways)
            assert one.source is not None
            there.append(judge(one.image, second)[0].there)
            moved.append(background(one.source, one.image, task))
            if number < SHOWN:
                shown += [each.resize((128, 128), Image.Resampling.NEAREST) for each in (one.source, one.image)]
        right = sum(there)
        rows.append({"edit": name, "pictures": len(asked), "there": [right, *map(float, wilson(right, len(asked)))],
                     "background": round(float(np.mean(moved)), 2)})  # fmt: skip
    make_grid(shown, columns=2 * min(SHOWN, len(asked))).save(sheet)
    return rows


def background(source: Image.Image, edited: Image.Image, task: Task) -> float:
    """The mean difference, of 255, where the first picture shows the background."""
    pixels = [np.asarray(image.convert("RGB"), np.float32) for image in (source, edited)]
    near = np.abs(pixels[0] - np.asarray(COLOURS[task.ground], np.float32)).max(axis=-1) < 60
    return float(np.abs(pixels[0] - pixels[1])[near].mean()) if near.any() else 0.0


def kept_rows(studio: Studio, asked: Sequence[Task], steps: int) -> list[dict[str, Any]]:
    """How far the way back from a photograph's noise, under guidance, ends from its latent: mean square, by method.

    "on course" is what an edit does here: the first picture is where the inversion was at every step.
    """
    model = studio.model
    errors: dict[str, list[float]] = {"DDIM": [], "negative prompt": [], "null text": [], "on course": []}
    scale = float(studio.inference.get("guidance_scale", 7.5))
    for task in asked:
        with torch.no_grad():
            z = clean_latent(model, image_to_tensor(task.true())[None])
            cond = model.condition([task.prompt], size=z.shape[-2:])
            empty = model.unconditional(cond)
            course = invert_with_features(model, z, cond, steps=steps)
        for name, uncond, inner in (("DDIM", empty, 0), ("negative prompt", cond, 0), ("null text", empty, NULL_STEPS)):
            errors[name].append(float((walk_back(model, course, cond, uncond, scale, inner) - z).square().mean()))
        errors["on course"].append(0.0)
    return [{"method": name, "mean square": float(np.mean(values))} for name, values in errors.items()]


def walk_back(model: Any, course: Inversion, cond: Any, uncond: Any, scale: float, inner: int) -> Tensor:
    """DDIM under guidance from the noise of an inversion; with ``inner`` steps that fit the empty prompt at each level.

    Mokady et al. 2023, algorithm 1.
    """
    levels = DDIM().levels(model.schedule, len(course.visited))
    x, schedule = course.seen(levels[0]), model.schedule
    null = uncond["c_crossattn"][0].clone()
    for number, (here, there) in enumerate(itertools.pairwise(levels)):
        wanted = course.seen(there) if number + 2 < len(levels) else next(iter(course.visited.values()))
        with torch.no_grad():
            led = ask(model, x, here, cond)
        null = null.detach().requires_grad_()
        optimiser = torch.optim.Adam([null], lr=NULL_RATE * (1 - number / 100))
        for _ in range(inner):
            away = ask(model, x, here, {**uncond, "c_crossattn": [null]})
            loss = (transfer(schedule.estimate(away + scale * (led - away), x, here), there) - wanted).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            both = guided(model, scale, {**uncond, "c_crossattn": [null.detach()]})
            x = transfer(schedule.estimate(ask(both, x, here, cond), x, here), there)
    return x


def single(task: Task) -> Task:
    """One shape in the middle, where every model of this project knows it."""
    return replace(task, shapes=(replace(task.shapes[0], box=type(task.shapes[0].box)(0.2, 0.2, 0.8, 0.8)),))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=200, help="prompts with two shapes")
    parser.add_argument("--shapes", type=int, default=2, help="in a prompt; 3 is beyond what training showed")
    parser.add_argument("--edits", type=int, default=40, help="prompts with one shape, for edits")
    parser.add_argument("--photographs", type=int, default=8, help="of those, whose ways through noise are compared")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ckpt", help="weights (the small model)")
    parser.add_argument("--out", type=Path, default=Path("outputs/guidance"), help="where table.json and sheets go")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    studio = open_studio(given.ckpt, device="cpu", precision="full")
    studio.model.requires_grad_(False)
    ones = [single(task) for task in tasks(given.edits, given.seed + 1)]
    table: dict[str, Any] = {"model": studio.name, "steps": given.steps, "seed": given.seed}
    if given.n:
        both = tasks(given.n, given.seed, given.shapes)
        table["guidance"] = guidance_rows(studio, both, given.steps, given.out / "guidance.png")
    if given.edits:
        table["edits"] = edit_rows(studio, ones, given.steps, given.out / "edits.png")
    if given.photographs:
        table["photographs"] = kept_rows(studio, ones[: given.photographs], given.steps)
    (given.out / "table.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
