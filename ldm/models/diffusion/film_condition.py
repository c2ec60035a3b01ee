"""What a film model of several encoders is conditioned on: Stable Video Diffusion's first frame, motion and fps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ldm.models.diffusion.condition import Parts, in_rows
from ldm.models.diffusion.loss import images_to_channels_first
from ldm.modules.encoders.conditioner import TEXT
from ldm.modules.encoders.needs import Need, Needs
from ldm.util import UserError

IMAGE = Need("image", "the first frame: pictures [B, 3, H, W] in [-1, 1]", 3, instead="latents")
SETTINGS = (
    Need("frames", "how many frames a film has"),
    Need("fps", "frames a second, one number or [B]"),
    Need("motion", "how much moves, from 0 to 255, one number or [B]"),
    Need("cond_aug", "the deviation of noise on the given frames, one number or [B]"),
    Need("noise", "what draws that noise, such as ImageNoise"),
    Need("stills", "1 where a frame is a picture on its own, [B, T]"),
)
NEEDS = Needs((IMAGE,), SETTINGS, reads_prompts=False, command="scripts/simple_video_sample.py")
PICTURES = ("cond_frames", "cond_frames_without_noise")  # what is 0 where guidance leads away from
FRAMES = 14  # of Stable Video Diffusion
FPS, MOTION = 7.0, 127.0  # what the public program asks for: it calls 7 frames a second 'fps_id 6'
AUGMENTATION = (-3.0, 0.5)  # mean and deviation of the logarithm of the noise on given frames in training


class DrawsNoise(Protocol):
    """What ``ImageNoise`` offers."""

    def draw(self, shape_of_one: Sequence[int]) -> Tensor:
        """Standard normal noise [B, *shape_of_one]."""
        ...


class TrainingNoise:
    """Noise for ``rows`` pictures from torch's generator, where nothing is to be repeated."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def draw(self, shape_of_one: Sequence[int]) -> Tensor:
        """Standard normal noise [rows, *shape_of_one]."""
        return torch.randn(self.rows, *shape_of_one)


def film_batch(prompts: Any, given: Mapping[str, Any], keys: Sequence[str], device: torch.device) -> dict[str, Any]:
    """What the conditioner gets for films, a row each.

    Args:
        prompts: one a film, for a conditioner that reads them.
        given: what ``NEEDS`` names.
        keys: the conditioner's.
    """
    films = len(prompts)
    picture: Tensor = given["image"].to(device)
    amount = in_rows(given.get("cond_aug", 0.0), films).float().to(device)
    noisy = picture
    if "noise" in given:
        noise: DrawsNoise = given["noise"]
        noisy = picture + amount.reshape(-1, 1, 1, 1) * noise.draw(picture.shape[1:]).to(picture)
    every = {
        "cond_frames_without_noise": picture,
        "cond_frames": noisy,
        "fps_id": in_rows(given.get("fps", FPS), films).float().to(device) - 1,
        "motion_bucket_id": in_rows(given.get("motion", MOTION), films).float().to(device),
        "cond_aug": amount,
        TEXT: prompts,
    }
    return {key: value for key, value in every.items() if key in keys}


def film_rows(films: Parts, frames: int, stills: Tensor | None) -> Parts:
    """The parts of a condition for films as one with a row for each frame, and ``c_frames``, which says so.

    Raises:
        UserError: less than 2 frames.
    """
    if frames < 2:
        raise UserError(f"a film has 2 frames or more, got {frames}")
    rows = {name: each_frame(part, frames) for name, part in films.items()}
    any_part = rows["c_adm"]
    count = len(any_part) // frames
    shown = torch.zeros(count, frames) if stills is None else stills.float()
    return {**rows, "c_frames": shown.to(any_part.device).repeat_interleave(frames, dim=0)}


def films_of(
    batch: Mapping[str, Any], key: str, training: bool, device: torch.device
) -> tuple[Any, dict[str, Any]]:
    """Prompts and what ``condition`` is given for clips [B, T, H, W, 3] of a batch: their first frames and numbers.

    In training there is some noise on the frames.
    """
    clips = batch[key]
    films, frames = clips.shape[:2]
    given: dict[str, Any] = {name: batch[name] for name in ("fps", "motion") if name in batch}
    given |= {"image": images_to_channels_first(clips[:, 0]).to(device), "frames": frames}
    if "image_only_indicator" in batch:
        given["stills"] = batch["image_only_indicator"]
    if training:
        given |= {"cond_aug": augmentation_of(films, device), "noise": TrainingNoise(films)}
    return batch.get(TEXT, [""] * films), given


def frames_of(sampler_config: Mapping[str, Any] | None) -> int:
    """How many frames a film has where nothing is said: as many as the sampler's guidance has scales, or 14."""
    guider = ((sampler_config or {}).get("params") or {}).get("guider_config") or {}
    return int((guider.get("params") or {}).get("num_frames", FRAMES))


def each_frame(part: Any, frames: int) -> Any:
    """A part of a condition with a row for each film as one with a row for each of its frames."""
    if isinstance(part, Tensor):
        return part.repeat_interleave(frames, dim=0)
    return [each_frame(one, frames) for one in part]


def augmentation_of(films: int, device: torch.device) -> Tensor:
    """How much noise training puts on the given frames of each film, [films]."""
    mean, deviation = AUGMENTATION
    return torch.exp(mean + deviation * torch.randn(films, device=device))
