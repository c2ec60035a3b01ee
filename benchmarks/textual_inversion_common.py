"""What both sides of ``benchmarks.textual_inversion`` share: sizes, weights, draws, and how a step is measured."""

from __future__ import annotations

import resource
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.checkpoint import read_state_dict

SCALE = 0.18215
RATE, DECAY = 5e-3, 1e-2
LORA_RATE, RANK = 1e-4, 4  # of diffusers' example
PLACEHOLDER = 7  # the id of the token whose vector is learned
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16
Parts = dict[str, dict[str, Tensor]]  # unet, vae, text -> weights


@dataclass(frozen=True)
class Size:
    """What is built; ``widths`` are the UNet's first width and the autoencoder's."""

    config: str
    text: str  # clip or bert
    side: int  # of the picture
    context: int
    vocabulary: int
    layers: int
    widths: tuple[int, int] = (320, 128)

    @property
    def clip(self) -> dict[str, Any]:
        """The sizes of the text model as transformers' CLIPTextConfig calls them."""
        return {
            "vocab_size": self.vocabulary, "hidden_size": self.context, "intermediate_size": 4 * self.context,
            "num_hidden_layers": self.layers, "num_attention_heads": self.context // 64,
            "max_position_embeddings": 77,
        }  # fmt: skip


_LDM = "configs/latent-diffusion/txt2img-1p4B-finetune.yaml"
_SD = "configs/stable-diffusion/v1-finetune.yaml"
SIZES = {
    "ldm": Size(_LDM, "bert", 256, 1280, 30522, 32),
    "sd": Size(_SD, "clip", 512, 768, 49408, 12),
    "small_ldm": Size(_LDM, "bert", 64, 64, 500, 2, (64, 32)),
    "small_sd": Size(_SD, "clip", 64, 64, 500, 2, (64, 32)),
}


@dataclass
class Measured:
    """One step: its time on the clock and of all threads, the peak of the process so far (after building) in MB, the
    loss and the gradient."""

    seconds: float
    cpu: float
    peak: float
    loss: float
    gradient: list[float]


@dataclass(frozen=True)
class Draws:
    """What chance decides in a step, the same on both sides."""

    picture: Tensor  # [1, 3, S, S]
    posterior: Tensor  # [1, 4, s, s], of the latent's distribution
    noise: Tensor
    t: Tensor  # [1]
    tokens: Tensor  # [1, 77]

    @classmethod
    def of_step(cls, number: int, size: Size) -> Draws:
        generator = torch.Generator().manual_seed(number)

        def normal(channels: int, side: int) -> Tensor:
            return torch.randn(1, channels, side, side, generator=generator).to(DEVICE)

        posterior, noise = normal(4, size.side // 8), normal(4, size.side // 8)
        t = torch.randint(0, 1000, (1,), generator=generator).to(DEVICE)
        tokens = torch.randint(8, size.vocabulary - 2, (1, 77), generator=torch.Generator().manual_seed(0)).to(DEVICE)
        tokens[0, 0], tokens[0, 5], tokens[0, 9:] = size.vocabulary - 2, PLACEHOLDER, size.vocabulary - 1
        picture = torch.rand(1, 3, size.side, size.side, generator=torch.Generator().manual_seed(1)) * 2 - 1
        return cls(picture.to(DEVICE), posterior, noise, t, tokens)


class Side(ABC):
    """A model, an optimiser, and a step."""

    optimizer: torch.optim.Optimizer

    def __init__(self, size: Size, weights: Path | Parts, dtype: torch.dtype = DTYPE) -> None:
        """``weights``: in diffusers' layout, by part, or a file with them below ``unet.``, ``vae.`` and ``text.``;
        ``dtype`` is theirs, which stays that of what is frozen."""
        self.size, self.dtype = size, dtype
        self.build(weights if isinstance(weights, dict) else read_parts(weights))
        reset_peak()

    @abstractmethod
    def build(self, weights: Parts) -> None:
        """Make the model of diffusers' weights by part: unet, vae, text."""

    @abstractmethod
    def step(self, draws: Draws) -> tuple[Tensor, Tensor]:
        """One training step; the loss, and a gradient, flat: of the placeholder's vector, of a LoRA's factors."""

    def measure(self, number: int) -> Measured:
        draws = Draws.of_step(number, self.size)
        start, cpu = time.perf_counter(), time.process_time()
        loss, gradient = self.step(draws)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        return Measured(seconds, cpu, peak_mb(), float(loss), gradient.float().tolist())


@torch.no_grad()
def begin(first: Tensor, number: int) -> None:
    """The first factor of a LoRA's layer, the same on both sides: normal numbers of spread 1 / rank."""
    first.copy_(torch.randn(first.shape, generator=torch.Generator().manual_seed(number)) / RANK)


def read_parts(weights: Path) -> Parts:
    """Copies of a file's tensors by part: unet, vae, text. The file's mapping ends with this function: a name that kept
    one of its tensors would have all of the file count as memory of the process."""
    parts: Parts = {"unet": {}, "vae": {}, "text": {}}
    for key, value in read_state_dict(weights).items():
        part, _, name = key.partition(".")
        parts[part][name] = value.to(DEVICE, copy=True)
    return parts


def reset_peak() -> None:
    """Forget the peak of what came before; where the system cannot, the peak includes it."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_mb() -> float:
    """The largest resident memory of this process (allocated memory of the GPU, with one)."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
