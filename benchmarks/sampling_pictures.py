"""The pictures of docs/sampling.md, made with the small model: strengths, masks, frames, variations, tiles.

    python -m benchmarks.sampling_pictures
    python -m benchmarks.sampling_pictures --out docs/pictures          # where the page has them
    python -m benchmarks.sampling_pictures --steps 20 --seed 3

Each picture is enlarged without smoothing, so that its pixels can be looked at.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ldm.arguments import Parser
from ldm.pictures.images import load_image, make_grid, save_image
from ldm.shipped import here_or_shipped
from ldm.util import run_command
from ldm.workflows.img2img import Img2ImgOptions, img2img
from ldm.workflows.inpaint import InpaintOptions, inpaint
from ldm.workflows.studio import Studio, open_studio
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img

STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
VARIATIONS = (0.0, 0.1, 0.3, 0.6, 1.0)
STAR = "a large yellow star on a blue background"
HEART = "a large green heart on a white background"
SQUARE = "a large red square on a white background"
ANY = "a star"
PHOTO, PLACE, SHOWN = "examples/styleid/cnt/astronaut.jpg", (168, 132, 224, 188), (128, 96, 256, 224)
APPLE = "a red apple"
CIRCLE = "a small red circle on a blue background"
Labelled = list[tuple[Image.Image, str]]


def quiet(options: argparse.Namespace, **changes: Any) -> dict[str, Any]:
    """What all requests have in common."""
    return {"n_samples": 1, "seed": options.seed, "steps": options.steps, "skip_save": True, "skip_grid": True,
            "progress": False, **changes}  # fmt: skip


def sketch(side: int) -> Image.Image:
    """What somebody may draw in a moment: a yellow blob with arms on blue."""
    image = Image.new("RGB", (8 * side, 8 * side), (30, 60, 200))
    draw = ImageDraw.Draw(image)
    for x, y in ((4, 1), (1, 3.2), (7, 3.2), (2.2, 7), (5.8, 7)):
        draw.line([(4 * side, 4.2 * side), (x * side, y * side)], fill=(240, 220, 40), width=int(1.5 * side))
    return image.resize((side, side), Image.Resampling.LANCZOS)


def strengths(studio: Studio, options: argparse.Namespace) -> Labelled:
    """One drawing at growing strengths."""
    init = sketch(int(studio.inference["width"]))
    made: Labelled = [(init, "drawn")]
    for strength in STRENGTHS:
        given = Img2ImgOptions(prompt=STAR, init_img=init, strength=strength, **quiet(options))
        made.append((img2img(given, studio)[0], f"strength {strength:g}"))
    return made


def box_mask(side: int, left: float, top: float, right: float, bottom: float) -> Tensor:
    """A mask [side, side] of a box in shares of the picture."""
    mask = torch.zeros(side, side)
    mask[int(top * side) : int(bottom * side), int(left * side) : int(right * side)] = 1
    return mask


def masks(studio: Studio, options: argparse.Namespace) -> Labelled:
    """A part of a picture that is filled again, and another thing in its place; and a frame around one."""
    (heart,) = txt2img(Txt2ImgOptions(prompt=HEART, **quiet(options)), studio)
    side = heart.width
    made: Labelled = [(heart, "original")]
    for mask, prompt, label in (
        (box_mask(side, 0.5, 0, 1, 1), HEART, "right half, same prompt"),
        (box_mask(side, 0.06, 0.06, 0.94, 0.94), SQUARE, "'a large red square'"),
    ):
        shown = Image.composite(Image.new("RGB", heart.size, (255, 0, 255)), heart, as_picture(0.6 * mask))
        (filled,) = inpaint(InpaintOptions(prompt=prompt, init_img=heart, mask=mask, **quiet(options)), studio)
        made += [(shown, "mask"), (filled, label)]
    return made


def small_part(studio: Studio, options: argparse.Namespace) -> Labelled:
    """Something small in a photograph, painted together with all of it and by itself."""
    photo = load_image(here_or_shipped(PHOTO))
    mask = torch.zeros(photo.height, photo.width)
    mask[PLACE[1] : PLACE[3], PLACE[0] : PLACE[2]] = 1
    shown = Image.composite(Image.new("RGB", photo.size, (255, 0, 255)), photo, as_picture(0.6 * mask))
    made: Labelled = [(shown.crop(SHOWN), "a part of a photograph, mask")]
    for padding, label in ((None, "'a red apple'"), (8, "the same, --only_masked 8")):
        given = InpaintOptions(prompt=APPLE, init_img=photo, mask=mask, only_masked=padding, **quiet(options))
        made.append((inpaint(given, studio)[0].crop(SHOWN), label))
    return made


def as_picture(mask: Tensor) -> Image.Image:
    return Image.fromarray((mask * 255).byte().numpy())


def frames(studio: Studio, options: argparse.Namespace) -> Labelled:
    """A picture and what is painted around it."""
    (circle,) = txt2img(Txt2ImgOptions(prompt=CIRCLE, **quiet(options)), studio)
    made: Labelled = [(circle, "original")]
    quarter = circle.width // 4
    for frame in (f"left={quarter},right={quarter}", str(quarter)):
        given = InpaintOptions(prompt=CIRCLE, init_img=circle, outpaint=frame, **quiet(options))
        made.append((inpaint(given, studio)[0], f"--outpaint {frame}"))
    return made


def variations(studio: Studio, options: argparse.Namespace) -> Labelled:
    """Noise on the way to other noise."""
    return [
        (txt2img(Txt2ImgOptions(prompt=ANY, variation_seed=options.seed + 70, variation_strength=strength,
                                **quiet(options)), studio)[0], f"{strength:g}")
        for strength in VARIATIONS
    ]  # fmt: skip


def tiles(studio: Studio, options: argparse.Namespace) -> Labelled:
    """Pictures four times beside themselves, without and with --tiling."""
    made: Labelled = []
    for tiling, label in ((False, "plain, 2 x 2"), (True, "--tiling, 2 x 2")):
        (one,) = txt2img(Txt2ImgOptions(prompt=TILE, tiling=tiling, **quiet(options)), studio)
        made.append((make_grid([one] * 4, columns=2, gap=0), label))
    return made


TILE = "a large green circle on a striped background"
SHEETS: dict[str, Callable[[Studio, argparse.Namespace], Labelled]] = {
    "img2img": strengths, "inpaint": masks, "only_masked": small_part, "outpaint": frames, "variations": variations,
    "tiling": tiles,
}  # fmt: skip


def sheet(made: Sequence[tuple[Image.Image, str]], factor: int) -> Image.Image:
    """Pictures in a row, enlarged, each with its label."""
    large = [one.resize((one.width * factor, one.height * factor), Image.Resampling.NEAREST) for one, _ in made]
    return make_grid(large, columns=len(large), labels=[label for _, label in made], gap=4)


def main() -> None:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("outputs/sampling_pictures"), metavar="FOLDER", help="where pictures go")
    add("--ckpt", metavar="FILE", help="weights (the small model)")
    add("--config", metavar="FILE", help="the model's YAML")
    add("--steps", type=int, default=50, metavar="N", help="sampling steps (50)")
    add("--seed", type=int, default=42, help="of each picture (42)")
    add("--enlarge", type=int, default=2, metavar="N", help="how many times as large each pixel is shown (2)")
    add("--only", choices=list(SHEETS), nargs="+", default=list(SHEETS), help="some of the sheets")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    studio = open_studio(options.ckpt, options.config, device="cpu")
    for name in options.only:
        made = sheet(SHEETS[name](studio, options), options.enlarge)
        save_image(made, options.out / f"{name}.png")
        print(f"{options.out / name}.png: {made.width}x{made.height}")


if __name__ == "__main__":
    run_command(main)
