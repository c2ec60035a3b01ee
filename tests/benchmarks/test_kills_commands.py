"""The runs that benchmarks.kills disturbs: their options and data sets are those of today's YAMLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kills_commands import COMMANDS, prepare
from ldm.training.config import apply_personalization, read_config
from ldm.training.options import parse
from ldm.util import instantiate_from_config
from tests.helpers import ROOT


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.module == "train"])
def test_the_data_of_a_training_can_be_made(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    prepare(tmp_path / "inputs")
    options, changes = parse(COMMANDS[name].arguments(tmp_path, tmp_path / "inputs"))
    config = read_config(options.base, changes)
    apply_personalization(config, options)
    sets = [config.data.params[part] for part in ("train", "validation") if part in config.data.params]
    assert sets
    for node in sets:
        assert len(instantiate_from_config(node)) > 0
