"""Logits of attention before and after a style is injected or mixed in, at chosen places of a content.

    python -m scripts.attention_histogram --xy 97,66 --timesteps 801,401                # the bundled samples
    python -m scripts.attention_histogram --cnt photo.jpg --sty art.jpg --xy 120,80
    python -m scripts.attention_histogram --cnt photo.jpg --sty a.jpg b.jpg --masks a.npy b.npy --inside a.npy

Before is the content's attention to itself during its inversion, after is what the same queries do to keys of the style
(or of content and styles) while the stylised picture is sampled. Written to --outdir: a PNG with both pictures and the
histograms of each head, and two CSV files: logits, mass, entropy and largest keys of each query, and the histograms.
"""

from __future__ import annotations

import argparse
import logging
from itertools import chain
from pathlib import Path

from ldm.arguments import Parser
from ldm.pictures.images import save_image
from ldm.pictures.masks import find_masks, short_name
from ldm.pictures.numbered import free_path
from ldm.pictures.sizing import Picture, open_mask
from ldm.shipped import SAMPLES
from ldm.util import UserError, run_command, writable_folder
from ldm.workflows.look.attention_numbers import histograms, numbers, restyle_and_look, write_csv
from ldm.workflows.look.inspection import (
    Spot,
    check_count,
    choose_heads,
    choose_layers,
    choose_timesteps,
    draw_spots,
    read_spots,
    spots_in,
)
from ldm.workflows.look.inspection_plots import plot_histograms, save_figure
from ldm.workflows.options import add_flags, given_flags, old_spellings
from ldm.workflows.restyle.checks import checked
from ldm.workflows.restyle.features import make_cache
from ldm.workflows.restyle.jobs import Job, make_jobs
from ldm.workflows.restyle.pairs import Pair, check_masks
from ldm.workflows.restyle.plan import NO_MASKS, StyleIDOptions
from ldm.workflows.restyle.recipe import Recipe
from ldm.workflows.restyle.setting import Setting, make_setting
from ldm.workflows.restyle.usual import as_usual
from ldm.workflows.studio import open_studio

SAMPLE_CONTENT, SAMPLE_STYLE = SAMPLES / "cnt" / "cat.jpg", SAMPLES / "sty" / "shapes.jpg"
SAMPLE_SPOT = "97,66"  # the cat's eye
OWN = ("ddim_inv_steps", "save_feat_steps", "seed")  # flags that are others here


def parse() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--cnt", metavar="FILE", default=str(SAMPLE_CONTENT), help="content (a bundled sample)")
    add("--sty", metavar="FILE", nargs="+", default=[str(SAMPLE_STYLE)], help="style, or several (a bundled sample)")
    old_spellings(add("--outdir", "--out", type=Path, default=Path("outputs/attention"),
                      help="folder for the results (outputs/attention)"))  # fmt: skip
    where = parser.add_argument_group("where to look")
    where.add_argument("--xy", nargs="+", default=[], metavar="X,Y", help="positions in pixels of the content's file")
    where.add_argument("--inside", metavar="FILE", help="all positions that a mask marks")
    where.add_argument("--random", type=int, metavar="N", help="so many at random, inside the mask or anywhere")
    where.add_argument("--seed", type=int, default=0, help="of --random (0)")
    where.add_argument("--layers", metavar="PATTERN", help="such as 6,7 or output_blocks.{6..8} (the last changed one)")
    where.add_argument("--timesteps", metavar="LIST", help="such as 801,401,1 (one in the middle)")
    where.add_argument("--heads", metavar="LIST", help="such as 0,3 (all)")
    how = parser.add_argument_group("how it is restyled, as in run_styleid.py")
    how.add_argument("--steps", type=int, default=50, metavar="N", help="of inversion and sampling (50)")
    add_flags(how, Recipe, without=OWN)
    how.add_argument("--masks", nargs="+", metavar="FILE", help="a mask for each style, or 'none'")
    how.add_argument("--H", type=int, help="height in pixels")
    how.add_argument("--W", type=int, help="width in pixels")
    how.add_argument("--crop", action="store_true", help="cut a square out of the middle")
    how.add_argument("--longest", type=int, metavar="N", help="the longer side in pixels (512)")
    how.add_argument("--precomputed", metavar="FOLDER", default="", help="where inversions are kept (nowhere)")
    how.add_argument("--ckpt", metavar="FILE", help="weights in any format (the small model)")
    old_spellings(how.add_argument("--config", "--model_config", dest="model_config", metavar="FILE",
                                   help="the model's YAML"))  # fmt: skip
    how.add_argument("--precision", choices=["full", "autocast", "bf16", "fp16"], default="autocast")
    how.add_argument("--device", help="cpu, cuda, ... (a GPU if there is one)")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args()


