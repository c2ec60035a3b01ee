"""Pictures in the manner of others: ``python run_styleid.py --cnt photo.jpg``, or ``ldm-styleid``; docs/styleid.md."""

from __future__ import annotations

import argparse
import logging

from ldm.arguments import Parser
from ldm.building.errors import UserError
from ldm.stopping import listen
from ldm.workflows.options import add_flags, old_spellings

EXAMPLES = """examples:
    python run_styleid.py                                                # the small model on the bundled samples
    python run_styleid.py --cnt photos --sty paintings --batch 4         # folders: every content with every style
    python run_styleid.py --pairs examples/styleid/pairs.txt --gamma 0.3         # chosen pairs, with masks
    python run_styleid.py --cnt_prompt "a penguin in the snow" --sty paintings   # the content is generated
    python run_styleid.py --cnt film.mp4 --sty painting.jpg --fast --batch 4     # a film (.gif, .webp)
"""
GUIDED = ("boxes", "excite", "edit", "reweight")  # of txt2img; said here so that somebody who asks is told


def parse() -> argparse.Namespace:
    """Only what was given; the defaults are those of ``ldm.workflows.restyle.plan.StyleIDOptions``."""
    from ldm.workflows.restyle.recipe import Recipe

    parser = Parser(
        description="Restyle pictures: every content with every style.", epilog=EXAMPLES,
        argument_default=argparse.SUPPRESS,
    )  # fmt: skip
    what_to_restyle(parser.add_argument_group("what to restyle"))
    add_flags(parser.add_argument_group("how"), Recipe)
    what_of_films(parser.add_argument_group("films"))
    what_with(parser.add_argument_group("with what, and where results go"))
    return parser.parse_args()


def what_to_restyle(group: argparse._ArgumentGroup) -> None:
    """The options that say which pictures are restyled, after which, and how they are cut."""
    add = group.add_argument
    add("--cnt", metavar="PATH", help="content: a picture, a film or a folder (bundled samples)")
    add("--cnt_prompt", nargs="+", metavar="PROMPT", help="contents to generate, by this model, instead of --cnt")
    add("--cnt_prompts", metavar="PATH", help="a file with such a prompt a line, or a folder of such .txt files")
    add("--scale", type=float, help="guidance of generated contents (the model's)")
    add("--sty", metavar="PATH", help="style: a picture or a folder (bundled samples)")
    add("--pairs", metavar="FILE", help="a line each: content, style, style, ...")
    add("--mask", "--masks", dest="masks", nargs="*", metavar="FILE",
        help="a mask for each style, or 'none' (those beside the content: <content>_mask.npy, _mask0.npy, ...)")
    add("--no_masks", dest="masks", action="store_const", const=["none"], help="leave out the masks beside contents")
    add("--H", type=int, help="height in pixels; the middle of each picture is cut out (aspect kept, longest side 512)")
    add("--W", type=int, help="width in pixels; one of the two means a square")
    add("--crop", action="store_true", help="cut a square out of the middle, 512x512 or as --longest says")
    add("--longest", type=int, metavar="N", help="the longer side in pixels, when it is not cut (512)")


def what_of_films(group: argparse._ArgumentGroup) -> None:
    """The options for contents that are films."""
    from ldm.workflows.restyle.plan import StyleIDOptions

    add = group.add_argument
    add("--film", action="store_true", help="a folder that --cnt names holds films, or the frames of one")
    add("--steady", type=float, metavar="SHARE",
        help="how far what does not move stays as it was: 0 restyles frame by frame (1)")  # fmt: skip
    add("--num_frames", type=int, metavar="N", help="only the first N frames (all)")
    add("--fps", type=float, help="frames a second of the result (the film's; 8 of a folder)")
    add("--formats", nargs="+", help=f"some of {' '.join(StyleIDOptions.formats)} (all)")


def what_with(group: argparse._ArgumentGroup) -> None:
    """The options that say with what it is done, on what, and where results go."""
    from ldm.additions.lora.lora import DORA_RULES

    add = group.add_argument
    add("--ckpt", metavar="FILE", help="weights in any format (the small model)")
    old_spellings(add("--config", "--model_config", dest="model_config", metavar="FILE",
                      help="the model's YAML (config.yaml beside the weights)"))  # fmt: skip
    add("--lora", nargs="+", metavar="FILE[=SCALE]", help="LoRA files that are on the model while it restyles")
    add("--lora_dora", choices=DORA_RULES, help="how other scales than 1 act with DoRA (interpolate)")
    add("--precision", choices=["full", "autocast", "bf16", "fp16"], help="autocast: sampling is mixed on a GPU")
    add("--device", help="cpu, cuda, cuda:1, ... (a GPU if there is one)")
    add("--precomputed", metavar="FOLDER", help='where inversions are kept (precomputed_feats); "" keeps none')
    add("--features", choices=["memory", "disk", "replay"], help="how features are kept (memory)")
    add("--feature_gb", type=float, metavar="GB", help="features kept in memory beside those in use (2)")
    add("--batch", type=int, metavar="N", help="contents of one style that are made together (1)")
    old_spellings(add("--outdir", "--output_path", dest="output_path", metavar="FOLDER",
                      help="where results go (outputs/styleid)"))  # fmt: skip
    add("--no_sheet", action="store_true", help="no contact sheet")
    for name in GUIDED:
        add(f"--{name}", nargs="?", help=argparse.SUPPRESS)
    add("--C", type=int, dest="channels", help=argparse.SUPPRESS)
    add("--f", type=int, dest="factor", help=argparse.SUPPRESS)
    add("--trust_config", action="store_true", help="the YAML beside the weights may name classes of any package")
    add("--debug", action="store_true", help="show the traceback of an error")


def main() -> None:
    """Restyle what the command line asks for, and print how many pictures there are and where.

    Raises:
        UserError: guidance by attention is asked for; else as ``ldm.workflows.restyle.styleid.styleid``.
    """
    given = vars(parse())
    for ignored in ("debug", "channels", "factor"):  # the model knows its channels and its factor
        given.pop(ignored, None)
    guided = next((name for name in GUIDED if name in given), None)
    if guided is not None:
        raise UserError(f"--{guided} is for what txt2img.py makes: make the content with it and name that by --cnt")
    if "masks" in given:
        given["masks"] = [part for item in given["masks"] for part in item.split(",") if part] or None
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from ldm.workflows.restyle.films import films_of
    from ldm.workflows.restyle.plan import StyleIDOptions
    from ldm.workflows.restyle.styleid import styleid

    options = StyleIDOptions(**given)
    results = styleid(options)
    what = "film" if films_of(options) else "picture"
    if len(results) == 1:
        print(f"the {what} is {results[0].path}")
    else:
        print(f"{len(results)} {what}s are in {options.output_path}")


def run() -> None:
    """``main`` with exit codes, see ``run_command``."""
    from ldm.running import run_command

    run_command(main)


def command() -> None:
    """The console command: ``run`` in a process of its own."""
    listen()
    run()
