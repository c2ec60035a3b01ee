"""Which classes a configuration may name, and which of the environment's values it may ask for.

A YAML that the user names may take classes of any package and of the working directory: importing them is what the
user asks for. A YAML that is found (beside a checkpoint, in a run folder) may only take those of the packages below;
nothing else is imported, unless the user says that it is to be trusted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from ldm.building.errors import ConfigError
from ldm.building.kinds import nodes
from ldm.targets import current_name, why_missing

PACKAGES = frozenset(
    ("ldm", "torch", "pytorch_lightning", "lightning", "lightning_fabric", "transformers", "taming", "kornia", "peft",
     "torchmetrics", "bitsandbytes")
)  # fmt: skip
FLAG, VARIABLE = "--trust_config", "LDM_TRUST_CONFIG"
# What ${oc.env:NAME} may ask for: where things lie and how many there are, never a password or a key.
ENVIRONMENT = frozenset(
    ("HOME", "USER", "TMPDIR", "PWD", "DATA", "DATA_ROOT", "DATASETS", "SCRATCH", "HF_HOME", "TORCH_HOME",
     "XDG_CACHE_HOME", "CUDA_VISIBLE_DEVICES", "WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK", "OMP_NUM_THREADS")
)  # fmt: skip
_STANDARD = sys.stdlib_module_names | {"__builtin__"}


def trusted() -> bool:
    """Whether found configurations may take foreign classes: ``--trust_config`` or ``LDM_TRUST_CONFIG=1``."""
    return os.environ.get(VARIABLE, "").lower() in ("1", "true", "yes")


def is_listed(target: str) -> bool:
    """Whether a dotted name lies in a package of the list; private modules do not."""
    root, *rest = target.split(".")
    return root in PACKAGES and not any(part.startswith("_") for part in rest)


def is_standard(module: str) -> bool:
    """Whether a module belongs to Python itself."""
    return module.partition(".")[0] in _STANDARD


def check_name(target: str) -> None:
    """Refuse what no configuration may name, before it is imported.

    Raises:
        ConfigError: it belongs to Python itself, where there is no class that a configuration needs.
    """
    if is_standard(target):
        raise ConfigError(
            f"target '{target}' belongs to Python itself; a configuration names classes such as modules, data sets and "
            "callbacks, and nothing of it was run"
        )


def check_found(config: Any, origin: object) -> None:
    """Refuse foreign classes anywhere in a configuration that the user has not named; nothing is imported.

    Args:
        config: plain nested containers, interpolations resolved.
        origin: the file, for the message.

    Raises:
        ConfigError: names the class and the ways out.
    """
    for target in _targets(config):
        check_name(target)
        if not is_listed(current_name(target)) and why_missing(target) is None and not trusted():
            raise ConfigError(
                f"'{origin}' names the class '{target}', which is of no package that a configuration may use unasked "
                f"({', '.join(sorted(PACKAGES))}): nothing of it was imported; if you trust the file, give it yourself "
                f"(-b or --config), or add {FLAG} (or set {VARIABLE}=1)"
            )


def _targets(config: Any) -> Iterator[str]:
    return (node["target"] for node, _ in nodes(config) if isinstance(node["target"], str) and "." in node["target"])
