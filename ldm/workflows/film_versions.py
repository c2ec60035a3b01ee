"""The released film models, Stable Video Diffusion's, and what the public program asks of each."""

from __future__ import annotations

from dataclasses import dataclass

DECLINED = ("sv3d_u", "sv3d_p", "sv3d", "sv4d", "sv4d2", "sv4d2_8views")


@dataclass(frozen=True)
class Version:
    """What the public program asks of one of the released models."""

    config: str
    frames: int
    steps: int
    max_scale: float
    min_scale: float


VERSIONS = {
    f"{name}{decoder}": Version(f"configs/svd/{name}{decoder}.yaml", frames, steps, highest, lowest)
    for name, frames, steps, highest, lowest in (("svd", 14, 25, 2.5, 1.0), ("svd_xt", 25, 30, 3.0, 1.5))
    for decoder in ("", "_image_decoder")
}
