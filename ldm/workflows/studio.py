"""A model ready to work: with the settings that it is usually asked with, its name, its precision and its lock.

Every workflow takes a Studio, a bare model (which becomes one), or nothing (and opens one); the same request therefore
gives the same picture to a command, a notebook and a page.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from ldm.checkpoint import HasOrigin, Origin
from ldm.workflows.models import open_model
from ldm.workflows.record import fingerprint

_locks: weakref.WeakKeyDictionary[Any, threading.RLock] = weakref.WeakKeyDictionary()
_first_come = threading.Lock()


@dataclass(frozen=True, eq=False)
class Studio:
    """A model and what belongs to it.

    Attributes:
        model: a LatentDiffusion in eval mode.
        name: what records call it.
        inference: height, width, steps, guidance_scale and sampler where a request leaves them open, as its YAML says.
        precision: full, autocast (mixed on a GPU), bf16 or fp16.
        lock: whoever works with the model holds it; all Studios of one model share it.
    """

    model: Any
    name: str
    inference: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "autocast"

    @classmethod
    def of(cls, model: Any, precision: str = "autocast") -> Studio:
        """A Studio around a model at hand, with the settings of the YAML that it was opened with; a Studio stays."""
        if isinstance(model, Studio):
            return model
        origin = model.origin if isinstance(model, HasOrigin) else Origin()
        return cls(model, origin.name or type(model).__name__, origin.inference, precision)

    @property
    def lock(self) -> threading.RLock:
        with _first_come:
            return _locks.setdefault(self.model, threading.RLock())

    @property
    def device(self) -> torch.device:
        """Where latents and pictures are computed."""
        return self.model.device

    @property
    def fingerprint(self) -> str:
        """What tells its weights from others'; computed at each use, because weights can be changed."""
        return fingerprint(self.model)

    @property
    def is_mixed(self) -> bool:
        """Whether the network works in half precision on weights in full."""
        return self.precision == "autocast" and self.device.type == "cuda"

    @property
    def effective_precision(self) -> str:
        """What ``precision`` comes to on this device: on a CPU nothing is mixed."""
        return "full" if self.precision == "autocast" and not self.is_mixed else self.precision

    def mixed(self) -> contextlib.AbstractContextManager[Any]:
        """Within the block the model computes as ``precision`` says."""
        return torch.autocast("cuda", dtype=torch.float16) if self.is_mixed else contextlib.nullcontext()


def open_studio(
    ckpt: str | Path | None = None,
    config: str | Path | None = None,
    *,
    device: str | None = None,
    precision: str = "autocast",
    vae: str | Path | None = None,
) -> Studio:
    """The Studio of a checkpoint (of the small model without one); see ``ldm.workflows.models.open_model``.

    Raises:
        UserError: a file, the device or the precision does not fit, or the model is no latent diffusion model.
    """
    model, _ = open_model(ckpt, config, device=device, precision=precision, vae=vae)
    return Studio.of(model, precision)


class NamesModel(Protocol):
    """Options that say which model a request is for."""

    ckpt: str | None
    config: str | None
    device: str | None
    precision: str
    vae: str | None


def studio_for(options: NamesModel, model: Any = None) -> Studio:
    """The Studio around a model at hand; of what the options name where there is none.

    Raises:
        UserError: as ``open_studio``.
    """
    if model is not None:
        return Studio.of(model, options.precision)
    how = options
    return open_studio(how.ckpt, how.config, device=how.device, precision=how.precision, vae=how.vae)
