"""Every command line of the originals in docs/coming-from.md, and what stands beside it, is one that there is.

A line is run up to the opening of a model: none ends in a traceback, in a usage message, or without a program.
"""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from ldm.training.options import parse
from ldm.util import UserError, run_command
from ldm.workflows import studio
from tests.helpers import ROOT

PAGE = (ROOT / "docs/coming-from.md").read_text(encoding="utf-8")
ORIGINALS = PAGE[: PAGE.index("\n## diffusers")]
LINES = sorted(set(re.findall(r"`(python [^`]+\.py[^`]*)`", ORIGINALS)))
MODULES = {"txt2img.py": "ldm.commands.txt2img", "run_styleid.py": "ldm.commands.styleid"}
OF_EACH = ("txt2img", "img2img", "inpaint", "sample_diffusion", "stable_txt2img", "depth2img", "superresolution",
           "variations", "class2img", "gradio/depth2img", "knn2img")  # fmt: skip


def test_the_tables_hold_the_originals_commands() -> None:
    assert re.findall(r"^## (\w+)", PAGE, re.MULTILINE) == [
        "CompVis", "Stability", "diffusers", "AUTOMATIC1111",
    ]  # fmt: skip
    assert all(any(f"scripts/{name}.py" in line for line in LINES) for name in OF_EACH) and len(LINES) > 20


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_taken(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, program, *arguments = shlex.split(line)
    assert (ROOT / program).is_file(), "can't open file"
    if program == "main.py":
        options, _ = parse(arguments)
        assert options.train and options.base
        return

    def no_model(*given: Any, **more: Any) -> Any:
        raise UserError("here a model would be opened")

    monkeypatch.setattr(studio, "open_model", no_model)
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    with pytest.raises(SystemExit) as ended:
        module = importlib.import_module(MODULES.get(program, program.removesuffix(".py").replace("/", ".")))
        if hasattr(module, "main"):
            run_command(module.main, debug=False)
        else:
            runpy.run_path(str(ROOT / program), run_name="__main__")
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "--help tells" not in error and "Traceback" not in error
    assert len([text for text in error.splitlines() if text.startswith("error: ")]) == 1, error


@pytest.mark.parametrize("script", ["download_first_stages.sh", "download_models.sh"])
def test_scripts_of_the_shell_name_weights_that_there_are(script: str) -> None:
    from ldm.released import RELEASED

    text = (ROOT / "scripts" / script).read_text()
    (names,) = re.findall(r"^for name in (.*); do$", text, re.MULTILINE)
    assert set(names.split()) <= {one.name for one in RELEASED}
