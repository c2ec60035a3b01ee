"""A small model, and a restyling to be done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ldm.workflows.models import open_model
from ldm.workflows.restyle.plan import StyleIDOptions
from tests.workflows.restyling import STEPS, picture
from tests.workflows.small_model import write_small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_model(write_small_model(tmp_path_factory.mktemp("small")), device="cpu")[0]


@pytest.fixture
def options(tmp_path: Path) -> StyleIDOptions:
    """Two contents and two styles of one size, in few steps."""
    for i, name in enumerate(("cnt/a.png", "cnt/b.png", "sty/s.png", "sty/t.png")):
        picture(tmp_path / name, i)
    return StyleIDOptions(
        cnt=str(tmp_path / "cnt"), sty=str(tmp_path / "sty"), output_path=str(tmp_path / "out"),
        precomputed=str(tmp_path / "cache"), ddim_inv_steps=STEPS, save_feat_steps=STEPS, precision="full",
        progress=False,
    )  # fmt: skip
