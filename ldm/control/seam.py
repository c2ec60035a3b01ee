"""Modes: what is done at chosen sites for a while instead of the plain function."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ldm.control.sites import Sites, uncompiled
from ldm.util import UserError


@dataclass
class Clock:
    """What the UNet was called with; a hook fills it in before each call."""

    timesteps: Tensor | None = None
    size: tuple[int, int] = (0, 0)
    _timestep: int | None = field(default=None, repr=False)

    def publish(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the UNet."""
        latent = args[0] if args else kwargs["x"]
        self.timesteps = args[1] if len(args) > 1 else kwargs["timesteps"]
        self.size = (latent.shape[-2], latent.shape[-1])
        self._timestep = None

    @property
    def timestep(self) -> int:
        """The one timestep of all rows; read from the device only when somebody asks, and once a call."""
        if self._timestep is None:
            if self.timesteps is None:
                raise UserError("a mode asked for the timestep outside of a call of the UNet")
            values = {round(t) for t in self.timesteps.reshape(-1).tolist()}
            if len(values) != 1:
                raise UserError(f"this mode needs one timestep for the whole batch, got {sorted(values)}")
            self._timestep = values.pop()
        return self._timestep


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
    def timestep(self) -> int:
        """The timestep of this call of the UNet.

        Raises:
            UserError: the rows of the batch have different timesteps.
        """
        return self.clock.timestep

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
