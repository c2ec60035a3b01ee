"""The flags that several commands share, and how a command that makes pictures runs."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Collection
from typing import Any

from ldm.arguments import Parser
from ldm.workflows.options import old_spellings


def new_parser(description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser that tells only what was given; defaults are those of the options of the workflow."""
    return Parser(description=description, epilog=epilog, argument_default=argparse.SUPPRESS)


def picture_flags(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """All flags of ``Txt2ImgOptions``."""
    from ldm.workflows.extras import ExtraOptions
    from ldm.workflows.guide.options import GuideOptions
    from ldm.workflows.options import add_flags
    from ldm.workflows.xl_options import RefinerOptions, SizeOptions

    prompt_flags(parser)
    file_flags(parser)
    word_flags(parser)
    sampling_flags(parser)
    size_flags(parser)
    number_flags(parser)
    add_flags(parser.add_argument_group("more than one plain picture, see docs/sampling.md"), ExtraOptions, without)
    add_flags(parser.add_argument_group("guidance by attention, see docs/guidance.md"), GuideOptions, without)
    of_xl = parser.add_argument_group("Stable Diffusion XL, see docs/sdxl.md")
    add_flags(of_xl, SizeOptions, without)
    add_flags(of_xl, RefinerOptions, without)
    device_flags(parser)


def prompt_flags(parser: argparse.ArgumentParser) -> None:
    """What is drawn."""
    add = parser.add_argument
    add("--prompt", help="what to draw; 'a | b' is two prompts")
    add("--negative_prompt", help="what to lead away from")
    add("--long_prompts", action="store_true",
        help="CLIP's encoders read a long prompt in chunks of 75 tokens; BREAK ends one")
    add("--lang", metavar="LANG", help="of the prompts: en, ko, zh or auto (auto: by each one's script)")
    add("--from-file", dest="from_file", metavar="FILE", help="a file with one prompt a line, in place of --prompt")


def file_flags(parser: argparse.ArgumentParser) -> None:
    """Where pictures go, and which model makes them."""
    add = parser.add_argument
    add("--outdir", help="where to put pictures (in outputs/)")
    add("--skip_grid", action="store_true", help="no sheet of all pictures")
    add("--skip_save", action="store_true", help="no single pictures")
    old_spellings(add("--ckpt", "--ckpt_path", dest="ckpt", metavar="FILE",
                      help="weights in any format, or latest[:RUN] (the small model)"))  # fmt: skip
    add("--config", metavar="FILE", help="the model's YAML (config.yaml beside the weights, or as their shapes tell)")
    add("--vae", metavar="FILE", help="weights of an autoencoder in place of the checkpoint's")


def word_flags(parser: argparse.ArgumentParser) -> None:
    """What is put on the model for a while."""
    from ldm.additions.lora.lora import DORA_RULES

    add = parser.add_argument
    add("--embedding_path", nargs="+", metavar="FILE[=NAME]",
        help="files of learned words, or latest[:RUN]; NAME renames the word")
    add("--adapter_path", metavar="FILE", help="adapters of the text encoder that were learned with the words")
    add("--lora", nargs="+", metavar="FILE[=SCALE]", help="LoRA files; a prompt calls further ones by <lora:name:0.8>")
    add("--lora_dir", metavar="FOLDER", help="where <lora:name:0.8> looks for files (models/lora)")
    add("--lora_dora", choices=DORA_RULES, help="how other scales than 1 act with DoRA (interpolate)")


def sampling_flags(parser: argparse.ArgumentParser) -> None:
    """How the noise is walked down."""
    add = parser.add_argument
    add("--steps", "--ddim_steps", dest="steps", type=int, metavar="N", help="sampling steps (50, or as the YAML says)")
    add("--sampler", help="ddim, plms, euler, euler_ancestral, heun, lms, dpm_solver or dpmpp_2s_ancestral (ddim, or "
                          "as the YAML says); NAME_karras walks along Karras's levels, NAME:s_churn=10 has options")
    add("--plms", dest="sampler", action="store_const", const="plms", help="the same as --sampler plms")
    old_spellings(add("--dpm_solver", "--dpm", dest="sampler", action="store_const", const="dpm_solver",
                      help="as --sampler dpm_solver"))  # fmt: skip
    add("--ddim_eta", dest="eta", type=float, metavar="ETA", help="fresh noise in DDIM: 0 none (default), 1 as DDPM")
    add("--noise_scale", type=float, metavar="S",
        help="times the start noise: below 1 pictures are less by chance (1, or as the YAML says)")
    add("--settle", type=int, metavar="N",
        help="at the end, half way to the mean of what the model expects under N noises (0: off; or as the YAML says)")
    old_spellings(add("--scale", "--guidance_scale", dest="guidance_scale", type=float,
                      help="guidance (7.5, or as the YAML says); 1 is without"))  # fmt: skip


def size_flags(parser: argparse.ArgumentParser) -> None:
    """How large pictures are."""
    add = parser.add_argument
    add("--H", dest="height", type=int, help="height in pixels")
    add("--W", dest="width", type=int, help="width in pixels")
    add("--C", dest="channels", type=int, help="latent channels; the model knows them, this is only checked")
    add("--f", dest="factor", type=int, help="downsampling factor; the model knows it, this is only checked")


def number_flags(parser: argparse.ArgumentParser) -> None:
    """How many pictures, and which."""
    add = parser.add_argument
    add("--seed", type=int, help="of the first picture; each further one has the next; -1 draws one (42)")
    add("--fixed_code", action="store_true", help="the same start noise for every batch")
    add("--n_iter", type=int, help="batches of a prompt, or passes over the file (1)")
    add("--n_samples", type=int, help="pictures in a batch (4)")
    add("--n_rows", type=int, help="columns of the sheet (n_samples)")


def device_flags(parser: argparse.ArgumentParser) -> None:
    """Where and how the model computes."""
    add = parser.add_argument
    add("--precision", choices=["full", "autocast", "bf16", "fp16"], help="autocast: mixed on a GPU, full on a CPU")
    add("--device", help="cpu, cuda, cuda:1, ... (a GPU if there is one)")
    add("--trust_config", action="store_true", help="the YAML beside the weights may name classes of any package")
    add("--debug", action="store_true", help="show the traceback of an error")


def init_flags(parser: argparse.ArgumentParser, what: str, sized: bool = True) -> None:
    """The picture that a command begins from."""
    add = parser.add_argument
    old_spellings(add("--init-img", "--init_img", dest="init_img", metavar="PATH", help=what))
    if sized:
        add("--longest", type=int, metavar="N", help="no side of it gets longer, in pixels")


def make_pictures(options: Any, workflow: Callable[[Any], list[Any]]) -> None:
    """Run a workflow and print how many pictures there are and where.

    Raises:
        UserError: as the workflow.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    images = workflow(options)
    if not (options.skip_save and options.skip_grid):
        print(f"{len(images)} {'picture is' if len(images) == 1 else 'pictures are'} in {options.outdir}")
