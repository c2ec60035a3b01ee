"""What the page does before it can be seen: not what takes seconds and can wait."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

pytest.importorskip("gradio", reason="the page needs the extra 'web'")

PROGRAM = """
import json, sys
from pathlib import Path

stubs = []
sys.addaudithook(lambda event, about: event == "open" and str(about[0]).endswith(".pyi") and stubs.append(about[0]))
from ldm.web.quick_gradio import import_gradio

import_gradio()
import inspect

from ldm.web.jobs import Desk
from ldm.web.page.build import build_page

page = build_page(Desk(), Path(sys.argv[1]))
slow = [name for name in ("torch", "pytorch_lightning", "transformers", "matplotlib", "skimage") if name in sys.modules]
import gradio

shared = str(page.get_config_file()).count("'share'")
print(json.dumps([stubs, slow, inspect.getfile(gradio.Textbox), hasattr(gradio.Textbox, "submit"), shared]))
"""


def test_the_page_is_built_without_torch_and_without_gradios_type_stubs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    stubs, slow, file, has_events, shared = json.loads(done.stdout.splitlines()[-1])
    assert not stubs and not slow
    assert file.endswith("textbox.py") and has_events  # gradio is what it always is
    assert not shared  # but for the buttons that would send pictures elsewhere
