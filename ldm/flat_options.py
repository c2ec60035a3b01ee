"""Constructors with many options: grouped in dataclasses inside, flat names outside.

Public configurations give dozens of options to one class, all on one level. Where a class takes many, those that belong
together are one dataclass, and ``flat`` lets the constructor be called with their names as before:

    @flat(schedule=ScheduleOptions)
    def __init__(self, unet_config: dict[str, Any], *, schedule: ScheduleOptions) -> None: ...

    Network(unet_config=..., timesteps=1000, linear_start=1e-4)
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from ldm.util import ConfigError, nearest


def flat(**groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Have a constructor take the fields of dataclasses by their own names.

    Args:
        groups: keyword-only parameter of the constructor -> the dataclass that fills it. Fields that are not given have
            the dataclass's defaults. ``inspect.signature`` shows the fields in the parameters' place.

    Raises:
        ConfigError: (from the constructor) a name that it does not take; the nearest three are said.
    """
    owner = {field.name: (group, field) for group, kind in groups.items() for field in dataclasses.fields(kind)}

    def decorate(init: Callable[..., None]) -> Callable[..., None]:
        signature = _with_fields(inspect.signature(init), owner, groups)
        takes_more = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())

        @functools.wraps(init)
        def initialise(self: Any, *args: Any, **given: Any) -> None:
            unknown = [] if takes_more else [name for name in given if name not in signature.parameters]
            if unknown:
                known = nearest(unknown[0], [name for name in signature.parameters if name != "self"])
                raise ConfigError(f"{type(self).__name__} has no parameter '{unknown[0]}'; {known}")
            values: dict[str, dict[str, Any]] = {group: {} for group in groups}
            for name in [name for name in given if name in owner]:
                values[owner[name][0]][name] = given.pop(name)
            init(self, *args, **given, **{group: kind(**values[group]) for group, kind in groups.items()})

        initialise.__signature__ = signature  # type: ignore[attr-defined]
        hints = {name: hint for kind in groups.values() for name, hint in get_type_hints(kind).items()}
        own = {name: hint for name, hint in init.__annotations__.items() if name not in groups}
        initialise.__annotations__ = own | hints
        return initialise

    return decorate


def _with_fields(
    signature: inspect.Signature, owner: dict[str, tuple[str, dataclasses.Field[Any]]], groups: dict[str, type]
) -> inspect.Signature:
    """The signature with every group's fields in place of its parameter."""
    own = [parameter for name, parameter in signature.parameters.items() if name not in groups]
    fields = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
            annotation=field.type,
        )
        for name, (_, field) in owner.items()
    ]
    last = [parameter for parameter in own if parameter.kind is parameter.VAR_KEYWORD]
    first = [parameter for parameter in own if parameter.kind is not parameter.VAR_KEYWORD]
    return signature.replace(parameters=[*first, *fields, *last])
