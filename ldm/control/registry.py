"""Modes by name, for YAML files and command lines."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from ldm.building.kinds import ATTENTION
from ldm.control.sites import Sites, sites
from ldm.util import UserError, instantiate_from_config

MODES: dict[str, str] = {}  # name -> dotted path of the class
ClassT = TypeVar("ClassT", bound=type)


def register(name: str) -> Callable[[ClassT], ClassT]:
    """Class decorator: from now on ``name`` in a configuration means this mode."""

    def add(mode: ClassT) -> ClassT:
        MODES[name] = f"{mode.__module__}.{mode.__qualname__}"
        return mode

    return add


def mode_by_name(name: str, **params: Any) -> Callable[..., Tensor]:
    """The mode called ``name``, or of the class with that dotted path, with those parameters.

    Raises:
        UserError: an unknown name, or a parameter that this mode does not take.
    """
    target = name if "." in name else known_modes().get(name)
    if target is None:
        raise UserError(f"unknown attention mode '{name}'; known: {', '.join(sorted(MODES))}")
    return instantiate_from_config({"target": target, "params": params}, ATTENTION)


def known_modes() -> dict[str, str]:
    """Every mode of this package: all of its files are imported, so that a new file is found without being listed."""
    package = importlib.import_module(__package__)
    for found in pkgutil.iter_modules(package.__path__, f"{__package__}."):
        importlib.import_module(found.name)
    return MODES


def modes_from_config(
    unet: nn.Module, nodes: list[Mapping[str, Any]], sources: Mapping[str, Any] | None = None
) -> dict[Sites, Callable[..., Tensor]]:
    """What ``attention_mode`` takes, from nodes ``{mode, sites, kind, resolution, params}``, all but the mode optional.

    A text among the parameters (or in a list of them) that is a name in ``sources`` stands for that source or store.

    Raises:
        UserError: an unknown mode, key or parameter, or sites that do not exist.
    """
    found: dict[Sites, Callable[..., Tensor]] = {}
    for node in nodes:
        unknown = set(node) - {"mode", "sites", "kind", "resolution", "params"}
        if "mode" not in node or unknown:
            wrong = f"has the unknown key '{sorted(unknown)[0]}'" if unknown else "has no key 'mode'"
            raise UserError(f"a node of attention modes {wrong}; keys: mode, sites, kind, resolution, params")
        options = {("pattern" if key == "sites" else key): node[key] for key in node if key not in ("mode", "params")}
        where = sites(unet, **options)
        if where in found:
            raise UserError(f"two attention modes were given for {', '.join(where)}")
        params = {key: _resolved(value, sources or {}) for key, value in (node.get("params") or {}).items()}
        found[where] = mode_by_name(node["mode"], **params)
    return found


def _resolved(value: Any, sources: Mapping[str, Any]) -> Any:
    if isinstance(value, list | tuple):
        return [_resolved(item, sources) for item in value]
    return sources.get(value, value) if isinstance(value, str) else value
