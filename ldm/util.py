"""Building objects from configuration nodes, and the errors that a person is meant to read."""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ldm.building.errors import ConfigError, MissingPartError, UserError, printable
from ldm.building.json_text import parse_json, parse_json_object, parse_sizes, whole_number
from ldm.building.kinds import ANY, Kind, nodes
from ldm.building.trust import check_name, is_listed, is_standard
from ldm.building.values import beyond_limits, hints_of, misfit
from ldm.building.yaml_files import read_yaml, section
from ldm.running import EXIT_BAD_INPUT, run_command
from ldm.targets import current_name, why_missing
from ldm.writing import TakenError, atomic_write, check_there, clear_leftovers, temporary_folder, writable_folder

__all__ = [
    "EXIT_BAD_INPUT",
    "ConfigError",
    "MissingPartError",
    "TakenError",
    "UserError",
    "atomic_write",
    "check_there",
    "class_from_str",
    "clear_leftovers",
    "find_beside",
    "get_obj_from_str",
    "instantiate_from_config",
    "nearest",
    "parse_json",
    "parse_json_object",
    "parse_sizes",
    "printable",
    "read_yaml",
    "run_command",
    "section",
    "temporary_folder",
    "whole_number",
    "writable_folder",
]

log = logging.getLogger(__name__)

# What constructors raise when a value does not suit them.
WRONG_VALUES = (
    TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError,
    NotImplementedError, OSError, MemoryError,
)  # fmt: skip
_known_foreign: set[str] = set()


def get_obj_from_str(path: str, reload: bool = False) -> Any:
    """Import the object that a dotted path such as ``torch.nn.Identity`` names, wherever it is now.

    Any object: whoever builds what a configuration names takes :func:`class_from_str`.

    Raises:
        MissingPartError: a public name that this project is known not to carry.
        ConfigError: the module or the name in it does not exist.
    """
    path = current_name(str(path))
    module_name, _, name = path.rpartition(".")
    if not all(part.isidentifier() for part in path.split(".")) or not module_name:
        raise ConfigError(f"target '{path}' is not a dotted import path such as 'package.module.Class'")
    try:
        module = importlib.import_module(module_name)
        module = importlib.reload(module) if reload else module
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise _no_target(path, f"does not exist: there is no module '{error.name}'") from error
        raise _no_target(path, f"needs the Python package '{error.name}', which is not installed") from error
    except (ImportError, SyntaxError) as error:
        raise _no_target(path, f"cannot be imported: {_one_line(error)}") from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise _no_target(path, f"does not exist: module '{module_name}' has no '{name}'") from error


def _no_target(path: str, problem: str) -> UserError:
    """The error for a target that cannot be imported: what would do instead, where that is known."""
    reason = why_missing(path)
    return ConfigError(f"target '{path}' {problem}") if reason is None else MissingPartError(f"no '{path}': {reason}")


def class_from_str(path: Any, kind: Kind = ANY) -> type:
    """The class that a configuration names, if it is of the kind that its place asks for; it is not called.

    A class of a package that is not on the list of ``ldm.building.trust`` is taken, and the log says so: a
    configuration that may not name it was refused when it was read.

    Raises:
        ConfigError: it does not exist, belongs to Python itself, is no class, or is one of another kind.
        MissingPartError: as :func:`get_obj_from_str`.
    """
    path = str(path)
    check_name(path)
    found = get_obj_from_str(path)
    if not inspect.isclass(found):
        raise ConfigError(f"target '{path}' is a {type(found).__name__}, not a class; nothing of it was run")
    own_code = kind is ANY and _is_of_working_directory(found)
    if not (kind.fits(found) or own_code) or is_standard(found.__module__):
        raise ConfigError(f"target '{path}' is no class that can stand there: it must be {kind.words}")
    if not is_listed(current_name(path)) and path not in _known_foreign:
        _known_foreign.add(path)
        log.info("the configuration uses a class from outside: %s (%s)", printable(path), _file_of(found))
    return found


def _file_of(found: type) -> str:
    return str(getattr(sys.modules.get(found.__module__), "__file__", None) or found.__module__)


def _is_of_working_directory(found: type) -> bool:
    """A class that the user wrote beside what is being run; classes of installed packages have a known kind."""
    file = Path(_file_of(found))
    return file.is_relative_to(Path.cwd()) and "site-packages" not in file.parts


