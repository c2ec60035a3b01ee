"""Options as fields of dataclasses that know their help, so that a command's flags need no second list."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import field, fields
from typing import Any


def option(default: Any, help: str, **flag: Any) -> Any:
    """A field with a default, and what argparse is to know of its flag: help, type, choices, metavar."""
    return field(default=default, metadata={"flag": {"help": help, **flag}})


def old_spellings(action: argparse.Action, shown: int = 1) -> None:
    """Of an option's spellings the help shows the first ``shown``; the others go on being understood."""
    action.option_strings = list(action.option_strings)[:shown]


def add_flags(group: argparse._ActionsContainer, options: type, without: Collection[str] = ()) -> None:
    """A flag ``--name`` for each field of a dataclass that was made by ``option``; what is not given stays out."""
    for one in fields(options):
        if "flag" in one.metadata and one.name not in without:
            switch = {"action": "store_true"} if one.default is False else {}
            flag: dict[str, Any] = {"default": argparse.SUPPRESS, **switch, **one.metadata["flag"]}
            group.add_argument(f"--{one.name}", **flag)


def given_flags(options: type, parsed: argparse.Namespace, without: Collection[str] = ()) -> dict[str, Any]:
    """What was given for the fields of a dataclass that were made by ``option``."""
    names = [one.name for one in fields(options) if "flag" in one.metadata and one.name not in without]
    return {name: getattr(parsed, name) for name in names if hasattr(parsed, name)}
