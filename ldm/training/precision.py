"""The precision of a run on a processor without arithmetic for the one that its YAML asks for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

log = logging.getLogger(__name__)

BFLOAT16 = ("bf16-mixed", "bf16-true", "bf16")


def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16; others imitate it, about ten times slower than float32."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def affordable(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The Trainer's settings, with float32 in the place of a bfloat16 that a CPU would have to imitate.

    A run's losses agree with those of bfloat16 to about a hundredth then.
    """
    on_cpu = trainer.get("accelerator", "auto") == "cpu" or not torch.cuda.is_available()
    if trainer.get("precision") not in BFLOAT16 or not on_cpu or has_bfloat16():
        return dict(trainer)
    log.warning("this processor has no bfloat16 arithmetic: '%s' becomes float32, which is quicker here",
                trainer["precision"])  # fmt: skip
    return {**trainer, "precision": "32-true"}
