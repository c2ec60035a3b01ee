"""What holds for every test: no network, where a missing answer would cost half a minute; the longest files first."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before huggingface_hub is imported, which reads it once
# before torch is imported: processes that are forked of one whose OpenMP has threads wait for ever
os.environ.setdefault("OMP_NUM_THREADS", "1")

LONG = ("tests/web/test_page", "tests/training/", "tests/test_", "tests/benchmarks/", "tests/workflows/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first: none is left at the end to one process while the other one has no work."""
    items.sort(key=lambda item: next((i for i, start in enumerate(LONG) if item.nodeid.startswith(start)), len(LONG)))
