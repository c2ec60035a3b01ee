"""The YAMLs of the second edition train what they trained: the first losses of each are on record, to the last digits.

``second_losses.json`` was recorded by these commands, on one thread. Weights that a stage needs and that are not in the
repository are stood in for by the first edition's, widened: what is compared is the first steps from there.
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

from tests.helpers import ROOT

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "second_losses.json").read_text())
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
OPTIONS = (
    "lightning.trainer.log_every_n_steps=1",
    "lightning.trainer.enable_progress_bar=false",
    "lightning.callbacks.image_logger.params.disabled=true",
)


def run(*command: str) -> None:
    result = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the start weights: autoencoder and UNet."""
    folder = tmp_path_factory.mktemp("start")
    for stage, name in (("autoencoder", "autoencoder"), ("ldm", "unet")):
        run("-m", "scripts.widen", f"configs/tiny2/{stage}.yaml", "models/ldm/tiny/model.safetensors",
            str(folder / f"{name}.safetensors"))  # fmt: skip
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDED)
def test_a_short_run_has_the_first_losses(name: str, start: Path, tmp_path: Path) -> None:
    record = RECORDED[name]
    options = [option.format(start=start, out=tmp_path) for option in record["options"]]
    steps = len(record["values"])
    run("main.py", "-b", f"configs/tiny2/{name}.yaml", "-t", "--scale_lr", "false", "--name", name,
        "--logdir", str(tmp_path), *OPTIONS, f"lightning.trainer.max_steps={steps}", *options)  # fmt: skip
    (metrics,) = tmp_path.glob("*/metrics/version_0/metrics.csv")
    with metrics.open() as file:
        losses = [float(row[record["column"]]) for row in csv.DictReader(file) if row[record["column"]]]
    assert losses == pytest.approx(record["values"], rel=2e-4)  # processors sum in another order
