"""Train what a YAML describes: ``python main.py -b configs/tiny/ldm.yaml -t``; see docs/training.md."""

from __future__ import annotations

from ldm.training.callbacks import CUDACallback, SetupCallback
from ldm.training.datamodule import DataModuleFromConfig
from ldm.training.image_logger import ImageLogger
from ldm.training.launch import main
from ldm.util import run_command

__all__ = ["CUDACallback", "DataModuleFromConfig", "ImageLogger", "SetupCallback"]

if __name__ == "__main__":
    run_command(main)
