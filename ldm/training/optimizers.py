"""``lightning.optimizer: adamw8bit``: optimizers by short names, known to be there before a network is built."""

from __future__ import annotations

import importlib.util

from omegaconf import DictConfig, OmegaConf

from ldm.util import ConfigError, MissingPartError

PLACE = "model.params.optimizer_config.target"
EIGHT_BITS = "bitsandbytes"
NAMES = {"adamw": "torch.optim.AdamW", "adamw8bit": f"{EIGHT_BITS}.optim.AdamW8bit"}


def apply_optimizer(config: DictConfig, lightning: DictConfig) -> None:
    """Write ``lightning.optimizer`` into the model's ``optimizer_config``, whose parameters stay.

    Raises:
        ConfigError: there is no such name.
        MissingPartError: the optimizer's package is not installed.
    """
    name = lightning.get("optimizer")
    if name is not None:
        if not isinstance(name, str) or name not in NAMES:
            raise ConfigError(f"lightning.optimizer is '{str(name)[:80]}'; it must be one of {', '.join(NAMES)}")
        OmegaConf.update(config, PLACE, NAMES[name], force_add=True)
    wanted = str(OmegaConf.select(config, PLACE) or "")
    if wanted.startswith(f"{EIGHT_BITS}.") and importlib.util.find_spec(EIGHT_BITS) is None:
        raise MissingPartError(f"{wanted} needs {EIGHT_BITS}, which is not installed: run 'pip install {EIGHT_BITS}'")
