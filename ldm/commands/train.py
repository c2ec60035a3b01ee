"""Train what a YAML describes: ``python main.py -b configs/tiny/ldm.yaml -t``, or ``ldm-train``; docs/training.md."""

from __future__ import annotations

from ldm.training.launch import main
from ldm.util import run_command


def run() -> None:
    """The console command: ``main`` with exit codes, see ``run_command``."""
    run_command(main)
