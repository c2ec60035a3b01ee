"""Damaged files of every kind are read or end with one sentence and exit code 2; nothing that they name runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.fuzz import run_kind
from benchmarks.fuzz_kinds import KINDS
from ldm.util import UserError


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(kind: str) -> None:
    result = run_kind(kind, 100 if kind == "yamls" else 200)  # which build models
    assert not result.wrong, "\n".join(result.wrong)
    assert result.outcomes["read"] and result.outcomes["refused"]


@pytest.mark.parametrize("limit", ["SECONDS", "HANGS"])
def test_what_takes_too_long_is_wrong_whatever_sentence_it_ends_with(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> None:
        try:
            while True:
                pass
        except RuntimeError as error:
            raise UserError("the file is damaged") from error

    monkeypatch.setattr(fuzz, limit, 0.05)
    problem = fuzz._try(replace(KINDS["csv"], read=read), tmp_path, Counter())
    assert problem.startswith("it took longer than")
