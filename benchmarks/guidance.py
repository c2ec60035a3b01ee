"""What guidance by attention does to pictures of two shapes, and edits to one: ``python -m benchmarks.guidance``.

Prompts name two shapes; each has a box at random. Pictures are made plainly, with boxes by the gradient of attention
(layout), with Attend-and-Excite, with both, and with boxes as regions, from the same seeds. Edits give a shape another
colour, in new pictures and on true ones as if those were photographs. How well a photograph's own way through the noise
is kept is measured for four methods. A judge knows the true colours. Rows are added to ``guidance.csv`` and
``edits.csv`` in ``--out`` picture by picture; what is there is not made again, so that a run may be stopped and go on.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.guidance_judge import Task, judge, tasks
from benchmarks.ledger import Ledger, table
from ldm.arguments import Parser
from ldm.models.diffusion import guidance
from ldm.models.diffusion.loop import ask
from ldm.models.diffusion.samplers.ddim import DDIM, transfer
from ldm.pictures.images import image_to_tensor, make_grid, save_image
from ldm.workflows.guide.boxed import with_boxes
from ldm.workflows.guide.wishes import read_wishes
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.inversion.invert import Inversion, invert_with_features
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio, open_studio
from ldm.workflows.txt2img import Made, txt2img
from ldm.workflows.watch import Watch
from ldm.world.scene import COLOURS

NULL_STEPS, NULL_RATE = 10, 1e-2  # of null-text optimisation (Mokady et al. 2023)
WAYS = ("plain", "layout", "excite", "both", "regions")
NOISE_SCALE = 1.0  # what the figures of docs/guidance.md are of; commands have that of the model's YAML
SIDE = 128  # pixels of what stands for a photograph
EDITS = ("new", "new, blended", "photograph", "photograph, blended")


def made(studio: Studio, task: Task, steps: int, **asked: Any) -> Made:
    """One picture."""
    found: list[Made] = []
    options = Txt2ImgOptions(
        prompt=task.prompt, seed=task.seed, steps=steps, noise_scale=NOISE_SCALE, settle=0, n_samples=1,
        skip_save=True, skip_grid=True, progress=False, **asked,
    )  # fmt: skip
    txt2img(options, studio, Watch(on_result=found.append))
    return found[0]


def guided(studio: Studio, task: Task, way: str, steps: int, path: Path) -> dict[str, Any]:
    """What the judge sees of a task's picture, which is saved with the boxes over it."""
    how: dict[str, Any] = {"boxes": task.boxes, "layout": "gradient"} if way in ("layout", "both") else {}
    how |= {"boxes": task.boxes, "layout": "regions"} if way == "regions" else {}
    how |= {"excite": [shape.name for shape in task.shapes]} if way in ("excite", "both") else {}
    image = made(studio, task, steps, **how).image
    save_image(with_boxes(image, read_wishes(task.boxes)), path)
    found = judge(image, task)
    row = {name: int(all(getattr(one, name) for one in found)) for name in ("there", "centred", "right")}
    return row | {"overlap": round(float(np.mean([one.overlap for one in found])), 4)}


def edited(studio: Studio, task: Task, way: str, steps: int, path: Path) -> dict[str, Any]:
    """Whether an edit's new colour is there, and how far the background moved, of 255; both pictures are saved."""
    (shape,) = task.shapes
    other = next(c for c in COLOURS if c not in (task.ground, shape.colour, "black", "white"))
    second = replace(task, shapes=(replace(shape, colour=other),))
    how: dict[str, Any] = {"edit": second.prompt} | ({"blend": shape.name} if "blended" in way else {})
    if "photograph" in way:
        how["edit_photo"] = str(path.with_name(f"{path.stem} true.png"))
        save_image(task.true(SIDE), Path(how["edit_photo"]))
    one = made(studio, task, steps, **how)
    assert one.source is not None
    save_image(make_grid([one.source, one.image], columns=2), path)
    moved = round(background(one.source, one.image, task), 3)
    return {"there": int(judge(one.image, second)[0].there), "moved": moved}


def measure(
    ledger: Ledger, asked: Sequence[Task], ways: Sequence[str], steps: int, of_one: Callable[..., dict[str, Any]]
) -> None:
    """A row for each task and way; tasks go first, so that a part of them has all ways."""
    for (number, task), way in itertools.product(enumerate(asked), ways):
        path = ledger.path.with_suffix("") / way / f"{task.between} {len(task.shapes)} {number:03d}.png"
        key = {"way": way, "prompt": task.prompt, "seed": task.seed, "steps": steps}
        ledger.add(key, lambda: of_one(task=task, way=way, steps=steps, path=path))  # noqa: B023 called at once


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
            both = guidance.guided(model, scale, {**uncond, "c_crossattn": [null.detach()]})
            x = transfer(schedule.estimate(ask(both, x, here, cond), x, here), there)
    return x


def single(task: Task) -> Task:
    """One shape in the middle, where every model of this project knows it."""
    return replace(task, shapes=(replace(task.shapes[0], box=type(task.shapes[0].box)(0.2, 0.2, 0.8, 0.8)),))


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("-n", type=int, default=200, help="prompts with two shapes")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--shapes", type=int, default=2, help="in a prompt; 3 is beyond what training showed")
    parser.add_argument("--between", default="and", help="the words between shapes; 'touching' is one it never read")
    parser.add_argument("--edits", type=int, default=40, help="prompts with one shape, for edits")
    parser.add_argument("--photographs", type=int, default=8, help="of those, whose ways through noise are compared")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no picture is begun after so many")
    parser.add_argument("--ckpt", help="weights (the small model)")
    parser.add_argument("--out", type=Path, default=Path("outputs/guidance"), help="where rows and pictures go")
    given = parser.parse_args(arguments)
    studio = open_studio(given.ckpt, device="cpu", precision="full")
    studio.model.requires_grad_(False)
    until = time.monotonic() + 60 * given.minutes
    guided_rows, edit_rows = (Ledger(given.out / name, until) for name in ("guidance.csv", "edits.csv"))
    pairs = tasks(given.n, given.seed, given.shapes, given.between)
    ones = [single(task) for task in tasks(given.edits, given.seed + 1)]
    measure(guided_rows, pairs, given.ways, given.steps, functools.partial(guided, studio))
    measure(edit_rows, ones, EDITS, given.steps, functools.partial(edited, studio))
    for ledger, shares, means in ((guided_rows, ("there", "centred", "right"), ("overlap",)),
                                  (edit_rows, ("there",), ("moved",))):  # fmt: skip
        if ledger.rows:
            print(table(ledger.rows, shares, means), end="\n\n")
    if given.photographs and time.monotonic() < until:
        for row in kept_rows(studio, ones[: given.photographs], given.steps):
            print(row)


if __name__ == "__main__":
    main()
