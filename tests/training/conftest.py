"""The toy models of these tests are foreign classes, which a resumed run takes only where its folder is trusted."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LDM_TRUST_CONFIG", "1")
