"""diffusers' side of ``benchmarks.lora_step``: PEFT's layers in its UNet; picture and text encoded in every step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from peft import LoraConfig
from torch import Tensor

from benchmarks.textual_inversion_common import DECAY, DEVICE, LORA_RATE, RANK, Draws, Parts, begin
from benchmarks.textual_inversion_diffusers import Frozen


class DiffusersLora(Frozen):
    """The recipe of diffusers' example of text to image with LoRA."""

    def build(self, weights: Parts) -> None:
        super().build(weights)
        layers = ["to_k", "to_q", "to_v", "to_out.0"]
        self.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=layers))
        learned = {name: p for name, p in self.unet.named_parameters() if p.requires_grad}
        for parameter in learned.values():
            parameter.data = parameter.data.float()
        paths = sorted(name.partition(".lora_A")[0] for name in learned if "lora_A" in name)
        for number, path in enumerate(paths):
            begin(learned[f"{path}.lora_A.default.weight"], number)
        self.seconds = [learned[f"{path}.lora_B.default.weight"] for path in paths]
        self.optimizer = torch.optim.AdamW(list(learned.values()), lr=LORA_RATE, weight_decay=DECAY)

    def step(self, draws: Draws) -> tuple[Tensor, Tensor]:
        noisy = self.noisy(draws)
        context = self.text(draws.tokens)[0]
        with torch.autocast(DEVICE, torch.bfloat16, enabled=self.dtype is torch.bfloat16):
            predicted = self.unet(noisy, draws.t, context).sample
        loss = F.mse_loss(predicted.float(), draws.noise)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in self.seconds if p.grad is not None])
        torch.nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach(), gradient