def styleid_options(given: argparse.Namespace) -> StyleIDOptions:
    same = ("H", "W", "crop", "longest", "precomputed", "ckpt", "model_config", "precision", "device")
    return StyleIDOptions(
        **{name: getattr(given, name) for name in same}, **given_flags(Recipe, given, without=OWN),
        ddim_inv_steps=given.steps, save_feat_steps=given.steps, progress=False,
    )  # fmt: skip


def the_pair(given: argparse.Namespace) -> Pair:
    """The content with all styles at once.

    Raises:
        UserError: the masks do not fit the styles.
    """
    content, styles = Path(given.cnt), [Path(style) for style in given.sty]
    masks = find_masks(content) if given.masks is None else [Path(mask) for mask in given.masks]
    masks = [] if given.masks is not None and tuple(given.masks) == NO_MASKS else masks
    check_masks(content, masks, len(styles), exact=True)
    name = f"{short_name(content)}_stylized_{'+'.join(map(short_name, styles))}"
    return Pair(content, tuple(styles), tuple(masks), name)


def the_spots(given: argparse.Namespace, content: Picture, factor: int) -> list[Spot]:
    """The places that the options name.

    Raises:
        UserError: none is left, they are too many, or one lies outside.
    """
    if given.xy and (given.inside or given.random is not None):
        raise UserError("give positions by --xy, or by --inside and --random, not both")
    if given.xy or not (given.inside or given.random is not None):
        if not given.xy and given.cnt != str(SAMPLE_CONTENT):
            raise UserError("say where to look: --xy X,Y, --inside MASK or --random N")
        return check_count(read_spots(given.xy or [SAMPLE_SPOT], content))
    mask = None
    if given.inside:
        mask = open_mask(Path(given.inside), content, content.sizing.crop is not None)
    spots = spots_in(mask, content.size, factor)
    return check_count(spots if given.random is None else draw_spots(spots, given.random, given.seed))


def the_job(options: StyleIDOptions, setting: Setting, pair: Pair) -> Job:
    """Raises UserError when a picture or a mask cannot be used."""
    jobs, _ = make_jobs(options, setting, [pair])
    return jobs[0]


def main() -> None:
    given = parse()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = checked(styleid_options(given))
    writable_folder(given.outdir, "--outdir")
    pair = the_pair(given)
    studio = open_studio(options.ckpt, options.model_config, device=options.device, precision=options.precision)
    options = as_usual(options, studio.inference)
    setting = make_setting(options, studio)
    job = the_job(options, setting, pair)
    spots = the_spots(given, job.content, int(studio.model.first_stage_model.factor))
    layers = choose_layers(studio.model, given.layers or setting.sites.names[-1], "self", setting.sites)
    middle = str(setting.timesteps[len(setting.timesteps) // 2])
    timesteps = choose_timesteps(given.timesteps or middle, setting.timesteps, 1)
    heads = choose_heads(given.heads, studio.model, layers)

    cache = make_cache(options, setting, [job])
    image, looks = restyle_and_look(setting, cache, job, spots, layers, timesteps, heads, progress=True)
    path = free_path(given.outdir / f"{pair.name}_histogram.png")
    name = path.stem.replace("_histogram", "")
    save_figure(plot_histograms(job.content.image(), image, spots, looks), path)
    save_image(image, given.outdir / f"{name}.png", job.parameters)
    write_csv(list(chain.from_iterable(numbers(one) for one in looks)), given.outdir / f"{name}_numbers.csv")
    write_csv(list(chain.from_iterable(histograms(one) for one in looks)), given.outdir / f"{name}_bins.csv")
    print(f"{path}, with _numbers.csv and _bins.csv beside it: {len(spots)} position(s), {len(looks)} x layer and step")


if __name__ == "__main__":
    run_command(main)
