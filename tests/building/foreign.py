"""A class of a user that counts how often it is made."""

from __future__ import annotations

from typing import Any

import torch

made = 0


class Counted(torch.nn.Module):
    def __init__(self, **anything: Any) -> None:
        global made
        made += 1
        super().__init__()
