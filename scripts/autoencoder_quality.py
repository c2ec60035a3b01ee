"""How well a model's autoencoder keeps pictures: PSNR of what it decodes of its own latents, in decibels.

    python -m scripts.autoencoder_quality                 # held-out scenes at 128x128, held-out photographs at 256x256
    python -m scripts.autoencoder_quality --size 512 --count 64
    python -m scripts.autoencoder_quality --ckpt MODEL.ckpt --config MODEL.yaml --size 512
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ldm.arguments import Parser
from ldm.pictures.images import centre_crop, image_to_tensor
from ldm.util import run_command
from ldm.workflows.models import open_model
from ldm.world.photos import load_photo, photos
from ldm.world.scenes import SceneWorld
from scripts.inversion_quality import psnr

SIDE = 128  # of the scenes


def rendered(count: int, seed: int) -> Tensor:
    """Pictures [count, 3, 128, 128] of scenes that training never saw."""
    world = SceneWorld("heldout", SIDE, length=count, seed=seed)
    return torch.stack([torch.as_tensor(item["image"]).movedim(-1, 0) for item in world.__getitems__(range(count))])


@torch.no_grad()
def quality(model: Any, pictures: Tensor) -> list[float]:
    """PSNR of each picture [B, 3, H, W], one by one, from the mean of its posterior."""
    return [
        psnr(model.decode_first_stage(model.encode_first_stage(picture).mode() * model.scale_factor), picture)
        for picture in pictures.to(model.device).split(1)
    ]


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--count", type=int, default=256, help="how many rendered pictures")
    parser.add_argument("--seed", type=int, default=2, help="of the rendered pictures")
    parser.add_argument("--size", type=int, default=256, help="side of the photographs")
    parser.add_argument("--ckpt", help="weights; none: the small model")
    parser.add_argument("--config", help="their YAML")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()

    model, _ = open_model(options.ckpt, options.config)
    renders = quality(model, rendered(options.count, options.seed))
    print(f"{f'{options.count} held-out scenes, {SIDE}x{SIDE}':40} {sum(renders) / len(renders):6.2f} dB")
    for photo in photos("heldout"):
        square = image_to_tensor(centre_crop(load_photo(photo), options.size, options.size))[None]
        name = f"photograph '{photo.name}', {options.size}x{options.size}"
        print(f"{name:40} {quality(model, square)[0]:6.2f} dB")


if __name__ == "__main__":
    run_command(main)
