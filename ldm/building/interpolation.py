"""What ``${...}`` in a configuration may say: the path of another value, or a value of the environment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ldm.building.errors import ConfigError
from ldm.building.trust import ENVIRONMENT

Path = tuple[str, ...]

_REFERENCE = re.compile(r"\$\{\s*(?P<dots>\.*)(?P<path>\w[\w.-]*(?:\[[\w-]+\][\w.-]*)*)\s*\}")
_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:\s*(?P<name>\w+)\s*(?:,\s*[\w ./:~-]*)?\}")
_HIDDEN = re.compile(r"\ue000(.*?)\ue001")
MOST = 1_000_000  # letters and values that a configuration may grow to


def check_interpolations(config: Any, origin: object) -> None:
    """Refuse interpolations that do more than point, point in circles, or grow without end; nothing is resolved.

    Args:
        config: plain nested containers, as they are written.
        origin: the file, for the message.

    Raises:
        ConfigError: another form of interpolation, a name of the environment that is not on the list, a circle, or a
            configuration that would become too large.
    """
    for _, text in leaves(config):
        rest = _REFERENCE.sub("", _ENVIRONMENT.sub("", text))
        if "${" in rest or "\\$" in rest or "\ue000" in rest:
            raise ConfigError(
                f"'{origin}' holds '{text[:120]}'; an interpolation is ${{path.of.another.value}} or ${{oc.env:NAME}}"
            )
        for found in _ENVIRONMENT.finditer(text):
            if found["name"] not in ENVIRONMENT:
                raise ConfigError(
                    f"'{origin}' asks for the environment's '{found['name']}', which a configuration may not see; "
                    f"these it may: {', '.join(sorted(ENVIRONMENT))}"
                )
    _Sizes(config, origin).of((), ())


def leaves(config: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every text with a dollar in plain nested containers, and its path."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield from leaves(value, (*path, str(key)))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from leaves(value, (*path, str(index)))
    elif isinstance(config, str) and ("$" in config or "\ue000" in config):
        yield path, config


class _Sizes:
    """How large each part of a configuration becomes when its references are followed."""

    def __init__(self, config: Any, origin: object) -> None:
        self.config, self.origin = config, origin
        self.known: dict[Path, int] = {}

    def of(self, path: Path, above: tuple[Path, ...]) -> int:
        """Letters and values below ``path``; ``above`` are the references that led here."""
        if path in self.known:
            return self.known[path]
        value = _at(self.config, path)
        total = 1
        if isinstance(value, (dict, list)):
            keys = map(str, value) if isinstance(value, dict) else map(str, range(len(value)))
            total += sum(self.of((*path, key), above) for key in keys)
        elif isinstance(value, str):
            total += len(value)
            for found in _REFERENCE.finditer(value):
                target = _absolute(path, found)
                if len(above) > 50 or target in above or target == path[: len(target)]:
                    raise ConfigError(f"'{self.origin}': the value of '{'.'.join(path)}' points to itself")
                total += self.of(target, (*above, target))
        if total > MOST:
            raise ConfigError(f"'{self.origin}' would grow without end: its references are repeated too often")
        self.known[path] = total
        return total


def _absolute(path: Path, found: re.Match[str]) -> Path:
    """Where a reference points; each dot in front is a level up from the value that holds it."""
    names = tuple(part for part in re.split(r"[.\[\]]+", found["path"]) if part)
    dots = len(found["dots"])
    return names if dots == 0 else (*path[: max(0, len(path) - dots)], *names)


def _at(config: Any, path: Path) -> Any:
    """The value at a path; None where there is none, which whoever resolves it will say."""
    for name in path:
        if isinstance(config, dict):
            config = next((value for key, value in config.items() if str(key) == name), None)
        elif isinstance(config, list) and name.isdecimal() and int(name) < len(config):
            config = config[int(name)]
        else:
            return None
    return config


def hide_environment(config: Any) -> Any:
    """A configuration whose ``${oc.env:...}`` will be carried along by other references instead of being resolved."""
    if isinstance(config, dict):
        return {key: hide_environment(value) for key, value in config.items()}
    if isinstance(config, list):
        return [hide_environment(value) for value in config]
    if isinstance(config, str):
        return _ENVIRONMENT.sub(lambda found: f"\ue000{found[0][2:-1]}\ue001", config)
    return config


def show_environment(config: Any) -> Any:
    """The opposite of :func:`hide_environment`."""
    if isinstance(config, dict):
        return {key: show_environment(value) for key, value in config.items()}
    if isinstance(config, list):
        return [show_environment(value) for value in config]
    return _HIDDEN.sub(r"${\1}", config) if isinstance(config, str) else config
