#!/bin/sh
# The autoencoders of latent diffusion, under the name of the original command; see docs/models.md.
cd "$(dirname "$0")/.." || exit 2
for name in kl-f4 kl-f8 kl-f16 kl-f32 vq-f4 vq-f4-noattn vq-f8 vq-f8-n256 vq-f16; do
    python -m scripts.download "$name" || exit $?
done
