"""The files of a run that trains adapters of a text encoder, under the name that older configurations have."""

from __future__ import annotations

from ldm.training.additions import AdditionFiles
from ldm.util import ConfigError


class AdapterFiles(AdditionFiles):
    """``AdditionFiles`` for adapters alone, which must be there.

    Args:
        every_n_steps: how often.

    Raises:
        ConfigError: ``every_n_steps`` is below 1.
    """

    def __init__(self, every_n_steps: int = 500) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"adapters are saved every_n_steps, which must be at least 1, got {every_n_steps}")
        super().__init__(every_n_steps=every_n_steps, only=["adapters"])
