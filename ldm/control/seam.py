"""Modes: what is done at chosen sites for a while instead of the plain function."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ldm.control.sites import Sites, uncompiled
from ldm.modules.diffusionmodules.levels import current_level
from ldm.util import UserError

ROUNDING = 1e-6  # of what the network is told, which comes in single precision


@dataclass
class Clock:
    """What the UNet was called with, and at which level; a hook fills it in before each call."""

    timesteps: Tensor | None = None
    size: tuple[int, int] = (0, 0)
    _place: tuple[int | None, float] | None = field(default=None, repr=False)

    def publish(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the UNet."""
        latent = args[0] if args else kwargs["x"]
        self.timesteps = args[1] if len(args) > 1 else kwargs["timesteps"]
        self.size = (latent.shape[-2], latent.shape[-1])
        self._place = None

    @property
    def timestep(self) -> float:
        """What the network is told of all rows; read from the device only when somebody asks, and once a call."""
        return self._read()[1]

    @property
    def index(self) -> int:
        """The index of the level.

        Raises:
            UserError: the network was called outside of a walk, so that its level is not known.
        """
        index, told = self._read()
        if index is None:
            raise UserError(
                f"the network is told {told:g}, from which its level cannot be known: "
                "call it on a walk along levels, or within at_level(level)"
            )
        return index

    def _read(self) -> tuple[int | None, float]:
        """Index and number of the level that the caller says it is at, if the network is told that number indeed."""
        if self._place is not None:
            return self._place
        if self.timesteps is None:
            raise UserError("a mode asked for the timestep outside of a call of the UNet")
        values = set(self.timesteps.reshape(-1).tolist())
        if len(values) != 1:
            raise UserError(f"this mode needs one timestep for the whole batch, got {sorted(values)}")
        told, level = values.pop(), current_level()
        if level is not None and math.isclose(told, level.told, rel_tol=ROUNDING, abs_tol=ROUNDING):
            self._place = level.index, level.told
        elif told == round(told):
            self._place = round(told), round(told)  # outside of a walk a table's level is known by its timestep
        else:
            self._place = None, told
        return self._place


@dataclass(frozen=True)
class Call:
    """One call at one site, as a mode sees it.

    Attributes:
        site: name of the layer.
        inner: what stood there before: the plain function, or the mode that this one is nested in.
    """

    site: str
    inner: Callable[..., Tensor]
    clock: Clock

    @property
    def timestep(self) -> float:
        """What the UNet is told in this call: a whole timestep, or a fraction where its schedule tells fractions.

        Raises:
            UserError: the rows of the batch have different timesteps.
        """
        return self.clock.timestep

    @property
    def index(self) -> int:
        """The index of this call's level in its walk, under which stores keep features; outside of any, the timestep.

        Raises:
            UserError: the rows of the batch have different timesteps, or a fraction is told outside of any walk.
        """
        return self.clock.index

    def grid(self, tokens: int) -> tuple[int, int]:
        """Height and width of the feature map that has so many positions.

        Raises:
            UserError: the latent does not become a map of that many positions.
        """
        height, width = self.clock.size
        while height * width > tokens:
            height, width = -(-height // 2), -(-width // 2)
        if height * width != tokens:
            raise UserError(f"a latent of {self.clock.size} has no feature map with {tokens} positions")
        return height, width


# What may be done at a site. For attention: ``mode(q, k, v, *, call, scale=None)``, q [b h n d], k [b h m d],
# v [b h m d] -> [b h n d], where ``scale`` None means d^-1/2; it finishes, as a rule, with
# ``call.inner(q, k, v, scale=scale)``. For a residual branch: ``mode(h, *, call)``, h [b c h w] -> the same shape.
Mode = Callable[..., Tensor]
Modes = Mapping[Sites, Mode]


@contextlib.contextmanager
def attention_mode(unet: nn.Module, modes: Modes) -> Iterator[None]:
    """Within the block each mode acts at its sites; afterwards, whatever happened, all is as it was.

    Blocks nest: an inner mode runs first, and what it hands to ``call.inner`` is what the outer mode gets. Of two
    entries that share a site, the later is the inner one. While a mode is there, what ``torch.compile`` has compiled
    runs uncompiled, so that its graphs are those without modes, and serve again afterwards.

    Raises:
        UserError: a site that this network does not have.
    """
    unet = uncompiled(unet)
    clock = Clock()
    with contextlib.ExitStack() as stack:
        if modes:
            stack.callback(unet.register_forward_pre_hook(clock.publish, with_kwargs=True).remove)
            if "torch._dynamo" in sys.modules:  # otherwise nothing is compiled, and importing it takes a second
                stack.enter_context(torch.compiler.set_stance("force_eager"))
        for where, mode in modes.items():
            for name in where:
                stack.enter_context(_installed(unet, name, where.seam, mode, clock))
        yield


@contextlib.contextmanager
def _installed(unet: nn.Module, site: str, seam: str, mode: Mode, clock: Clock) -> Iterator[None]:
    """One mode at one site, as an attribute of the module that hides the one of its class."""
    try:
        module = unet.get_submodule(site)
    except AttributeError as error:
        raise UserError(f"this network has no layer '{site}'") from error
    before = vars(module).get(seam)
    call = Call(site, getattr(module, seam), clock)

    def attend(*tensors: Tensor, **options: Any) -> Tensor:
        return mode(*tensors, call=call, **options)

    setattr(module, seam, attend)
    try:
        yield
    finally:
        delattr(module, seam)
        if before is not None:
            setattr(module, seam, before)
