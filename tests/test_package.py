"""What an installation brings: the wheel's files, its commands from any folder, and requirements that say one thing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests import forked
from tests.helpers import ROOT

PROJECT = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "constraints.txt",
    "app.py",
    "main.py",
    "run_styleid.py",
    "txt2img.py",
)
FOLDERS = ("ldm", "configs", "models", "examples")
COMMANDS = {"ldm-txt2img": "txt2img.py", "ldm-styleid": "run_styleid.py", "ldm-train": "main.py", "ldm-app": "app.py"}
PIN = re.compile(r"([A-Za-z0-9._-]+)==([0-9][0-9A-Za-z.]*)")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy in which a person keeps other weights beside the YAMLs and results in the working directory."""
    project = tmp_path_factory.mktemp("project")
    for name in PROJECT:
        shutil.copy(ROOT / name, project)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for stray in ("models/first_stage_models/kl-f8/model.ckpt", "models/ldm/own/model.safetensors", "logs/run.log"):
        (project / stray).parent.mkdir(parents=True, exist_ok=True)
        (project / stray).write_bytes(b"weights of some other model")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]  # the wheel, and the sources beside it
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as an installer lays it out."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def shipped(folder: Path) -> set[str]:
    """The project's own files below configs/, models/ and examples/."""
    patterns = (
        "configs/**/*.yaml", "configs/**/*.txt", "models/**/config.yaml", "models/ldm/tiny/**/*",
        "models/ldm/tiny-film/*", "examples/**/*",
    )  # fmt: skip
    return {
        path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern) if path.is_file()
    }


def test_the_wheel_holds_the_package_and_what_comes_with_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in (ROOT / "ldm").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    package = {path.relative_to(ROOT).as_posix() for path in files}
    about = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - about == package | {f"ldm/share/{name}" for name in shipped(ROOT)}
    assert any(name.endswith("licenses/LICENSE") for name in about)


def test_the_sources_hold_all_that_a_wheel_is_built_from(wheel: Path) -> None:
    (sources,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sources) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    held = {name.removeprefix("ldm/share/") for name in zipfile.ZipFile(wheel).namelist() if name.startswith("ldm/")}
    assert names - {".gitignore", "PKG-INFO"} == held | set(PROJECT)


def test_metadata_and_commands(site: Path) -> None:
    (about,) = site.glob("*.dist-info")
    metadata = message_from_string((about / "METADATA").read_text(encoding="utf-8"))
    assert (metadata["Name"], metadata["License-Expression"], metadata["Requires-Python"]) == ("ldm", "MIT", ">=3.11")
    assert metadata.get_all("Provides-Extra") == ["test", "web"]
    assert set(re.findall(r"^(\S+) =", (about / "entry_points.txt").read_text(), re.MULTILINE)) == set(COMMANDS)


INSTALLED = """
import json, os, sys, traceback
from importlib.metadata import distribution

site, lines = sys.argv[1:]
import ldm.training.launch, ldm.workflows.txt2img, ldm.workflows.restyle.styleid  # once for all
assert ldm.__file__.startswith(site), ldm.__file__

def be(command, arguments):
    sys.argv = [command, *arguments]
    (entry,) = distribution("ldm").entry_points.select(name=command)
    try:
        sys.exit(entry.load()())
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1

for command, *arguments in json.loads(lines):
    pid = os.fork()
    if not pid:
        code = be(command, arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert not code, f"{command} ended with {code}"
"""
PICTURES = {  # command -> arguments, and its option for a folder
    "ldm-txt2img": (("--prompt", "a red star in the snow | 파란 배경 위의 빨간 별", "--n_samples", "1", "--steps", "4"),
                    "--outdir"),
    "ldm-styleid": (("--ddim_inv_steps", "2", "--save_feat_steps", "2", "--longest", "128"), "--output_path"),
}  # fmt: skip


@pytest.fixture(scope="module")
def elsewhere(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the installed commands have done something each."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "pictures").mkdir()
    for index, colour in enumerate(("red", "blue")):
        Image.new("RGB", (64, 64), colour).save(folder / f"pictures/{index}.png")
        (folder / f"pictures/{index}.txt").write_text(f"a {colour} square\n")
    lines = [[command, *arguments, option, command] for command, (arguments, option) in PICTURES.items()]
    lines += [[
        "ldm-train", "-b", "configs/tiny/finetune.yaml", "-t", "--scale_lr", "false", "--name", "short",
        "--data_root", "pictures", "--max_steps", "2", "data.params.batch_size=2", "--num_sanity_val_steps", "0",
        "lightning.callbacks.image_logger.params.log_images_kwargs.ddim_steps=2",
    ]]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", INSTALLED, str(site), json.dumps(lines)], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(site)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def same_pictures(ours: Path, theirs: Path) -> None:
    """The same files with the same pixels."""
    names = [sorted(path.relative_to(f).as_posix() for path in f.rglob("*.png")) for f in (ours, theirs)]
    assert names[0] == names[1] and names[0]
    for name in names[0]:
        with Image.open(ours / name) as one, Image.open(theirs / name) as other:
            assert one.mode == other.mode and one.size == other.size and one.tobytes() == other.tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("command", PICTURES)
def test_an_installed_command_makes_the_repositorys_pictures_from_any_folder(
    command: str, elsewhere: Path, tmp_path: Path
) -> None:
    arguments, option = PICTURES[command]
    repository = forked.run(COMMANDS[command], *arguments, option, tmp_path)
    assert repository.returncode == 0, repository.stderr
    same_pictures(elsewhere / command, tmp_path)


@pytest.mark.slow
def test_installed_training_finds_the_yaml_and_the_files_that_it_names(elsewhere: Path) -> None:
    (folder,) = (elsewhere / "logs").glob("*_short")
    assert (folder / "checkpoints" / "last.ckpt").is_file()


def test_a_commit_is_checked_by_the_pinned_versions() -> None:
    """pre-commit runs what the environment of ``make`` has, and no versions of its own."""
    document: Any = OmegaConf.to_container(OmegaConf.load(ROOT / ".pre-commit-config.yaml"))
    (repository,) = document["repos"]
    assert repository["repo"] == "local"
    commands = {hook["id"]: hook["entry"].split()[0] for hook in repository["hooks"]}
    assert commands == {"ruff": ".venv/bin/ruff", "mypy": ".venv/bin/mypy"}
    assert all(hook["language"] == "system" for hook in repository["hooks"])


def pins(lines: list[str]) -> dict[str, str]:
    """Package -> version; every line must pin one."""
    found = {}
    for line in lines:
        match = PIN.fullmatch(line)
        assert match, f"not pinned: {line}"
        found[match[1].lower().replace("_", "-")] = match[2]
    return found


def test_every_requirement_is_pinned_and_stands_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = pins(project["project"]["dependencies"])
    extras = {name: pins(lines) for name, lines in project["project"]["optional-dependencies"].items()}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    brought = pins([line for line in lines if line and not line.startswith("#")])
    every = [*needed, *(name for extra in extras.values() for name in extra), *brought]
    assert sorted(every) == sorted(set(every))
    assert pins(project["build-system"]["requires"]).items() <= extras["test"].items()
