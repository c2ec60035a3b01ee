"""Factors on the learning rate, against values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ldm.lr_scheduler import LambdaLinearScheduler, LambdaWarmUpCosineScheduler, LambdaWarmUpCosineScheduler2
from ldm.util import UserError

CYCLES: dict[str, Any] = {"warm_up_steps": [10, 0], "f_min": [0.1, 0.0], "f_max": [1.0, 0.5], "f_start": [0.0, 0.0],
          "cycle_lengths": [110, 50]}  # fmt: skip


def test_warm_up_then_cosine() -> None:
    schedule = LambdaWarmUpCosineScheduler(10, lr_min=0.1, lr_max=1.0, lr_start=0.01, max_decay_steps=110)
    assert schedule(0) == pytest.approx(0.01)
    assert schedule(5) == pytest.approx(0.505)
    assert schedule(10) == pytest.approx(1.0)
    assert schedule(60) == pytest.approx(0.55)
    assert schedule(35) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert schedule(110) == schedule(10_000) == pytest.approx(0.1)


def test_cosine_cycles_restart_with_their_own_settings() -> None:
    schedule = LambdaWarmUpCosineScheduler2(**CYCLES)
    assert schedule(0) == 0.0
    assert schedule(5) == pytest.approx(0.5)
    assert schedule(10) == pytest.approx(1.0)
    assert schedule(60) == pytest.approx(0.55)
    assert schedule(110) == pytest.approx(0.1), "the boundary is the old cycle's end"
    assert schedule(111) == pytest.approx(0.5 * (1 + math.cos(math.pi / 50)) / 2)
    assert schedule(160) == schedule(1000) == pytest.approx(0.0)


def test_linear_cycles_fall_from_the_start_of_the_cycle() -> None:
    schedule = LambdaLinearScheduler(**CYCLES)
    assert schedule(5) == pytest.approx(0.5)
    assert schedule(55) == pytest.approx(0.1 + 0.9 * 0.5)
    assert schedule(110) == pytest.approx(0.1)
    assert schedule(135) == pytest.approx(0.25)


def test_the_schedule_of_stable_diffusion_v1_warms_up_and_stays() -> None:
    schedule = LambdaLinearScheduler([10000], f_min=[1.0], f_max=[1.0], f_start=[1e-6], cycle_lengths=[10000000000000])
    assert schedule(0) == pytest.approx(1e-6)
    assert schedule(5000) == pytest.approx(0.5, abs=1e-5)
    assert schedule(10000) == schedule(10**9) == 1.0


def test_lists_of_different_lengths_are_an_error() -> None:
    with pytest.raises(UserError, match="one entry per cycle"):
        LambdaLinearScheduler(**{**CYCLES, "f_max": [1.0]})


def test_progress_is_logged_when_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    LambdaLinearScheduler(**CYCLES, verbosity_interval=5)(5)
    assert "step 5 (cycle 0): learning-rate factor 0.5" in caplog.text
