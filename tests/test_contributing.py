"""The worked examples of CONTRIBUTING.md: their files are written into a copy of the project and used there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import forked
from tests.helpers import ROOT
from tests.test_imports import complaints

EXAMPLES = ("a sampler", "a mode of attention", "an addition", "a text encoder")
MOST_FILES = 2
NAMED = re.compile(r"# (ldm/\S+\.py)\n")


@dataclass
class Example:
    """Files as they are to be (path -> text), changes of others (path -> hunks of a diff), and what uses them."""

    new: dict[str, str] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)
    use: str = ""


def example(title: str) -> Example:
    """The code of the section "Add ...": a block that begins with a path is a file or a change of one."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## Add {title}\n(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)
    found = Example()
    for kind, block in re.findall(r"```(python|diff)\n(.*?)```", section, re.DOTALL):
        named = NAMED.match(block)
        if kind == "diff":
            assert named
            found.changed[named[1]] = block[named.end() :]
        elif named:
            found.new[named[1]] = block
        else:
            found.use += block
    return found


def patched(text: str, hunks: str) -> str:
    """A file after the hunks of a diff, each of which must fit at one place."""
    for hunk in hunks.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(before) == 1, f"the example does not fit the file any more:\n{hunk}"
        text = text.replace(before, after)
    return text


def test_every_example_is_run() -> None:
    headings = re.findall(r"^## Add (.*)$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert tuple(headings) == EXAMPLES


@pytest.mark.parametrize("title", EXAMPLES)
def test_the_example_works_and_touches_few_files(title: str, tmp_path: Path) -> None:
    shown = example(title)
    assert shown.use and 1 <= len({**shown.new, **shown.changed}) <= MOST_FILES
    shutil.copytree(ROOT / "ldm", tmp_path / "ldm", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "models").symlink_to(ROOT / "models")
    for name, text in shown.new.items():
        assert not (tmp_path / name).exists(), f"{name} is in the project already; take another example"
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert not complaints(name.removeprefix("ldm/"), text)
    for name, hunks in shown.changed.items():
        (tmp_path / name).write_text(patched((ROOT / name).read_text(encoding="utf-8"), hunks), encoding="utf-8")
    rules = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml")]
    checked = subprocess.run([*rules, *shown.new, *shown.changed], cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    copy = f"sys.path.insert(0, {str(tmp_path)!r})\nimport ldm\nassert ldm.__file__.startswith({str(tmp_path)!r})\n"
    used = forked.run("-c", forked.AFRESH + copy + shown.use, cwd=tmp_path)
    assert used.returncode == 0, used.stdout + used.stderr
