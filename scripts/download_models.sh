#!/bin/sh
# The models of latent diffusion, under the name of the original command; see docs/models.md.
cd "$(dirname "$0")/.." || exit 2
for name in ldm-celeba256 ldm-ffhq256 ldm-churches256 ldm-bedrooms256 ldm-cin256; do
    python -m scripts.download "$name" || exit $?
done
