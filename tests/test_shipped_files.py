"""What comes with the project is found from any folder; and threads that wait sleep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ldm.checkpoint import read_state_dict
from ldm.modules.encoders.wordpiece import load_wordpiece
from ldm.shipped import ROOT, here_or_shipped
from ldm.util import ConfigError, UserError, read_yaml
from ldm.workflows.files import find_model
from tests import helpers

WEIGHTS = "models/ldm/tiny/scorer.safetensors"
VOCABULARY = "models/ldm/tiny/vocab.txt"
YAML = "configs/tiny/ldm.yaml"


def test_files_of_the_project_are_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read_state_dict(ROOT / WEIGHTS)
    monkeypatch.chdir(tmp_path)
    assert read_yaml(YAML) == read_yaml(ROOT / YAML)
    assert load_wordpiece(VOCABULARY).get_vocab() == load_wordpiece(str(ROOT / VOCABULARY)).get_vocab()
    found = read_state_dict(WEIGHTS)
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)
    _, document = find_model("models/ldm/tiny/model.safetensors", YAML)
    assert document.model.params.unet_config == read_yaml(ROOT / YAML).model.params.unet_config


def test_the_working_directory_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path(YAML)
    own.parent.mkdir(parents=True)
    own.write_text("mine: 1\n")
    assert here_or_shipped(YAML) == own
    assert read_yaml(YAML) == {"mine": 1}


@pytest.mark.parametrize("name", ["README.md", "logs/last.ckpt", "configs/none.yaml", "/configs/tiny/ldm.yaml", ""])
def test_other_names_stay_what_they_are(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert here_or_shipped(name) == Path(name)


def test_a_file_that_is_nowhere_is_named_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"'configs/none\.yaml'"):
        read_yaml("configs/none.yaml")
    with pytest.raises(UserError, match=r"'models/none\.safetensors'"):
        read_state_dict("models/none.safetensors")


AS_TORCH_COMES = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ["OMP_WAIT_POLICY"], os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
"""


@pytest.mark.parametrize("imported", ["ldm", "ldm.commands.txt2img", "scripts.score", "benchmarks.inference"])
def test_waiting_threads_are_to_sleep_before_torch_comes(imported: str) -> None:
    assert python(f"{AS_TORCH_COMES}import {imported}, torch").stdout.split() == ["PASSIVE", "2000"]


@pytest.mark.parametrize(
    ("own", "wanted"),
    [({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"), ({"GOMP_SPINCOUNT": "7"}, "PASSIVE 7")],
    ids=["policy", "count"],
)  # fmt: skip
def test_the_users_own_policy_stays(own: dict[str, str], wanted: str) -> None:
    assert python(f"{AS_TORCH_COMES}import ldm, torch", **own).stdout.strip() == wanted


@pytest.mark.parametrize(("name", "wanted"), [("OMP_WAIT_POLICY", "PASSIVE"), ("GOMP_SPINCOUNT", "2000")])
def test_waiting_threads_soon_sleep(name: str, wanted: str) -> None:
    """What OpenMP says of itself when torch is loaded."""
    done = python("import ldm, torch", OMP_DISPLAY_ENV="verbose")
    (line,) = [line for line in done.stderr.splitlines() if name in line]
    assert line.rpartition("=")[2].strip(" '") == wanted


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to which nobody says how OpenMP's threads wait."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=helpers.ROOT, capture_output=True, text=True,
        env={**inherited, **environment}, check=True,
    )  # fmt: skip
