"""Prompts to pictures: ``python txt2img.py --prompt "a red circle"``, or ``ldm-txt2img``; see docs/sampling.md."""

from __future__ import annotations

import argparse

from ldm.commands.flags import make_pictures, new_parser, picture_flags
from ldm.stopping import listen

EXAMPLES = """examples:
    python txt2img.py --prompt "a small red star on a blue background"               # the small model
    python txt2img.py --prompt "a small * on blue" --embedding_path latest:NAME      # a word that was learned
    python txt2img.py --from-file prompts.txt --ckpt MODEL.ckpt --config MODEL.yaml --steps 30 --scale 7.5
"""


def parse() -> argparse.Namespace:
    """Only what was given; the defaults are those of ``ldm.workflows.txt2img.Txt2ImgOptions``."""
    parser = new_parser("Make pictures from prompts.", EXAMPLES)
    picture_flags(parser)
    return parser.parse_args()


def main() -> None:
    """Make what the command line asks for, and print how many pictures there are and where.

    Raises:
        UserError: as ``ldm.workflows.txt2img.txt2img``.
    """
    given = vars(parse())
    given.pop("debug", None)

    from ldm.workflows.txt2img import Txt2ImgOptions, txt2img

    make_pictures(Txt2ImgOptions(**given), txt2img)


def run() -> None:
    """``main`` with exit codes, see ``run_command``."""
    from ldm.running import run_command

    run_command(main)


def command() -> None:
    """The console command: ``run`` in a process of its own."""
    listen()
    run()
