"""Configuration files that cannot be used end with one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldm.util import ConfigError, read_yaml


def test_a_yaml_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("model:\n  target: torch.nn.Identity\n")
    assert read_yaml(path).model.target == "torch.nn.Identity"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no configuration file"), (b"a: [1, 2", "not readable as YAML"), (b"- 1\n- 2\n", "must hold sections"),
     (b"\xff\xfe\x00\x81binary", "not readable as YAML")],
)  # fmt: skip
def test_what_is_no_configuration(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
