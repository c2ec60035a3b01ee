"""The loss of the VQ autoencoders (Esser et al. 2021, equation 6)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from ldm.modules.losses.adversarial import AdversarialLoss, Log, with_split


class VQLPIPSWithDiscriminator(AdversarialLoss):
    """Mean of pixels and LPIPS, plus the codebook's loss, plus discriminator."""

    def __init__(
        self, disc_start: int, codebook_weight: float = 1.0, n_classes: int | None = None, **adversarial: Any
    ) -> None:
        """``n_classes``: size of the codebook, if its use is to be logged; ``adversarial``: see ``AdversarialLoss``.

        Raises:
            ConfigError: a name that is not known.
        """
        super().__init__(disc_start, **adversarial)
        self.codebook_weight = codebook_weight
        self.n_classes = n_classes

    def forward(
        self,
        inputs: torch.Tensor,
        reconstructions: torch.Tensor,
        codebook_loss: torch.Tensor,
        optimizer_idx: int,
        global_step: int,
        last_layer: torch.Tensor,
        split: str = "train",
        predicted_indices: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Log]:
        """Pictures [B,3,H,W] and their reconstructions -> scalar loss and numbers to log.

        Raises:
            MissingPartError: LPIPS is asked for and not installed.
        """
        if optimizer_idx == 1:
            return self.discriminator_term(inputs, reconstructions, global_step, split)
        distance, perceptual = self.distances(inputs, reconstructions)
        fidelity = distance.mean()
        adversarial, log = self.generator_term(reconstructions, fidelity, global_step, last_layer)
        loss = fidelity + self.codebook_weight * codebook_loss.mean() + adversarial
        log |= {"total_loss": loss, "quant_loss": codebook_loss.mean(), "nll_loss": fidelity, "rec_loss": fidelity,
                "p_loss": perceptual.mean()}
        if predicted_indices is not None and self.n_classes:
            log |= codebook_use(predicted_indices, self.n_classes)
        return loss, with_split(split, log)


def codebook_use(indices: torch.Tensor, size: int) -> Log:
    """How many codes are as good as in use (exp of the entropy), and how many occur at all.

    Args:
        indices: of any shape, int64.
        size: of the codebook.
    """
    share = F.one_hot(indices.flatten(), size).float().mean(dim=0)
    return {"perplexity": torch.special.entr(share).sum().exp(), "cluster_usage": (share > 0).sum().float()}
