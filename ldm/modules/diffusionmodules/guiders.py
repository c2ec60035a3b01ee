"""How strongly guidance leads, as configurations of the ``sgm`` world name it: one scale, or one a frame.

The guidance itself is ``ldm.models.diffusion.guidance.guided``, which takes the ``scale`` of a guider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldm.util import ConfigError


class Guider:
    """Classifier-free guidance of one scale, or of one a row [rows]."""

    def __init__(self, scale: float | Tensor) -> None:
        self.scale = scale


class IdentityGuider(Guider):
    """No guidance."""

    def __init__(self) -> None:
        super().__init__(1.0)


class VanillaCFG(Guider):
    """One scale for all (Ho and Salimans 2022)."""

    def __init__(self, scale: float, dyn_thresh_config: Mapping[str, Any] | None = None) -> None:
        """``dyn_thresh_config``: accepted for YAMLs of 2023-07, of which none has a threshold.

        Raises:
            ConfigError: it names something else than NoDynamicThresholding.
        """
        named = "NoDynamicThresholding" if dyn_thresh_config is None else str(dyn_thresh_config.get("target"))
        if not named.endswith("NoDynamicThresholding"):
            raise ConfigError(f"thresholds in guidance, '{named}', are not here; take NoDynamicThresholding")
        super().__init__(scale)


class LinearPredictionGuider(Guider):
    """One scale a frame, evenly from ``min_scale`` to ``max_scale``."""

    def __init__(
        self, max_scale: float, num_frames: int, min_scale: float = 1.0, additional_cond_keys: Any = None
    ) -> None:
        """Raises ConfigError: there is no frame."""
        super().__init__(torch.linspace(min_scale, max_scale, _counted(num_frames), device="cpu"))


class TrianglePredictionGuider(Guider):
    """One scale a frame, up from ``min_scale`` to ``max_scale`` and down again, once in ``period`` of the film.

    Args:
        period: in films; a list gives several waves.
        period_fusing: of several waves: the largest (max), their mean or their product.
    """

    def __init__(
        self,
        max_scale: float,
        num_frames: int,
        min_scale: float = 1.0,
        period: float | list[float] = 1.0,
        period_fusing: str = "max",
        additional_cond_keys: Any = None,
    ) -> None:
        """Raises ConfigError: there is no frame, a period is not above 0, or another ``period_fusing``."""
        place = torch.linspace(0, 1, _counted(num_frames), device="cpu")
        periods = period if isinstance(period, list) else [period]
        if not periods or not all(length > 0 for length in periods):
            raise ConfigError(f"a period of guidance is above 0, got {period}")
        waves = torch.stack([triangle_wave(place / length) for length in periods])
        fusings = {"max": lambda: waves.amax(0), "mean": lambda: waves.mean(0), "multiply": lambda: waves.prod(0)}
        if period_fusing not in fusings:
            raise ConfigError(f"unknown period_fusing '{period_fusing}'; known: {', '.join(fusings)}")
        super().__init__(min_scale + (max_scale - min_scale) * fusings[period_fusing]())


class TrapezoidPredictionGuider(Guider):
    """One scale a frame, up from ``min_scale`` to ``max_scale``, then 1, then down again.

    That the frames between the edges have a scale of 1 and not of ``max_scale`` is how it was released.

    Args:
        edge_perc: the part of the frames in which it rises, and in which it falls.
    """

    def __init__(
        self,
        max_scale: float,
        num_frames: int,
        min_scale: float = 1.0,
        edge_perc: float = 0.1,
        additional_cond_keys: Any = None,
    ) -> None:
        """Raises ConfigError: there is no frame, or the edges are more than all frames."""
        edge = int(_counted(num_frames) * edge_perc)
        if not 0 <= edge_perc <= 0.5:
            raise ConfigError(f"edge_perc is the part of the frames of one edge, 0 to 0.5, got {edge_perc}")
        rise = torch.linspace(min_scale, max_scale, edge, device="cpu")
        super().__init__(torch.cat([rise, torch.ones(num_frames - 2 * edge, device="cpu"), rise.flip(0)]))


def _counted(num_frames: int) -> int:
    if num_frames < 1:
        raise ConfigError(f"guidance of a film needs at least one frame, got num_frames {num_frames}")
    return num_frames


def triangle_wave(u: Tensor) -> Tensor:
    """0 at whole numbers, 1 half-way."""
    return 2 * (u - (u + 0.5).floor()).abs()
