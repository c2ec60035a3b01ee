"""How much memory a run has needed."""

from __future__ import annotations

import resource
import sys

import torch


def peak_memory() -> str:
    """The most memory that this process has held until now, and on a GPU what torch has allocated, in words."""
    unit = 1 if sys.platform == "darwin" else 1024
    text = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB"
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        text += f", {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB on the GPU"
    return text
