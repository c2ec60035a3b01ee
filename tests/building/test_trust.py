"""A configuration does not run programs: what it may name, who may name more, and what it may see."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ldm.building.kinds import CALLBACK, DATA, MODULE, OPTIMIZER, SCHEDULE, nodes
from ldm.building.trust import trusted
from ldm.training.config import read_config
from ldm.util import ConfigError, class_from_str, instantiate_from_config, read_yaml, run_command

RUNS = [
    "os.system", "posix.system", "subprocess.Popen", "subprocess.check_output", "builtins.exec", "builtins.eval",
    "shutil.rmtree", "runpy.run_path", "ctypes.CDLL", "importlib.import_module", "antigravity.geohash", "pty.spawn",
    "multiprocessing.Process", "shelve.DbfilenameShelf",
]  # fmt: skip
FUNCTIONS = ["torch.load", "torch.hub.load", "ldm.util.read_yaml", "torch.save", "numpy.load"]
OTHER_KINDS = ["torch.Generator", "torch.utils.data.DataLoader", "torch.multiprocessing.Process", "numpy.memmap"]


def call(target: str, trace: Path) -> dict[str, Any]:
    return {"target": target, "params": {"args": f"touch {trace}", "command": f"touch {trace}"}}


@pytest.mark.parametrize("target", RUNS)
def test_what_runs_programs_is_not_even_imported(target: str, tmp_path: Path) -> None:
    before = set(sys.modules)
    with pytest.raises(ConfigError, match="belongs to Python itself") as caught:
        instantiate_from_config(call(target, tmp_path / "trace"))
    assert target in str(caught.value) and "\n" not in str(caught.value)
    assert set(sys.modules) == before and not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", FUNCTIONS)
def test_a_function_is_never_called(target: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a class; nothing of it was run"):
        instantiate_from_config(call(target, tmp_path / "trace"))


@pytest.mark.parametrize("target", OTHER_KINDS)
def test_classes_of_no_kind_are_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="it must be a module, data set"):
        instantiate_from_config({"target": target})


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("pytorch_lightning.callbacks.ModelCheckpoint", MODULE),
        ("torch.nn.Identity", CALLBACK),
        ("torch.optim.AdamW", DATA),
        ("torch.nn.Identity", OPTIMIZER),
        ("torch.nn.Identity", SCHEDULE),
    ],
)
def test_each_place_asks_for_its_kind(target: str, kind: Any) -> None:
    with pytest.raises(ConfigError, match="no class that can stand there"):
        class_from_str(target, kind)


def test_every_depth_is_checked_before_anything_is_called(tmp_path: Path) -> None:
    class_from_str("torch.nn.Identity")
    deep = call("os.system", tmp_path / "trace")
    inner = {"target": "torch.nn.Identity", "params": deep}
    for where in ({"a": deep}, {"a": [1, {"b": deep}]}, {"unet_config": inner}):
        with pytest.raises(ConfigError, match=r"os\.system"):
            instantiate_from_config({"target": "tests.building.foreign.Counted", "params": where})
    from tests.building import foreign

    assert foreign.made == 0
    with pytest.raises(ConfigError, match=r"must be a module"):
        instantiate_from_config(
            {
                "target": "tests.building.foreign.Counted",
                "params": {"unet_config": {"target": "pytorch_lightning.Callback"}},
            }
        )
    assert foreign.made == 0
    instantiate_from_config({"target": "tests.building.foreign.Counted", "params": {"a": {"b": 1}}})
    assert foreign.made == 1


def test_nodes_know_the_kind_of_their_place() -> None:
    config = {
        "model": {"target": "a.B", "params": {"scheduler_config": {"target": "c.D"}}},
        "lightning": {"callbacks": {"logger": {"target": "e.F"}}, "logger": {"target": "g.H"}},
    }
    kinds = {node["target"]: kind.words.split()[1] for node, kind in nodes(config)}
    assert kinds == {"a.B": "module", "c.D": "schedule", "e.F": "callback", "g.H": "logger"}


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the working directory that leaves a trace when it is imported, with a class of a good kind."""
    name = f"stranger_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(
        f"import torch\nopen({str(tmp_path / 'trace')!r}, 'w').close()\n"
        "class Net(torch.nn.Module):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("LDM_TRUST_CONFIG", raising=False)
    return f"{name}.Net"


