"""This project's side of ``benchmarks.lora_step``: factors beside frozen layers, on cached moments."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.textual_inversion_common import (
    DECAY,
    DEVICE,
    DTYPE,
    LORA_RATE,
    RANK,
    Draws,
    Parts,
    begin,
    reset_peak,
)
from benchmarks.textual_inversion_ours import Model
from ldm.additions.lora.trained import TrainedLora
from ldm.modules.cpu.frozen import hold_weights
from ldm.training.offload import lay_in_file


class OurLora(Model):
    """A LoRA at q, k, v and out of attention learns."""

    def build(self, weights: Parts) -> None:
        super().build(weights)
        lora = TrainedLora(self.model, rank=RANK, layers="diffusers").to(DEVICE)
        self.model.learn_lora(lora)
        factors = [lora.factors[name] for name in sorted(lora.places, key=lambda name: lora.places[name].name)]
        for number, own in enumerate(factors):
            begin(own.lora_down, number)  # type: ignore[arg-type]
        self.seconds: list[Tensor] = [own.lora_up for own in factors]  # type: ignore[misc]
        self.learned = list(lora.parameters())
        self.optimizer = torch.optim.AdamW(self.learned, lr=LORA_RATE, weight_decay=DECAY)

    def step(self, draws: Draws) -> tuple[Tensor, Tensor]:
        loss = self.loss(draws)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in self.seconds if p.grad is not None])
        torch.nn.utils.clip_grad_norm_(self.learned, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach(), gradient

    def offload(self) -> None:
        """Have autoencoder and text encoder in a file, as ``lightning.offload`` does."""
        for part in (self.model.first_stage_model, self.model.cond_stage_model):
            lay_in_file(part, Path(tempfile.gettempdir()))
        reset_peak()


class OurHeldLora(OurLora):
    """The same with frozen weights, the autoencoder's aside, held in bfloat16 and computed with in float32.

    That is ``lightning.frozen=bf16`` on a processor that does not compute in it.
    """

    def build(self, weights: Parts) -> None:
        super().build(weights)
        for part in (self.model.model, self.model.cond_stage_model):
            hold_weights(part, DTYPE)
