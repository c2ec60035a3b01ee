"""Classifier-free guidance (Ho & Salimans 2022) as a wrapper around a denoiser, and batches of conditions.

A condition is a tensor [B, ...], None, or a dict or list of conditions (``c_concat``, ``c_crossattn`` of hybrids). Its
rows are those of its tensors, of which some may have one row for all; how many parts there are does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.models.diffusion.loop import Denoiser, Schedule
from ldm.util import UserError


@dataclass(frozen=True)
class Guided:
    """A denoiser whose prediction is pushed from the unconditional towards (and past) the conditional one."""

    denoiser: Denoiser
    scale: float | Tensor
    uncond: Any

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    @property
    def device(self) -> torch.device:
        return self.denoiser.device

    def predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        """u + scale (c - u), from one batch [unconditional, conditional], or two calls if their shapes differ."""
        uncond = expand_condition(self.uncond, x.shape[0])
        cond = expand_condition(cond, x.shape[0])
        if can_join(uncond, cond):
            both = self.denoiser.predict(torch.cat([x, x]), torch.cat([t, t]), join(uncond, cond))
            out_u, out_c = both.chunk(2)
        else:
            out_u, out_c = self.denoiser.predict(x, t, uncond), self.denoiser.predict(x, t, cond)
        return out_u + for_rows(self.scale, x) * (out_c - out_u)


def guided(denoiser: Denoiser, scale: float | Tensor, uncond: Any) -> Denoiser:
    """The denoiser with guidance; the plain one (half the work) where the scale is 1 or ``uncond`` is None.

    Args:
        scale: one for all, or a tensor [S] with one for each row of the batch; with a part S of the rows (one for each
            frame of films of which the batch has several, frames fastest) it is repeated for the next S rows.

    Raises:
        UserError: ``scale`` is a tensor of other dimensions.
    """
    if isinstance(scale, Tensor) and scale.dim() > 1:
        raise UserError(f"a guidance scale is one number, or one a row: a tensor [rows], got {tuple(scale.shape)}")
    if isinstance(scale, Tensor) and scale.dim() == 0:
        scale = float(scale)
    plain = bool((scale == 1).all()) if isinstance(scale, Tensor) else scale == 1
    return denoiser if plain or uncond is None else Guided(denoiser, scale, uncond)


def for_rows(scale: float | Tensor, x: Tensor) -> float | Tensor:
    """A scale as it multiplies ``x`` [B, ...]: a number as it is, a tensor [S] as [B, 1, ...]; see ``guided``.

    Raises:
        UserError: B is no multiple of S.
    """
    if not isinstance(scale, Tensor):
        return scale
    if x.shape[0] % len(scale):
        raise UserError(f"{len(scale)} guidance scales do not fit a batch of {x.shape[0]}")
    return scale.to(x.device, x.dtype).repeat(x.shape[0] // len(scale)).reshape(-1, *[1] * (x.dim() - 1))


def rows_of(cond: Any) -> int:
    """How many pictures a condition is for: the rows of its tensors, of which those with one row serve all.

    Raises:
        UserError: there is no tensor in it, or two have different numbers of rows.
    """
    counts = {tensor.shape[0] for tensor in tensors_of(cond)}
    if not counts:
        raise UserError("a condition without any tensor does not say how many images it is for")
    if len(counts - {1}) > 1:
        found = " and ".join(map(str, sorted(counts - {1})))
        raise UserError(f"the parts of a condition are for different numbers of images: {found}")
    return max(counts)


def tensors_of(cond: Any) -> Iterator[Tensor]:
    """Every tensor of a condition."""
    if isinstance(cond, Tensor):
        yield cond
    elif cond is not None:
        for part in cond.values() if isinstance(cond, dict) else cond:
            yield from tensors_of(part)


def expand_condition(cond: Any, batch: int) -> Any:
    """Repeat every tensor whose batch is 1 to ``batch`` rows.

    Raises:
        UserError: a tensor has another number of rows.
    """

    def expand(tensor: Tensor) -> Tensor:
        if tensor.shape[0] not in (1, batch):
            raise UserError(f"a condition for {tensor.shape[0]} images was given for a batch of {batch}")
        return tensor if tensor.shape[0] == batch else tensor.expand(batch, *tensor.shape[1:])

    return _map(expand, cond)


def take_rows(cond: Any, rows: Sequence[int]) -> Any:
    """Some rows of a condition that has one for each picture."""
    return _map(lambda tensor: tensor[list(rows)], cond)


def repeat_condition(cond: Any, batch: int, times: int) -> Any:
    """A condition for ``batch`` rows as one for ``times * batch``: all rows, then all of them again.

    Raises:
        UserError: a tensor has neither one row nor ``batch``.
    """
    return _map(lambda tensor: tensor.repeat(times, *[1] * (tensor.dim() - 1)), expand_condition(cond, batch))


def can_join(first: Any, second: Any) -> bool:
    """Whether two conditions have the same structure and differ in their batch at most."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(can_join(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(can_join(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape[1:] == second.shape[1:]
    return first is None and second is None


def join(first: Any, second: Any) -> Any:
    """One batch of two conditions for which ``can_join`` holds: the rows of ``first``, then those of ``second``."""
    return _map(lambda a, b: torch.cat([a, b.to(a.dtype)]), first, second)


def _map(function: Callable[..., Tensor], *conditions: Any) -> Any:
    """Apply ``function`` to the tensors at the same place of equally built conditions."""
    first = conditions[0]
    if first is None:
        return None
    if isinstance(first, dict):
        return {key: _map(function, *(c[key] for c in conditions)) for key in first}
    if isinstance(first, list | tuple):
        return [_map(function, *parts) for parts in zip(*conditions, strict=True)]
    if isinstance(first, Tensor):
        return function(*conditions)
    raise UserError(f"a condition is a tensor, None, or a dict or list of those; got {type(first).__name__}")
