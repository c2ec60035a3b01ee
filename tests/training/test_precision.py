"""A CPU without bfloat16 arithmetic trains in float32, and says so; everything else stays as the YAML says."""

from __future__ import annotations

import logging

import pytest
import torch

from ldm.training import precision


@pytest.fixture
def plain_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("wish", precision.BFLOAT16)
@pytest.mark.usefixtures("plain_cpu")
def test_float32_in_place_of_an_imitated_bfloat16(wish: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        settings = precision.affordable({"precision": wish, "max_steps": 3})
    assert settings == {"precision": "32-true", "max_steps": 3}
    assert wish in caplog.text


@pytest.mark.parametrize("wish", [None, "32-true", "16-mixed", "64-true"])
@pytest.mark.usefixtures("plain_cpu")
def test_other_precisions_stay(wish: str | None) -> None:
    settings = {} if wish is None else {"precision": wish}
    assert precision.affordable(settings) == settings


@pytest.mark.parametrize(
    ("bfloat16", "cuda", "accelerator", "expected"),
    [
        (True, False, "cpu", "bf16-mixed"),
        (False, True, "auto", "bf16-mixed"),
        (False, True, "gpu", "bf16-mixed"),
        (False, True, "cpu", "32-true"),
    ],
)
def test_where_there_is_bfloat16_it_stays(
    bfloat16: bool, cuda: bool, accelerator: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda: bfloat16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    settings = precision.affordable({"precision": "bf16-mixed", "accelerator": accelerator})
    assert settings["precision"] == expected
