"""Learning-rate schedules: objects that turn a step into a factor on the base learning rate (for LambdaLR)."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from ldm.util import ConfigError

log = logging.getLogger(__name__)


class LambdaWarmUpCosineScheduler:
    """Linear from ``lr_start`` to ``lr_max`` in ``warm_up_steps``, then half a cosine down to ``lr_min``.

    Use it with a base learning rate of 1 (the rates here are then absolute), or read them as factors.

    Args:
        warm_up_steps: length of the warm-up.
        lr_min, lr_max, lr_start: last, highest and first factor.
        max_decay_steps: step at which ``lr_min`` is reached; it stays there.
        verbosity_interval: steps between two log lines; 0 is none.
    """

    def __init__(
        self,
        warm_up_steps: int,
        lr_min: float,
        lr_max: float,
        lr_start: float,
        max_decay_steps: int,
        verbosity_interval: int = 0,
    ) -> None:
        self.warm_up_steps = warm_up_steps
        self.lr_min, self.lr_max, self.lr_start = lr_min, lr_max, lr_start
        self.max_decay_steps = max_decay_steps
        self.verbosity_interval = verbosity_interval
        self.last_lr = 0.0

    def schedule(self, n: int) -> float:
        """The factor at step ``n``."""
        if n < self.warm_up_steps:
            self.last_lr = self.lr_start + (self.lr_max - self.lr_start) * n / self.warm_up_steps
        else:
            t = min((n - self.warm_up_steps) / max(self.max_decay_steps - self.warm_up_steps, 1), 1.0)
            self.last_lr = self.lr_min + (self.lr_max - self.lr_min) * (1 + math.cos(math.pi * t)) / 2
        if self.verbosity_interval and n % self.verbosity_interval == 0:
            log.info("step %d: learning-rate factor %g", n, self.last_lr)
        return self.last_lr

    def __call__(self, n: int) -> float:
        return self.schedule(n)


class LambdaWarmUpCosineScheduler2:
    """Cycles with a warm-up each: linear from ``f_start`` to ``f_max``, then half a cosine down to ``f_min``.

    Every parameter is a list with one entry per cycle, so that cycles (warm restarts) can differ.

    Args:
        warm_up_steps, f_min, f_max, f_start: as lists, per cycle.
        cycle_lengths: steps of each cycle, its warm-up included; after the last one its final factor stays.
        verbosity_interval: steps between two log lines; 0 is none.

    Raises:
        ConfigError: lists of different lengths.
    """

    def __init__(
        self,
        warm_up_steps: Sequence[int],
        f_min: Sequence[float],
        f_max: Sequence[float],
        f_start: Sequence[float],
        cycle_lengths: Sequence[int],
        verbosity_interval: int = 0,
    ) -> None:
        lengths = {len(values) for values in (warm_up_steps, f_min, f_max, f_start, cycle_lengths)}
        if len(lengths) != 1:
            raise ConfigError("warm_up_steps, f_min, f_max, f_start and cycle_lengths need one entry per cycle each")
        self.warm_up_steps, self.cycle_lengths = list(warm_up_steps), list(cycle_lengths)
        self.f_min, self.f_max, self.f_start = list(f_min), list(f_max), list(f_start)
        self.verbosity_interval = verbosity_interval
        self.last_f = 0.0

    def find_in_interval(self, n: int) -> tuple[int, int]:
        """The cycle that step ``n`` lies in, and the step inside that cycle."""
        last = len(self.cycle_lengths) - 1
        for cycle, length in enumerate(self.cycle_lengths):
            if n <= length or cycle == last:  # a boundary is the end of the old cycle
                return cycle, min(n, length)
            n -= length
        raise ConfigError("cycle_lengths is empty; it needs one entry per cycle")

    def decay(self, k: int, warm_up: int, length: int) -> float:
        """What is left of the way from ``f_min`` to ``f_max`` at step ``k`` of a cycle, after its warm-up."""
        return (1 + math.cos(math.pi * (k - warm_up) / max(length - warm_up, 1))) / 2

    def schedule(self, n: int) -> float:
        """The factor at step ``n``."""
        cycle, k = self.find_in_interval(n)
        warm_up, length = self.warm_up_steps[cycle], self.cycle_lengths[cycle]
        if k < warm_up:
            self.last_f = self.f_start[cycle] + (self.f_max[cycle] - self.f_start[cycle]) * k / warm_up
        else:
            rest = self.decay(k, warm_up, length)
            self.last_f = self.f_min[cycle] + (self.f_max[cycle] - self.f_min[cycle]) * rest
        if self.verbosity_interval and n % self.verbosity_interval == 0:
            log.info("step %d (cycle %d): learning-rate factor %g", n, cycle, self.last_f)
        return self.last_f

    def __call__(self, n: int) -> float:
        return self.schedule(n)


class LambdaLinearScheduler(LambdaWarmUpCosineScheduler2):
    """The same cycles with a straight line from ``f_max`` at the cycle's start (not the warm-up's end) to ``f_min``."""

    def decay(self, k: int, warm_up: int, length: int) -> float:
        return 1 - k / length
