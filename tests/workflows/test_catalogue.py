"""Models by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldm.util import UserError
from ldm.workflows.catalogue import Listed, model_named


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stable-diffusion-v1-5", "'python -m scripts.download sd-v1-5' gets it"),
        ("sdxl-base", "'python -m scripts.download sdxl-base' gets it"),
        ("tinny", "there is no model 'tinny'; the nearest that it has: tiny"),
    ],
)
def test_a_model_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        model_named(name, [Listed("tiny", Path("m"), "small")])
    assert message in str(raised.value)
