"""The YAMLs that made the shipped model still make it: a few steps of each have the losses that are on record.

``first_losses.json`` was recorded by these commands. Twenty steps of each, with latents cached as in the YAMLs, have at
step 19, the first that the runs of the shipped weights logged, the same loss as those in all digits. Other processors
and thread counts sum bfloat16 products in another order, so a thousandth is allowed; those without bfloat16 arithmetic
take float32, and may differ by a hundredth.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ldm.training.precision import has_bfloat16
from tests.helpers import ROOT

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "first_losses.json").read_text())
OPTIONS = (
    "lightning.trainer.log_every_n_steps=1",
    "lightning.trainer.enable_progress_bar=false",
    "lightning.callbacks.image_logger.params.disabled=true",
)


@pytest.mark.parametrize("name", RECORDED["losses"])
def test_a_short_run_has_the_first_losses_of_the_long_one(name: str, tmp_path: Path) -> None:
    record = RECORDED["losses"][name]
    command = [
        sys.executable, "main.py", "-b", f"configs/tiny/{name}.yaml", "-t", "--scale_lr", "false", "--name", name,
        "--logdir", str(tmp_path), *OPTIONS, f"lightning.trainer.max_steps={len(record['values'])}", *record["options"],
    ]  # fmt: skip
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    (metrics,) = tmp_path.glob("*/metrics/version_0/metrics.csv")
    with metrics.open() as file:
        losses = [float(row[record["column"]]) for row in csv.DictReader(file) if row[record["column"]]]
    tolerance = record["tolerance"] if has_bfloat16() else 0.01
    assert losses == pytest.approx(record["values"], rel=tolerance)
