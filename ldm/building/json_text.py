"""Reading JSON that may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from ldm.building.errors import UserError


def parse_json(text: str | bytes, origin: str) -> Any:
    """The value that a JSON text holds.

    Args:
        text: the text.
        origin: what it is, for the message ("line 3 of 'captions.jsonl'").

    Raises:
        UserError: it is not JSON, is nested too deep, or holds a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise UserError(f"{origin} is not JSON that can be read: it is nested too deep") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{origin} is not JSON: {error.msg} (column {error.colno})") from error
    except ValueError as error:  # not UTF-8, or a whole number that Python will not read
        raise UserError(f"{origin} is not JSON that can be read: {' '.join(str(error).split())[:120]}") from error


LARGEST = 1 << 16  # of a size that a file states for itself


def whole_number(text: str, origin: str) -> int:
    """The number from 1 to ``LARGEST`` that a text field of a file holds.

    Raises:
        UserError: it holds something else.
    """
    if not (text.isdecimal() and len(text) < 10 and 0 < int(text) <= LARGEST):
        raise UserError(f"{origin} must be a whole number from 1 to {LARGEST}, not '{text[:40]}'")
    return int(text)


def parse_sizes(text: str, origin: str, names: Collection[str]) -> dict[str, Any]:
    """The sizes that a text field of a file holds: one number from 0 to ``LARGEST`` under each name.

    Raises:
        UserError: as :func:`parse_json_object`, other names, or another value.
    """
    sizes = parse_json_object(text, origin)
    right = [type(size) in (int, float) and 0 <= size <= LARGEST for size in sizes.values()]
    if set(sizes) != set(names) or not all(right):
        raise UserError(f"{origin} must give a number from 0 to {LARGEST} for each of {', '.join(names)}")
    return sizes


def parse_json_object(text: str | bytes, origin: str) -> dict[str, Any]:
    """What :func:`parse_json` gives, for a text that must hold an object.

    Raises:
        UserError: as :func:`parse_json`, or it is no object.
    """
    value = parse_json(text, origin)
    if not isinstance(value, dict):
        raise UserError(f"{origin} should hold a JSON object")
    return value
