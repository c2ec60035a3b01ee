"""Train what a YAML describes: ``python main.py -b configs/tiny/ldm.yaml -t``; see docs/training.md.

Public YAMLs name the classes that are imported here (``main.DataModuleFromConfig``).
"""

from __future__ import annotations

from ldm.commands.train import command, run

if __name__ == "__main__":
    command()
else:  # a command imports them in its own time
    from ldm.training.callbacks import CUDACallback, SetupCallback
    from ldm.training.datamodule import DataModuleFromConfig
    from ldm.training.image_logger import ImageLogger

__all__ = ["CUDACallback", "DataModuleFromConfig", "ImageLogger", "SetupCallback", "run"]
