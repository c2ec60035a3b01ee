"""Prompts to pictures: ``python txt2img.py --prompt "a red circle"``, or ``ldm-txt2img``; see docs/sampling.md."""

from __future__ import annotations

import argparse
import logging

from ldm.stopping import listen
from ldm.workflows.options import old_spellings

EXAMPLES = """examples:
    python txt2img.py --prompt "a small red star on a blue background"               # the small model
    python txt2img.py --prompt "a small * on blue" --embedding_path latest:NAME      # a word that was learned
    python txt2img.py --from-file prompts.txt --ckpt MODEL.ckpt --config MODEL.yaml --steps 30 --scale 7.5
"""


def parse() -> argparse.Namespace:
    """Only what was given; the defaults are those of ``ldm.workflows.txt2img.Txt2ImgOptions``."""
    from ldm.additions.lora.lora import DORA_RULES
    from ldm.workflows.guide.options import GuideOptions
    from ldm.workflows.options import add_flags

    parser = argparse.ArgumentParser(
        description="Make pictures from prompts.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter, argument_default=argparse.SUPPRESS,
    )  # fmt: skip
    add = parser.add_argument
    add("--prompt", help="what to draw")
    add("--negative_prompt", help="what to lead away from")
    add("--long_prompts", action="store_true",
        help="CLIP's encoders read a long prompt in chunks of 75 tokens; BREAK ends one")
    add("--lang", metavar="LANG", help="of the prompts: en, ko, zh or auto (auto: by each one's script)")
    add("--from-file", dest="from_file", metavar="FILE", help="a file with one prompt a line, in place of --prompt")
    add("--outdir", help="where to put pictures (outputs/txt2img-samples)")
    add("--skip_grid", action="store_true", help="no sheet of all pictures")
    add("--skip_save", action="store_true", help="no single pictures")
    old_spellings(add("--ckpt", "--ckpt_path", dest="ckpt", metavar="FILE",
                      help="weights in any format, or latest[:RUN] (the small model)"))  # fmt: skip
    add("--config", metavar="FILE", help="the model's YAML (config.yaml beside the weights)")
    add("--embedding_path", nargs="+", metavar="FILE[=NAME]",
        help="files of learned words, or latest[:RUN]; NAME renames the word")
    add("--adapter_path", metavar="FILE", help="adapters of the text encoder that were learned with the words")
    add("--lora", nargs="+", metavar="FILE[=SCALE]", help="LoRA files; a prompt calls further ones by <lora:name:0.8>")
    add("--lora_dir", metavar="FOLDER", help="where <lora:name:0.8> looks for files (models/lora)")
    add("--lora_dora", choices=DORA_RULES, help="how other scales than 1 act with DoRA (interpolate)")
    add("--steps", "--ddim_steps", dest="steps", type=int, metavar="N", help="sampling steps (50, or as the YAML says)")
    add("--sampler", help="ddim, plms, euler, euler_ancestral, heun, lms, dpm_solver or dpmpp_2s_ancestral (ddim, or "
                          "as the YAML says)")
    add("--plms", dest="sampler", action="store_const", const="plms", help="the same as --sampler plms")
    add("--dpm_solver", dest="sampler", action="store_const", const="dpm_solver", help="as --sampler dpm_solver")
    add("--ddim_eta", dest="eta", type=float, metavar="ETA", help="fresh noise in DDIM: 0 none (default), 1 as DDPM")
    old_spellings(add("--scale", "--guidance_scale", dest="guidance_scale", type=float,
                      help="guidance (7.5, or as the YAML says); 1 is without"))  # fmt: skip
    add("--H", dest="height", type=int, help="height in pixels")
    add("--W", dest="width", type=int, help="width in pixels")
    add("--C", dest="channels", type=int, help="latent channels; the model knows them, this is only checked")
    add("--f", dest="factor", type=int, help="downsampling factor; the model knows it, this is only checked")
    add("--seed", type=int, help="of the first picture; each further one has the next; -1 draws one (42)")
    add("--fixed_code", action="store_true", help="the same start noise for every batch")
    add("--n_iter", type=int, help="batches of a prompt, or passes over the file (1)")
    add("--n_samples", type=int, help="pictures in a batch (4)")
    add("--n_rows", type=int, help="columns of the sheet (n_samples)")
    add("--precision", choices=["full", "autocast", "bf16", "fp16"], help="autocast: mixed on a GPU, full on a CPU")
    add("--device", help="cpu, cuda, cuda:1, ... (a GPU if there is one)")
    add_flags(parser.add_argument_group("guidance by attention, see docs/guidance.md"), GuideOptions)
    add("--trust_config", action="store_true", help="the YAML beside the weights may name classes of any package")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args()


def main() -> None:
    """Make what the command line asks for, and print how many pictures there are and where.

    Raises:
        UserError: as ``ldm.workflows.txt2img.txt2img``.
    """
    given = vars(parse())
    given.pop("debug", None)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from ldm.workflows.txt2img import Txt2ImgOptions, txt2img

    options = Txt2ImgOptions(**given)
    images = txt2img(options)
    if not (options.skip_save and options.skip_grid):
        print(f"{len(images)} {'picture is' if len(images) == 1 else 'pictures are'} in {options.outdir}")


def run() -> None:
    """``main`` with exit codes, see ``run_command``."""
    from ldm.running import run_command

    run_command(main)


def command() -> None:
    """The console command: ``run`` in a process of its own."""
    listen()
    run()
