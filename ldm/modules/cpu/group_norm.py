"""Group normalisation whose gradient is as quick as its forward pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` with another backward pass where PyTorch's own is slow: bfloat16, channels-last, on a CPU.

    There it took more than half of an autoencoder's training step (20 times as long as this one).
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,C,H,W] or [B,C,T,H,W] -> the same shape and precision."""
        if x.dim() == 5 and x.device.type == "cpu" and torch.is_grad_enabled() and not x.requires_grad:
            x = x.contiguous()  # with channels last, PyTorch's gradient of the weights alone ends the process
        slow = x.dtype is torch.bfloat16 and x.device.type == "cpu" and x.dim() == 4 and not x.is_contiguous()
        if slow and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return _GroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class _GroupNorm(torch.autograd.Function):
    """y = w (x - mean) rstd + b. With g = dL/dy, x^ = (x - mean) rstd and means over a group of pixels and channels:

    dL/dx = rstd (w g - mean(w g) - x^ mean(w g x^)),

    which is linear in g and x with one coefficient for each picture and channel, so that two sums over the pixels and
    two multiply-adds are all the work on large tensors.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float
    ) -> torch.Tensor:
        batch, channels, height, width = x.shape
        y, mean, rstd = torch.native_group_norm(x, weight, bias, batch, channels, height * width, groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        channels, height, width = x.shape[1:]
        members = channels // mean.shape[1]
        w = weight.float()

        def per_channel(of_groups: torch.Tensor) -> torch.Tensor:
            return of_groups.float().repeat_interleave(members, dim=1)

        def group_mean(pixel_sums: torch.Tensor) -> torch.Tensor:
            means = pixel_sums.unflatten(1, (-1, members)).mean(dim=2) / (height * width)
            return per_channel(means)

        mean, rstd = per_channel(mean), per_channel(rstd)
        sum_g = grad.sum(dim=(2, 3), dtype=torch.float32)
        sum_gx = (grad * x).sum(dim=(2, 3), dtype=torch.float32)
        sum_gxhat = (sum_gx - mean * sum_g) * rstd
        slope = -group_mean(w * sum_gxhat) * rstd**2
        offset = -group_mean(w * sum_g) * rstd - slope * mean

        def spread(coefficient: torch.Tensor) -> torch.Tensor:
            return coefficient.to(x.dtype)[:, :, None, None]

        grad_x = torch.addcmul(spread(offset), x, spread(slope)).addcmul_(grad, spread(w * rstd))
        return grad_x, sum_gxhat.sum(0).to(weight.dtype), sum_g.sum(0).to(weight.dtype), None, None
