"""Training losses of the autoencoders.

Each is called as ``loss(inputs, reconstructions, regulariser, optimizer_idx, global_step, last_layer=, split=)`` and
gives a scalar and a dict of numbers to log. ``regulariser`` is what keeps the latents in shape: the posterior of a KL
autoencoder, or the codebook loss of a VQ one. ``optimizer_idx`` 1 asks for the discriminator's loss.
"""

from __future__ import annotations

from ldm.modules.losses.contperceptual import LPIPSWithDiscriminator
from ldm.modules.losses.dummy import DummyLoss
from ldm.modules.losses.reconstruction import ReconstructionLoss
from ldm.modules.losses.vqperceptual import VQLPIPSWithDiscriminator

__all__ = ["DummyLoss", "LPIPSWithDiscriminator", "ReconstructionLoss", "VQLPIPSWithDiscriminator"]
