"""What the two losses with a patch discriminator share (Esser et al. 2021, section 3.1, equations 5 to 7).

The discriminator is taming-transformers'. Its losses are written anew: the module that has them imports torchvision.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import nn

from ldm.modules.losses.perceptual import PerceptualDistance
from ldm.util import ConfigError, MissingPartError

Log = dict[str, torch.Tensor]
MAX_ADAPTIVE_WEIGHT = 1e4


def hinge_d_loss(logits_real: torch.Tensor, logits_fake: torch.Tensor) -> torch.Tensor:
    """Hinge loss of the discriminator: real above 1, fake below -1; logits of any shape -> a number."""
    return 0.5 * (F.relu(1.0 - logits_real).mean() + F.relu(1.0 + logits_fake).mean())


def vanilla_d_loss(logits_real: torch.Tensor, logits_fake: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the discriminator; logits of any shape -> a number."""
    return 0.5 * (F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean())


def patch_discriminator(channels: int, width: int, layers: int, use_actnorm: bool) -> nn.Module:
    """taming's network: picture [B,C,H,W] -> a logit for each patch [B,1,h,w], "real" above 0.

    Raises:
        MissingPartError: taming-transformers is not installed. No installation of this project brings it by itself: it
            asks for torchvision of any build, and one that is not torch's own build breaks transformers.
    """
    try:
        from taming.modules.discriminator.model import NLayerDiscriminator, weights_init
    except ImportError as error:
        raise MissingPartError(
            "the losses with a discriminator need taming-transformers, without what it asks for itself: "
            "pip install --no-deps taming-transformers"
        ) from error
    return NLayerDiscriminator(channels, width, layers, use_actnorm).apply(weights_init)


DISCRIMINATOR_LOSSES = {"hinge": hinge_d_loss, "vanilla": vanilla_d_loss}
PIXEL_LOSSES = {"l1": torch.abs, "l2": torch.square}


class AdversarialLoss(nn.Module):
    """Pixels + LPIPS + discriminator; subclasses say how the parts add up and what regularises the latent."""

    def __init__(
        self,
        disc_start: int,  # step from which the discriminator counts
        disc_num_layers: int = 3,
        disc_in_channels: int = 3,
        disc_factor: float = 1.0,  # 0 switches the discriminator off
        disc_weight: float = 1.0,  # times the adaptive weight
        disc_ndf: int = 64,  # width of the discriminator
        disc_loss: str = "hinge",  # or 'vanilla'
        disc_conditional: bool = False,
        use_actnorm: bool = False,  # instead of batch normalisation
        pixelloss_weight: float = 1.0,
        pixel_loss: str = "l1",  # or 'l2'
        perceptual_weight: float = 1.0,  # 0 needs no extra package
        perceptual_loss: str = "lpips",
    ) -> None:
        """Raises ConfigError for a name that is not known, MissingPartError without taming-transformers."""
        super().__init__()
        _known("disc_loss", disc_loss, DISCRIMINATOR_LOSSES)
        _known("pixel_loss", pixel_loss, PIXEL_LOSSES)
        _known("perceptual_loss", perceptual_loss, ("lpips",))
        if disc_conditional:
            raise ConfigError("disc_conditional: true is not built here: the discriminator sees pictures only")
        self.disc_start, self.disc_factor, self.disc_weight = disc_start, disc_factor, disc_weight
        self.pixelloss_weight, self.perceptual_weight = pixelloss_weight, perceptual_weight
        self.pixel_loss = PIXEL_LOSSES[pixel_loss]
        self.disc_loss = DISCRIMINATOR_LOSSES[disc_loss]
        self.perceptual_loss = PerceptualDistance()
        self.discriminator = patch_discriminator(disc_in_channels, disc_ndf, disc_num_layers, use_actnorm)

    def prepare(self) -> None:
        """Load what training needs, so that it is missed before the first step and not in the middle.

        Raises:
            MissingPartError: ``perceptual_weight`` is not 0 and LPIPS is not there.
        """
        if self.perceptual_weight:
            self.perceptual_loss.prepare()

    def distances(self, inputs: torch.Tensor, reconstructions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted distance of every element [B,3,H,W], and the perceptual part alone [B,1,1,1]."""
        pixels = self.pixelloss_weight * self.pixel_loss(inputs - reconstructions)
        if not self.perceptual_weight:
            return pixels, pixels.new_zeros(1)
        perceptual = self.perceptual_loss(inputs, reconstructions)
        return pixels + self.perceptual_weight * perceptual, perceptual

    def factor(self, global_step: int) -> float:
        """The weight of everything adversarial at this step."""
        return self.disc_factor if global_step >= self.disc_start else 0.0

    def generator_term(
        self, reconstructions: torch.Tensor, fidelity: torch.Tensor, global_step: int, last_layer: torch.Tensor
    ) -> tuple[torch.Tensor, Log]:
        """What the autoencoder pays for being recognised, weighted so that it pulls as hard as ``fidelity``.

        The discriminator is not run while it does not count.

        Args:
            reconstructions: [B, C, H, W].
            fidelity: the rest of the loss, a number.
            global_step: counts batches.
            last_layer: the decoder's weight at which the pulls are compared.

        Returns:
            A number, and what is logged.
        """
        zero = fidelity.new_zeros(())
        factor = self.factor(global_step)
        if factor == 0.0:
            return zero, {"d_weight": zero, "disc_factor": zero, "g_loss": zero}
        fooled = -self.discriminator(reconstructions).mean()
        weight = zero
        if torch.is_grad_enabled():  # there is nothing to balance in a validation step
            weight = self.adaptive_weight(fidelity, fooled, last_layer)
        log = {"d_weight": weight, "disc_factor": zero + factor, "g_loss": fooled.detach()}
        return weight * factor * fooled, log

    def adaptive_weight(
        self, fidelity: torch.Tensor, fooled: torch.Tensor, last_layer: torch.Tensor
    ) -> torch.Tensor:
        """lambda = |grad fidelity| / (|grad fooled| + 1e-4) at the decoder's last layer (equation 7)."""
        pull = torch.autograd.grad(fidelity, last_layer, retain_graph=True)[0].norm()
        push = torch.autograd.grad(fooled, last_layer, retain_graph=True)[0].norm()
        return (pull / (push + 1e-4)).clamp(max=MAX_ADAPTIVE_WEIGHT).detach() * self.disc_weight

    def discriminator_term(
        self, inputs: torch.Tensor, reconstructions: torch.Tensor, global_step: int, split: str
    ) -> tuple[torch.Tensor, Log]:
        """The discriminator's own loss for pictures [B, C, H, W]; the autoencoder gets no gradient from it."""
        real = self.discriminator(inputs.detach())
        fake = self.discriminator(reconstructions.detach())
        loss = self.factor(global_step) * self.disc_loss(real, fake)
        return loss, with_split(split, {"disc_loss": loss, "logits_real": real.mean(), "logits_fake": fake.mean()})


def with_split(split: str, log: Log) -> Log:
    """Names as Lightning logs them, for instance ``val/rec_loss``, without gradients."""
    return {f"{split}/{name}": value.detach() for name, value in log.items()}


def _known(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} '{value}' is not known; it can be: {', '.join(choices)}")
