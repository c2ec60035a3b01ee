"""Signs in prompts that mean something in other programs, and nothing here."""

from __future__ import annotations

import re

NOT_UNDERSTOOD = {
    r"<hypernet:[^<>]*>": "calls for a file",
    r"\[[^\[\]]*[:|][^\[\]]*\]": "swaps words on the way",
    r"\{[^{}]*\|[^{}]*\}": "stands for one of several words",
    r"(?<!\w)(?:BREAK|AND)(?!\w)": "parts a prompt",
}


def not_understood(text: str) -> dict[str, str]:
    """What a prompt has of other programs' signs -> what it does there."""
    found: dict[str, str] = {}
    for pattern, meaning in NOT_UNDERSTOOD.items():
        for match in re.finditer(pattern, text):
            found[match[0]] = meaning
            text = text.replace(match[0], " ")  # so that it is not found again as a part of something else
    return found