def instantiate_from_config(config: Mapping[str, Any], kind: Kind = ANY, /, **extra: Any) -> Any:
    """Build the object that a ``{target: dotted.path, params: {...}}`` node describes.

    Every node below it is checked first, too: what it names must be a class of the kind that its place asks for.

    Args:
        config: the node, a plain mapping or an OmegaConf one.
        kind: what it must be, a kind of ``ldm.building.kinds``.
        extra: further keyword arguments, which win over ``params``.

    Raises:
        ConfigError: no ``target``, an unknown target or one of another kind, here or in a node below; a parameter that
            it does not take or still needs, or a value that does not suit it.
    """
    if not isinstance(config, Mapping) or "target" not in config:
        raise ConfigError(f"a configuration node needs the key 'target', got {_short(config)}")
    # plain lists and dicts: objects keep what they are given
    node: Any = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    target, params = node["target"], node.get("params")
    factory = class_from_str(target, kind)
    if not isinstance(params, Mapping | None) or not all(isinstance(name, str) for name in params or ()):
        raise ConfigError(f"target '{target}' needs 'params' by name, got {_short(params)}")
    for below, expected in nodes(params):
        if isinstance(below["target"], str) and "." in below["target"]:
            class_from_str(below["target"], expected)
    beyond = beyond_limits(params)
    if beyond is not None:
        raise ConfigError(f"target '{target}': {beyond}")
    kwargs = {**(params or {}), **extra}
    _check_arguments(target, factory, kwargs)
    try:
        return factory(**kwargs)
    except WRONG_VALUES as error:
        raise ConfigError(f"target '{target}' cannot be built from its parameters: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _check_arguments(target: str, factory: type, kwargs: Mapping[str, Any]) -> None:
    """Name the parameter that does not fit, before the call: a TypeError from deeper down would hide it."""
    parameters = _parameters(factory)
    if parameters is None:
        return
    unknown = [name for name in kwargs if name not in parameters]
    if unknown:
        raise ConfigError(f"target '{target}' has no parameter '{unknown[0]}'; {nearest(unknown[0], parameters)}")
    for name, (parameter, hint) in parameters.items():
        if name not in kwargs:
            if parameter.default is parameter.empty:
                raise ConfigError(
                    f"target '{target}' needs the parameter '{name}', which the configuration does not give"
                )
            continue
        wanted = None if kwargs[name] is parameter.default else misfit(kwargs[name], hint)
        if wanted is not None:
            raise ConfigError(f"target '{target}': '{name}' must be {wanted}, got {_short(kwargs[name])}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known: the three that are most like it."""
    found = difflib.get_close_matches(name[:60], list(known), n=3, cutoff=0.0)
    return f"the nearest that it has: {', '.join(found)}" if found else "it has none"


def _parameters(factory: type) -> dict[str, tuple[inspect.Parameter, Any]] | None:
    """The parameters that can be given by name, each with its type, or None when anything may be given.

    A constructor that passes ``**kwargs`` on to its base class takes the base's parameters as well.
    """
    found: dict[str, tuple[inspect.Parameter, Any]] = {}
    for constructor in [vars(base)["__init__"] for base in factory.__mro__ if "__init__" in vars(base)]:
        try:
            parameters = list(inspect.signature(constructor).parameters.values())[1:]  # without self
        except (TypeError, ValueError):  # builtins without a signature
            return None
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return None
        # other people's annotations are often narrower than what their code takes
        hints = hints_of(constructor) if factory.__module__.startswith("ldm.") else {}
        for parameter in parameters:
            if parameter.kind is not parameter.VAR_KEYWORD:
                found.setdefault(parameter.name, (parameter, hints.get(parameter.name, Any)))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return found
    return None


def _short(value: Any, limit: int = 80) -> str:
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a very long number"
    return text if len(text) <= limit else text[:limit] + "..."


def find_beside(document: DictConfig, key: str, *folders: Path) -> None:
    """Make the relative path under ``key`` absolute, if there is such a file in one of ``folders``, the first first."""
    source = OmegaConf.select(document, key)
    for folder in folders if isinstance(source, str) else ():
        if (folder / source).exists():
            OmegaConf.update(document, key, str((folder / source).resolve()))
            return
