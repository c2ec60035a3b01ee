"""Every block of Python in docs/attention.md runs, in order; the file of a new mode is found as a file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

import ldm.control
from ldm.control.registry import MODES
from tests.helpers import ROOT


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ldm.control, "__path__", [*ldm.control.__path__, str(tmp_path)])
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "attention.md").read_text(), re.DOTALL)
    assert len(blocks) >= 10
    names: dict[str, Any] = {}
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        for block in blocks:
            file = re.match(r"# ldm/control/(\w+\.py)\n", block)
            if file:
                (tmp_path / file[1]).write_text(block)
            else:
                exec(compile(block, "docs/attention.md", "exec"), names)
    finally:
        os.chdir(before)
        MODES.pop("family", None)
    assert names["alike"].shape == (2, 24, 8, 8)
    assert names["latent"].shape == (1, 24, 8, 8)
    assert names["own"].sites == names["used"].sites == list(names["up"])
    assert names["k"].shape == (1, 3, 64, 32)
