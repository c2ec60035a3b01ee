"""Train what a YAML describes: ``python main.py -b configs/tiny/ldm.yaml -t``, or ``ldm-train``; docs/training.md."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from ldm.stopping import listen


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the class pictures that DreamBooth lacks, where they are asked for, and train.

    Raises:
        UserError: as ``ldm.training.launch.main`` and ``ldm.workflows.class_pictures.make_class_pictures``.
    """
    from ldm.training import launch  # imported here: it takes long enough for a Ctrl-C
    from ldm.training.options import parse

    given = list(sys.argv[1:] if arguments is None else arguments)
    options, changes = parse(given)
    if options.num_class_images and not options.resume:
        class_pictures(options, changes)
    launch.main(given)


def class_pictures(options: argparse.Namespace, changes: list[str]) -> None:
    """Raises UserError: nobody says where they go, what they show, or which model makes them."""
    from omegaconf import OmegaConf

    from ldm.training.config import read_config
    from ldm.util import UserError
    from ldm.workflows.class_pictures import make_class_pictures

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for flag, value in (("--reg_data_root", options.reg_data_root), ("--class_word", options.class_word)):
        if not value:
            raise UserError(f"--num_class_images needs {flag} as well")
    config = read_config(options.base, changes)
    ckpt = options.actual_resume or OmegaConf.select(config, "model.params.ckpt_path")
    if not ckpt:
        raise UserError("--num_class_images needs the base model's weights: --actual_resume")
    make_class_pictures(options.reg_data_root, options.class_word, options.num_class_images, config, ckpt, options.seed)


def run() -> None:
    """``main`` with exit codes, see ``run_command``."""
    from ldm.running import run_command

    run_command(main)


def command() -> None:
    """The console command: ``run`` in a process of its own."""
    listen()
    run()
