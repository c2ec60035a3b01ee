"""Whether the values of a configuration are of the types that a constructor is written for."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

_PLAIN = (type(None), bool, int, float, str, list, tuple, dict)
_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "settings by name",
    type(None): "null",
}


# Largest number, and longest list, under a name anywhere among a model's parameters: a small file asks for no more.
LIMITS = {
    **dict.fromkeys(
        ("n_layer", "n_layers", "layers", "depth", "transformer_depth", "num_res_blocks", "post_layers", "channel_mult",
         "ch_mult"),
        1000,
    ),
    **dict.fromkeys(
        ("model_channels", "in_channels", "out_channels", "context_dim", "adm_in_channels", "ch", "out_ch",
         "z_channels", "embed_dim", "channels", "num_heads", "num_head_channels", "target_width", "source_width",
         "dim", "width"),
        1 << 16,
    ),
    **dict.fromkeys(("max_seq_len", "max_length", "num_classes", "image_size"), 1 << 20),
    **dict.fromkeys(("vocab_size", "n_embed"), 1 << 24),
}  # fmt: skip


def beyond_limits(params: Any) -> str | None:
    """Words for the first number in nested parameters that is larger than any model's; None if there is none."""
    waiting = [params]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for name, part in value.items():
                limit = LIMITS.get(name)
                if limit is not None and _is_beyond(part, limit):
                    return f"'{name}' must be at most {limit}"
                waiting.append(part)
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
    return None


def _is_beyond(value: Any, limit: int) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) > limit or any(_is_beyond(part, limit) for part in value)
    return isinstance(value, (int, float)) and abs(value) > limit


def hints_of(constructor: Callable[..., Any]) -> dict[str, Any]:
    """The types of a constructor's parameters; empty where they cannot be told."""
    try:
        return typing.get_type_hints(constructor)
    except Exception:  # a name that exists for type checkers only
        return {}


def misfit(value: Any, hint: Any) -> str | None:
    """What a value should be, in words, where it is not of a type; None where it is, or where that cannot be told.

    Only what a YAML can hold is judged: numbers, text, lists, mappings, null.
    """
    return None if _fits(value, hint) else _words(hint)


def _fits(value: Any, hint: Any) -> bool:
    if not isinstance(value, _PLAIN) or hint is Any or hint is inspect.Parameter.empty:
        return True
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    kind = origin or hint
    if kind is type(None) or kind is None:
        return value is None
    if kind is bool:
        return isinstance(value, bool) or value in (0, 1)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, str)
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return isinstance(value, dict)
    if inspect.isclass(kind) and issubclass(kind, Sequence):
        return isinstance(value, (list, tuple)) and _elements_fit(value, get_args(hint))
    return True


def _elements_fit(values: Sequence[Any], hints: tuple[Any, ...]) -> bool:
    wanted = hints[0] if hints and (len(hints) == 1 or hints[1] is Ellipsis) else Any
    return all(_fits(value, wanted) for value in values)


def _place(hint: Any) -> int:
    """Where a type stands in a sentence. Equal unions share one order in a process, that of whichever came first."""
    names = list(_NAMES)
    return 2 * names.index(hint) if hint in names else 2 * names.index(type(None)) - 1


def _words(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(part) for part in sorted(get_args(hint), key=_place)))
    if origin is Literal:
        return " or ".join(map(str, get_args(hint)))
    kind = type(None) if hint is None else origin or hint
    if kind in _NAMES:
        return _NAMES[kind]
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return _NAMES[dict]
    if inspect.isclass(kind) and issubclass(kind, Sequence):
        of = [_words(part) for part in get_args(hint) if part is not Ellipsis and part is not Any]
        return "a list" + (f" (of each: {', '.join(dict.fromkeys(of))})" if of else "")
    return getattr(kind, "__name__", str(kind))
