"""The YAMLs behind the shipped models, and those that were tried, still begin as they did: first losses are on record.

``first_losses.json`` was recorded by these commands, in float32 on one thread, with two pictures where the YAML has
hundreds: a GPU's bfloat16 does not repeat here. What a stage begins from is taken out of the shipped model.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ldm.checkpoint import read_state_dict, save_state_dict
from ldm.shipped import TINY
from ldm.world.drawn import write_drawn
from ldm.world.scene import Scene
from ldm.world.scenes import SceneWorld
from tests import forked
from tests.helpers import ROOT
from tests.training.small_yamls import write_patches

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "first_losses.json").read_text())
FIRST_STAGE = "first_stage_model."
OPTIONS = (
    "lightning.trainer.log_every_n_steps=1",
    "lightning.trainer.enable_progress_bar=false",
    "lightning.trainer.precision=32-true",
    "lightning.compile=false",
    "data.params.num_workers=0",
)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = read_state_dict(TINY / "model.safetensors").items()
    path = tmp_path_factory.mktemp("start") / "autoencoder.safetensors"
    save_state_dict({name.removeprefix(FIRST_STAGE): w.float() for name, w in weights if FIRST_STAGE in name}, path)
    return path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes whose latents are noise, in place of drawn ones."""
    folder = tmp_path_factory.mktemp("drawn")
    scenes = [content for content in SceneWorld(length=4, figures=0.0).contents(range(4)) if isinstance(content, Scene)]
    write_drawn(folder, 0, np.random.default_rng(0).normal(size=(4, 24, 16, 16)), scenes)
    return folder


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Errors and pictures in a few patches, which are noise."""
    folder = tmp_path_factory.mktemp("patches")
    write_patches(folder)
    return folder


def few(node: Any) -> Any:
    """A node of a YAML with batches of two, whole batches aside, and a data set of a few pictures."""
    if isinstance(node, list):
        return [few(item) for item in node]
    if not isinstance(node, dict):
        return node
    small = {key: few(value) for key, value in node.items()}
    if small.get("batch_size", 1) > 1:
        small["batch_size"] = 2
    return small | ({"length": 8} if small.get("length") in (3072, 65536, 163840) else {})


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDED)
def test_a_short_run_has_the_first_losses(
    name: str, autoencoder: Path, drawn: Path, patches: Path, tmp_path: Path
) -> None:
    record = RECORDED[name]
    config = tmp_path / f"{name}.yaml"
    (shipped,) = ROOT.glob(f"configs/tiny*/{name}.yaml")
    text = yaml.safe_dump(few(yaml.safe_load(shipped.read_text())))
    for folder in ("outputs/drawn", "outputs/even", "outputs/outlined"):
        text = text.replace(folder, str(drawn))
    for kind in ("errors", "patches"):
        text = text.replace(f"outputs/{kind}", str(patches / kind))
    config.write_text(text)
    options = [option.format(autoencoder=autoencoder, model=TINY / "model.safetensors") for option in record["options"]]
    result = forked.run(
        "main.py", "-b", config, "-t", "--scale_lr", "false", "--name", name, "--logdir", tmp_path, *OPTIONS,
        f"lightning.trainer.max_steps={len(record['values'])}", *options,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    (metrics,) = tmp_path.glob("*/metrics/version_0/metrics.csv")
    with metrics.open() as file:
        losses = [float(row[record["column"]]) for row in csv.DictReader(file) if row[record["column"]]]
    assert losses == pytest.approx(record["values"], rel=2e-4)  # processors sum in another order
