"""Building objects from configuration nodes, and the errors that a person is meant to read."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ldm.shipped import here_or_shipped
from ldm.targets import current_name, why_missing

EXIT_BAD_INPUT = 2


class UserError(Exception):
    """Something the user gave is wrong; the message is one sentence: what, where, and what would be right."""


class ConfigError(UserError):
    """A configuration node cannot be turned into an object."""


class MissingPartError(UserError):
    """A known target that this project does not carry; the message says what is missing."""


def get_obj_from_str(path: str, reload: bool = False) -> Any:
    """Import the object that a dotted path such as ``torch.nn.Identity`` names, wherever it is now.

    Raises:
        MissingPartError: a public name that this project is known not to carry.
        ConfigError: the module or the name in it does not exist.
    """
    path = current_name(str(path))
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ConfigError(f"target '{path}' is not a dotted import path such as 'package.module.Class'")
    try:
        module = importlib.import_module(module_name)
        module = importlib.reload(module) if reload else module
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise _no_target(path, f"does not exist: there is no module '{error.name}'") from error
        raise _no_target(path, f"needs the Python package '{error.name}', which is not installed") from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise _no_target(path, f"does not exist: module '{module_name}' has no '{name}'") from error


def _no_target(path: str, problem: str) -> UserError:
    """The error for a target that cannot be imported: what would do instead, where that is known."""
    reason = why_missing(path)
    return ConfigError(f"target '{path}' {problem}") if reason is None else MissingPartError(f"no '{path}': {reason}")


def instantiate_from_config(config: Mapping[str, Any], **extra: Any) -> Any:
    """Build the object that a ``{target: dotted.path, params: {...}}`` node describes.

    Args:
        config: the node, a plain mapping or an OmegaConf one.
        extra: further keyword arguments, which win over ``params``.

    Raises:
        ConfigError: no ``target``, an unknown target, or a parameter that it does not take or still needs.
    """
    if not isinstance(config, Mapping) or "target" not in config:
        raise ConfigError(f"a configuration node needs the key 'target', got {_short(config)}")
    # plain lists and dicts: objects keep what they are given
    node: Any = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    target = node["target"]
    factory = get_obj_from_str(target)
    kwargs = {**(node.get("params") or {}), **extra}
    _check_arguments(target, factory, kwargs)
    return factory(**kwargs)


def _check_arguments(target: str, factory: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """Name the parameter that does not fit, before the call: a TypeError from deeper down would hide it."""
    parameters = _parameters(factory)
    if parameters is None:
        return
    unknown = [name for name in kwargs if name not in parameters]
    if unknown:
        raise ConfigError(f"target '{target}' has no parameter '{unknown[0]}'; {nearest(unknown[0], parameters)}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in kwargs:
            raise ConfigError(f"target '{target}' needs the parameter '{name}', which the configuration does not give")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known: the three that are most like it."""
    found = difflib.get_close_matches(name, list(known), n=3, cutoff=0.0)
    return f"the nearest that it has: {', '.join(found)}" if found else "it has none"


def _parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """The parameters that can be given by name, or None when anything may be given.

    A constructor that passes ``**kwargs`` on to its base class takes the base's parameters as well.
    """
    constructors: list[Callable[..., Any]] = [factory]
    if _is_class(factory):
        constructors = [vars(c)["__init__"] for c in factory.__mro__ if "__init__" in vars(c)]
    found: dict[str, inspect.Parameter] = {}
    for constructor in constructors:
        try:
            parameters = list(inspect.signature(constructor).parameters.values())
        except (TypeError, ValueError):  # builtins without a signature
            return None
        parameters = parameters[1:] if _is_class(factory) else parameters  # without self
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return None
        for parameter in parameters:
            if parameter.kind is not parameter.VAR_KEYWORD:
                found.setdefault(parameter.name, parameter)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return found
    return None


def _is_class(factory: Callable[..., Any]) -> TypeGuard[type]:
    return inspect.isclass(factory)


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "..."


def read_yaml(path: str | os.PathLike[str]) -> DictConfig:
    """The configuration in a YAML file: one in the working directory, or one that comes with the project.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds no sections.
    """
    file = here_or_shipped(path)
    if not file.is_file():
        raise ConfigError(f"there is no configuration file '{path}'")
    try:
        config = OmegaConf.load(file)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' is not readable as YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(config, DictConfig):
        raise ConfigError(f"'{path}' is no configuration: it must hold sections such as 'model:' and 'data:'")
    return config


def find_beside(document: DictConfig, key: str, *folders: Path) -> None:
    """Make the relative path under ``key`` absolute, if there is such a file in one of ``folders``, the first first."""
    source = OmegaConf.select(document, key)
    for folder in folders if isinstance(source, str) else ():
        if (folder / source).exists():
            OmegaConf.update(document, key, str((folder / source).resolve()))
            return


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it over ``path`` on success, remove it on failure.

    Raises:
        UserError: the disk is full or the folder cannot be written; an older file at ``path`` survives.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; a result should be as readable as any other
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror or error}; nothing was changed there") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def run_command(main: Callable[[], object], debug: bool | None = None) -> None:
    """Run a command's ``main``: bad input ends with one sentence on stderr and exit code 2, Ctrl-C with 130.

    ``--debug`` among the arguments (or ``debug=True``) shows the traceback as well.
    """
    debug = "--debug" in sys.argv if debug is None else debug
    try:
        main()
    except UserError as error:
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"error: {error}\n")
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
