"""How well a picture survives DDIM inversion and sampling back, beside what the autoencoder alone makes of it.

    python -m scripts.inversion_quality                  # the bundled photographs that the small model never saw
    python -m scripts.inversion_quality FOLDER --steps 20
    python -m scripts.inversion_quality FOLDER --size 512 --ckpt MODEL.ckpt --config MODEL.yaml

No prompt, no guidance; PSNR in decibels. Style injection needs the first of the two columns high.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from ldm.arguments import Parser
from ldm.pictures.images import centre_crop, image_to_tensor, load_folder
from ldm.util import run_command
from ldm.workflows.inversion.invert import invert_with_features
from ldm.workflows.models import open_model
from ldm.workflows.restyle.checks import check_inversion
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import INVERSIONS, Recipe
from ldm.workflows.restyle.start import beginning
from ldm.workflows.restyle.steps import way_of
from ldm.workflows.restyle.stylise import stylise
from ldm.workflows.restyle.usual import as_usual
from ldm.world.photos import load_photo, photos


def psnr(a: Tensor, b: Tensor) -> float:
    """Decibels between two pictures in [-1, 1]."""
    return float(peak_signal_noise_ratio(a.clamp(-1, 1), b.clamp(-1, 1), data_range=2.0))


def untouched(steps: int, inversion: str | None = None, rounds: int | None = None) -> StyleIDOptions:
    """All steps, and nothing that restyles.

    Raises:
        UserError: rounds of another inversion than ``fixed_point``.
    """
    asked = StyleIDOptions(
        ddim_inv_steps=steps, save_feat_steps=steps, start_step=steps, inversion=inversion, inversion_rounds=rounds,
        without_init_adain=True, without_attn_injection=True,
    )  # fmt: skip
    check_inversion(asked)
    return asked


@torch.no_grad()
def there_and_back(model: Any, picture: Tensor, recipe: Recipe) -> tuple[float, float]:
    """PSNR of the sampled-back picture against the autoencoder's, and of the autoencoder's against the picture.

    The recipe is ``untouched``.
    """
    z = model.encode_first_stage(picture).mode() * model.scale_factor
    reconstruction = model.decode_first_stage(z)
    context = model.condition([""], size=(z.shape[-2], z.shape[-1]))
    found = invert_with_features(model, z, context, steps=recipe.ddim_inv_steps, way=way_of(model.schedule, recipe))
    again = stylise(model, beginning(model.schedule, found, [], recipe), found, [], context, recipe)
    return psnr(model.decode_first_stage(again), reconstruction), psnr(reconstruction, picture)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="pictures; none: bundled photographs held out of training")
    parser.add_argument("--size", type=int, default=256, help="side of the square that is cut out of the middle")
    parser.add_argument("--steps", type=int, default=50, help="DDIM steps in either direction")
    parser.add_argument("--inversion", choices=INVERSIONS, help="how noise is found; as the YAML says, else ddim")
    parser.add_argument("--inversion_rounds", type=int, help="of fixed_point, a step; as the YAML says, else 3")
    parser.add_argument("--ckpt", help="weights; none: the small model")
    parser.add_argument("--config", help="their YAML")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    asked = untouched(options.steps, options.inversion, options.inversion_rounds)

    pictures: list[tuple[str, Image.Image]] = [(photo.name, load_photo(photo)) for photo in photos("heldout")]
    if options.folder is not None:
        pictures = [(path.name, image) for path, image in load_folder(options.folder)]
    model, inference = open_model(options.ckpt, options.config)
    recipe = Recipe.of(as_usual(asked, inference))
    print(f"{'picture':20} {'inverted and back':>18} {'autoencoder':>12}")
    rows = []
    for name, image in pictures:
        square = image_to_tensor(centre_crop(image, options.size, options.size))[None].to(model.device)
        rows.append(there_and_back(model, square, recipe))
        print(f"{name:20} {rows[-1][0]:15.1f} dB {rows[-1][1]:9.1f} dB")
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    print(f"{'mean':20} {means[0]:15.1f} dB {means[1]:9.1f} dB")


if __name__ == "__main__":
    run_command(main)
