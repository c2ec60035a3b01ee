"""Every command's --help shows at least three examples that its own parser takes, and the same thing has one name."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

ELSEWHERE = ("inpaint_st", "knn2img", "train_searcher")  # originals' commands that end with a sentence
COMMANDS = {
    "txt2img.py": "ldm.commands.txt2img",
    "run_styleid.py": "ldm.commands.styleid",
    "main.py": "ldm.commands.train",
    "app.py": "ldm.commands.app",
    **{f"-m scripts.{path.stem}": f"scripts.{path.stem}" for path in sorted((ROOT / "scripts").glob("[a-z]*.py"))
       if path.stem not in ELSEWHERE},
}
OLD = ("--output_path", "--model_config", "--guidance_scale", "--ckpt_path", "--output ")


def shown(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(COMMANDS[command]).main()
    assert ended.value.code == 0
    return capsys.readouterr().out


def flags_of(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", text))


@pytest.mark.parametrize("command", COMMANDS)
def test_three_examples_with_flags_that_there_are(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(command, monkeypatch, capsys)
    known = flags_of(text[text.index("options:") :] + text[: text.index("\n\n")])
    examples = [line.strip() for line in text.replace("\\\n", " ").splitlines() if f"python {command}" in line]
    assert len(examples) >= 3
    for line in examples:
        words = shlex.split(line.split(" > ")[0], comments=True)
        words = words[words.index(command.split()[-1]) + 1 :]
        used = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[A-Za-z]\S*", word)}
        assert used - known <= {"--max_steps"}, line  # an option of the Trainer


@pytest.mark.parametrize("command", COMMANDS)
def test_old_spellings_are_not_shown(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(command, monkeypatch, capsys)
    assert not [old for old in OLD if old in text]


def test_results_go_under_outputs(tmp_path: Path) -> None:
    for path in [*(ROOT / "scripts").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        found = re.findall(r'"--out(?:dir)?"[^\n]*default=(?:Path\(|ROOT / )"([^"]*)"', path.read_text())
        for default in found:
            assert default.startswith(("outputs", "models/ldm/tiny/scorer")), (path, default)
