"""Where attention looks, over steps and layers: from a place of a picture, or to a word of a prompt; and what q holds.

    python -m scripts.attention_map --image photo.jpg --xy 120,80                   # where this place looks
    python -m scripts.attention_map --prompt "a red star on a blue background" --word star    # where the word is seen
    python -m scripts.attention_map --image photo.jpg --prompt "a cat" --word cat   # the same in a photograph
    python -m scripts.attention_map --image photo.jpg --pca q                       # principal components as colours

A picture is inverted (DDIM), without one a picture is made of the prompt. Written to --outdir: a sheet (layers x steps)
and every overlay; with --save FILE.safetensors q, k and sim (the scaled logits), for other programs.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ldm.arguments import Parser
from ldm.control import Sites, late_decoder
from ldm.pictures.images import save_image
from ldm.pictures.masks import short_name
from ldm.pictures.numbered import free_path
from ldm.pictures.sizing import look_at, sizing_for
from ldm.shipped import SAMPLES
from ldm.util import UserError, run_command, writable_folder
from ldm.workflows.inversion.invert import unet_of
from ldm.workflows.look.attention_maps import (
    Course,
    attention_to,
    course_of_picture,
    course_of_prompt,
    features_of,
    keep,
)
from ldm.workflows.look.inspection import (
    Spot,
    choose_heads,
    choose_layers,
    choose_timesteps,
    read_spots,
    short_layer,
    word_positions,
)
from ldm.workflows.look.inspection_plots import component_pictures, overlay, save_figure, sheet
from ldm.workflows.options import old_spellings
from ldm.workflows.plan import checked_noise_scale, usual_settings
from ldm.workflows.restyle.setting import usual_side
from ldm.workflows.studio import Studio, open_studio

SAMPLE, SAMPLE_SPOT = SAMPLES / "cnt" / "cat.jpg", "97,66"
SHOWN = 4  # timesteps on a sheet
Cells = dict[tuple[str, float], Image.Image]


def parse() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--image", metavar="FILE", help="the picture (a bundled sample, unless there is a prompt)")
    add("--prompt", help="what the network is told; without --image a picture is made of it")
    add("--xy", nargs="+", default=[], metavar="X,Y", help="positions that look, in pixels of the file")
    add("--word", help="a word of the prompt that is looked at, or several that follow each other")
    add("--pca", choices=["q", "k", "v", "residual"], help="principal components of this feature instead")
    add("--layers", metavar="PATTERN", help="such as 6,7 or output_blocks.{6..11} (later half of the decoder)")
    add("--timesteps", metavar="LIST", help=f"such as 981,501,1 ({SHOWN} of all)")
    add("--heads", metavar="LIST", help="such as 0,3 (the mean over all)")
    add("--steps", type=int, default=50, metavar="N", help="of the inversion, or of making a picture (50)")
    add("--seed", type=int, default=42, help="of a picture that is made (42)")
    old_spellings(add("--scale", "--guidance_scale", dest="guidance_scale", type=float,
                      help="guidance of a picture that is made (as the model's YAML says, or 7.5)"))  # fmt: skip
    add("--H", type=int, help="height in pixels")
    add("--W", type=int, help="width in pixels")
    add("--crop", action="store_true", help="cut a square out of the middle")
    add("--longest", type=int, metavar="N", help="the longer side in pixels (512)")
    add("--save", type=Path, metavar="FILE", help="write q, k and sim as .safetensors")
    old_spellings(add("--outdir", "--out", type=Path, default=Path("outputs/attention"),
                      help="folder for the results (outputs/attention)"))  # fmt: skip
    add("--ckpt", metavar="FILE", help="weights in any format (the small model)")
    old_spellings(add("--config", "--model_config", dest="config", metavar="FILE", help="the model's YAML"))
    add("--precision", choices=["full", "bf16", "fp16"], default="full", help="of the weights")
    add("--device", help="cpu, cuda, ... (a GPU if there is one)")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args()


def check(given: argparse.Namespace) -> None:
    """Refuse what can be refused before a model is loaded, and fill in the sample.

    Raises:
        UserError: options that do not go together.
    """
    if given.word is not None and given.prompt is None:
        raise UserError(f"the word '{given.word}' needs the prompt that it stands in: add --prompt")
    if sum((bool(given.xy), given.word is not None, given.pca is not None)) > 1:
        raise UserError("one thing at a time: --xy, --word or --pca")
    if given.steps < 1:
        raise UserError(f"--steps must be at least 1, got {given.steps}")
    if given.save is not None and given.save.suffix != ".safetensors":
        raise UserError(f"--save writes a .safetensors file, not '{given.save}'")
    writable_folder(given.outdir, "--outdir")
    if given.save is not None:
        writable_folder(given.save.parent, "--save")
    if given.image is None and given.prompt is None:
        given.image = str(SAMPLE)
        given.xy = given.xy or ([] if given.pca else [SAMPLE_SPOT])
    if not (given.xy or given.word or given.pca):
        raise UserError("say what to look at: --xy X,Y, --word WORD or --pca q")
    if given.xy and given.image is None:
        raise UserError("--xy are pixels of a file: add --image")


def make_course(given: argparse.Namespace, studio: Studio) -> tuple[Course, list[Spot], str]:
    """The picture's way through the noise, the places that were asked for, and a name for the results.

    Raises:
        UserError: the picture, a size or a place does not fit.
    """
    model = studio.model
    if given.image is not None:
        sizing = sizing_for(model, given.H, given.W, given.crop, given.longest or usual_side(studio.inference))
        picture = look_at(Path(given.image), sizing)
        spots = read_spots(given.xy, picture)
        course = course_of_picture(studio, picture, given.prompt or "", given.steps, progress=True)
        return course, spots, short_name(given.image)
    usual = usual_settings(studio)
    size = (given.H or int(usual["height"]), given.W or int(usual["width"]))
    scale = float(usual["guidance_scale"]) if given.guidance_scale is None else given.guidance_scale
    course = course_of_prompt(
        studio, given.prompt, size, steps=given.steps, seed=given.seed, guidance_scale=scale,
        noise_scale=checked_noise_scale(usual["noise_scale"]), progress=True,
    )
    return course, [], "_".join(given.prompt.split())[:60].replace("/", "_")


def maps(
    given: argparse.Namespace, model: Any, course: Course, layers: Sites, timesteps: list[float],
    heads: list[int] | None, spots: list[Spot], words: list[int],
) -> tuple[Cells, dict[str, Image.Image]]:  # fmt: skip
    """Overlays by layer and timestep, and their means by layer."""
    found = attention_to(model, course, layers, timesteps, heads, spots=spots, words=words)
    cells = {key: overlay(course.image, heat) for key, heat in found.items()}
    means = {site: np.mean([found[site, t] for t in timesteps], axis=0) for site in layers}
    return cells, {site: overlay(course.image, heat) for site, heat in means.items()}


def components(
    given: argparse.Namespace, model: Any, course: Course, layers: Sites, timesteps: list[float],
    heads: list[int] | None,
) -> Cells:  # fmt: skip
    """Pictures of principal components; one set of components for all timesteps of a layer."""
    found = features_of(model, course, layers, timesteps, heads, given.pca)
    cells: Cells = {}
    for site in layers:
        pictures = component_pictures([found[site, t] for t in timesteps])
        for t, small in zip(timesteps, pictures, strict=True):
            cells[site, t] = small.resize(course.image.size, Image.Resampling.NEAREST)
    return cells


def main() -> None:
    given = parse()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    check(given)
    studio = open_studio(given.ckpt, given.config, device=given.device, precision=given.precision)
    model = studio.model
    kind = "residual" if given.pca == "residual" else "cross" if given.word is not None else "self"
    layers = choose_layers(model, given.layers or late_decoder(unet_of(model)), kind)
    heads = choose_heads(given.heads, model, layers) if kind != "residual" else None
    words = [] if given.word is None else word_positions(model, given.prompt, given.word)
    course, spots, name = make_course(given, studio)
    timesteps = choose_timesteps(given.timesteps, list(course.visited), SHOWN)

    means = None
    if given.pca:
        name, title = f"{name}_{given.pca}", f"{given.pca}: first three principal components as red, green, blue"
        cells = components(given, model, course, layers, timesteps, heads)
    else:
        name, title = (f"{name}_look", "where the marked place looks") if spots else (
            f"{name}_{given.word}", f"'{given.word}' in '{given.prompt}'"
        )  # fmt: skip
        cells, means = maps(given, model, course, layers, timesteps, heads, spots, words)
    path = free_path(given.outdir / f"{name}.png")
    name = path.stem
    save_figure(sheet(course.image, cells, title, spots, means), path)
    for (site, t), image in cells.items():
        told = f"{t:03.0f}" if t == round(t) else f"{t:.4f}"
        save_image(image, given.outdir / name / f"{short_layer(site).replace(' ', '')}_t{told}.png")
    if given.save is not None:
        if kind == "residual":
            raise UserError("--save writes q, k and sim of attention, which a residual block does not have")
        about = {"picture": given.image or "", "prompt": given.prompt or "", "steps": given.steps, "kind_of": kind,
                 "heads": "all" if heads is None else heads, "places": [(s.x, s.y) for s in spots]}  # fmt: skip
        keep(model, course, layers, timesteps, heads, spots).save(given.save, about)
    print(f"{path}, and each of its pictures in {given.outdir / name}")


if __name__ == "__main__":
    run_command(main)
