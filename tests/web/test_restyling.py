"""What the tab that restyles asks for, without a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ldm.workflows.studio import open_studio
from ldm.workflows.watch import Watch
from tests.workflows.restyling import STEPS, picture
from tests.workflows.small_model import write_small_model

pytest.importorskip("gradio", reason="the page needs the extra 'web'")

from ldm.web.page.restyle import restyling


def test_a_result_that_is_there_already_is_shown_again(tmp_path: Path) -> None:
    studio = open_studio(write_small_model(tmp_path / "small"), device="cpu")
    for number, name in enumerate(("content.png", "style.png")):
        picture(tmp_path / name, number)
    how: dict[str, Any] = {"ddim_inv_steps": STEPS, "save_feat_steps": STEPS, "longest": 32}
    task = restyling(tmp_path / "out", tmp_path / "content.png", [str(tmp_path / "style.png")], [], how)
    shown: list[Any] = []
    for _ in range(2):
        task(studio, Watch(on_result=shown.append))
    assert [result.skipped for result in shown] == [False, True] and shown[0].path == shown[1].path