def test_a_found_configuration_imports_nothing_foreign(stranger: str, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "config.yaml"
    deep = f"[{{unet_config: {{target: {stranger}}}}}]"
    path.write_text(f"model:\n  target: torch.nn.Identity\n  params:\n    deep: {deep}\n")
    with pytest.raises(ConfigError, match=r"--trust_config \(or set LDM_TRUST_CONFIG=1\)") as caught:
        read_yaml(path)
    assert stranger in str(caught.value) and str(path) in str(caught.value)
    assert not (tmp_path / "trace").exists()
    monkeypatch.setenv("LDM_TRUST_CONFIG", "1")
    assert read_yaml(path).model.target == "torch.nn.Identity"


def test_a_command_may_be_told_to_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LDM_TRUST_CONFIG", "0")
    monkeypatch.setattr(sys, "argv", ["x", "--trust_config", "--debug"])
    seen: list[Any] = []
    run_command(lambda: seen.append((trusted(), sys.argv[1:])))
    assert seen == [(True, ["--debug"])]


def test_a_run_folder_imports_nothing_foreign(stranger: str, tmp_path: Path) -> None:
    found, named = tmp_path / "1-project.yaml", tmp_path / "mine.yaml"
    found.write_text(f"lightning: {{callbacks: {{mine: {{target: {stranger}}}}}}}\n")
    named.write_text("model: {base_learning_rate: 1}\n")
    with pytest.raises(ConfigError, match="trust_config"):
        read_config([str(named)], [], found=[str(found)])
    assert not (tmp_path / "trace").exists()


def test_a_reference_hides_no_target(stranger: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"name: {stranger}\nmodel:\n  target: ${{name}}\n")
    with pytest.raises(ConfigError, match="trust_config"):
        read_yaml(path)


def test_a_named_configuration_takes_the_users_own_classes_and_says_so(
    stranger: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"model:\n  target: {stranger}\n")
    with caplog.at_level(logging.INFO):
        built = instantiate_from_config(read_yaml(path, named=True).model, MODULE)
    assert type(built).__name__ == "Net" and (tmp_path / "trace").exists()
    assert stranger in caplog.text and "from outside" in caplog.text


def test_a_named_configuration_runs_no_programs_either(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"model:\n  target: subprocess.Popen\n  params: {{args: [touch, {tmp_path / 'trace'}]}}\n")
    with pytest.raises(ConfigError, match="belongs to Python itself"):
        instantiate_from_config(read_yaml(path, named=True).model)
    assert not (tmp_path / "trace").exists()


def test_the_environment_is_seen_by_name_only_and_never_saved(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DATA_ROOT", "/where/it/lies")
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    path = tmp_path / "a.yaml"
    params = "{data_root: '${root}', other: '${oc.env:HOME,x}'}"
    path.write_text(f"root: ${{oc.env:DATA_ROOT}}/pictures\ndata:\n  params: {params}\n")
    config = read_config([str(path)], [])
    assert config.data.params.data_root == "/where/it/lies/pictures"
    saved = OmegaConf.to_yaml(config)
    assert "/where/it/lies" not in saved and saved.count("${oc.env:DATA_ROOT}/pictures") == 2
    for text in (
        "${oc.env:SECRET_TOKEN}", "${oc.env: SECRET_TOKEN ,x}", "${${x}.env:SECRET_TOKEN}", "\\${oc.env:SECRET_TOKEN}",
        "${oc.decode:'${oc.env:SECRET_TOKEN}'}", "${oc.create:'a'}", "${oc.env:${name}}",
    ):  # fmt: skip
        path.write_text(f"name: SECRET_TOKEN\nx: oc\nmodel:\n  a: {text!r}\n")
        for named in (True, False):
            with pytest.raises(ConfigError, match=r"SECRET_TOKEN|interpolation is|readable") as caught:
                read_yaml(path, named=named)
            assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a0: xxxxxxxxxx\n" + "".join(f"a{i + 1}: ${{a{i}}}${{a{i}}}\n" for i in range(40)), "grow without end"),
        ("a0: [x, x]\n" + "".join(f"a{i + 1}: ['${{a{i}}}', '${{a{i}}}']\n" for i in range(40)), "grow without end"),
        ("a: ${b}\nb: ${a}\n", "points to itself"),
        ("a: {b: '${a}'}\n", "points to itself"),
    ],
)
def test_references_that_never_end(text: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=what):
        read_yaml(tmp_path / "a.yaml")
