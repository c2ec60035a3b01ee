"""Damaged files of every kind are read or end with one sentence and exit code 2; nothing that they name runs."""

from __future__ import annotations

import pytest

from benchmarks.fuzz import run_kind
from benchmarks.fuzz_kinds import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(kind: str) -> None:
    result = run_kind(kind, 100 if kind == "yamls" else 200)  # which build models
    assert not result.wrong, "\n".join(result.wrong)
    assert result.outcomes["read"] and result.outcomes["refused"]
