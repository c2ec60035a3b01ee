"""Inversions without restyling: what run_styleid.py will need of pictures, made beforehand.

    python -m scripts.invert --cnt photos --sty paintings                     # latents; features are computed from them
    python -m scripts.invert --cnt photos --sty paintings --features disk     # features, too, of the chosen layers
    python -m scripts.invert --cnt photo.jpg --import photo_cnt.pkl --crop    # an old feature file of the original

Files go to --precomputed, where run_styleid.py finds them under the same options. An old file is read as data; nothing
in it is executed. It is checked against the picture and the model, and must have been made of exactly that picture.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ldm.arguments import Parser
from ldm.pictures.sizing import Picture, look_at
from ldm.shipped import SAMPLES
from ldm.util import UserError, run_command
from ldm.workflows.inversion.cache import InversionCache, Needs, clean_latent
from ldm.workflows.inversion.empty_prompt import context_for
from ldm.workflows.inversion.old_features import read_old_features
from ldm.workflows.memory import peak_memory
from ldm.workflows.options import old_spellings
from ldm.workflows.restyle.checks import checked
from ldm.workflows.restyle.features import cache_for
from ldm.workflows.restyle.pairs import pictures_at
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import DDIM, INVERSIONS
from ldm.workflows.restyle.setting import Setting, make_setting
from ldm.workflows.restyle.usual import as_usual
from ldm.workflows.studio import open_studio

log = logging.getLogger("invert")


def parse() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--cnt", metavar="PATH", help="contents: a picture or a folder (with --sty missing, too: bundled samples)")
    add("--sty", metavar="PATH", help="styles: a picture or a folder")
    add("--import", dest="old", metavar="FILE.pkl", help="take over the features of one picture from an old file")
    add("--features", choices=["replay", "disk"], default="replay", help="latents alone, or features, too (replay)")
    add("--masked", action="store_true", help="keep of contents what masks and several styles need, too")
    add("--precomputed", metavar="FOLDER", default="precomputed_feats", help="where files go (precomputed_feats)")
    add("--attn_layer", metavar="LIST", help="decoder blocks (the later half: 6,7,8,9,10,11 in Stable Diffusion)")
    add("--ddim_inv_steps", type=int, default=50, metavar="N", help="steps of the inversion (50)")
    add("--inversion", choices=INVERSIONS, help="how noise is found (as the model's YAML says, else ddim)")
    add("--inversion_rounds", type=int, metavar="N", help="of fixed_point, a step (as the model's YAML says, else 3)")
    add("--save_feat_steps", type=int, metavar="N", help="sampling steps that features are for (as the inversion's)")
    add("--start_step", type=int, metavar="N", help="how many of the last sampling steps are run (all but the first)")
    add("--H", type=int, help="height in pixels; the middle of each picture is cut out")
    add("--W", type=int, help="width in pixels")
    add("--crop", action="store_true", help="cut a square out of the middle")
    add("--longest", type=int, metavar="N", help="the longer side in pixels, when it is not cut (512)")
    add("--batch", type=int, default=1, metavar="N", help="pictures that are inverted together (1)")
    add("--ckpt", metavar="FILE", help="weights in any format (the small model)")
    old_spellings(add("--config", "--model_config", dest="model_config", metavar="FILE", help="the model's YAML"))
    add("--precision", choices=["full", "autocast", "bf16", "fp16"], default="autocast", help="as in run_styleid.py")
    add("--device", help="cpu, cuda, ... (a GPU if there is one)")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args()


def styleid_options(given: argparse.Namespace) -> StyleIDOptions:
    """The options that run_styleid.py would have for these."""
    same = ("attn_layer", "ddim_inv_steps", "inversion_rounds", "start_step", "H", "W", "crop", "longest", "batch",
            "ckpt", "model_config", "precision", "device", "precomputed")  # fmt: skip
    features = "disk" if given.old else given.features
    inversion = DDIM if given.old else given.inversion  # the original knew no other
    steps = given.ddim_inv_steps if given.save_feat_steps is None else given.save_feat_steps
    return StyleIDOptions(
        features=features, feature_gb=0, save_feat_steps=steps, inversion=inversion, progress=False,
        **{name: getattr(given, name) for name in same},
    )  # fmt: skip


def find(given: argparse.Namespace) -> dict[str, list[Path]]:
    """The files of contents and styles.

    Raises:
        UserError: there are none.
    """
    if given.cnt is None and given.sty is None:
        return {"cnt": pictures_at(SAMPLES / "cnt", "content"), "sty": pictures_at(SAMPLES / "sty", "style")}
    return {
        "cnt": [] if given.cnt is None else pictures_at(given.cnt, "content"),
        "sty": [] if given.sty is None else pictures_at(given.sty, "style"),
    }


def look_at_all(paths: dict[str, list[Path]], setting: Setting, masked: bool) -> tuple[list[Picture], dict[str, Needs]]:
    """The pictures that can be read, each once, and what is needed of them; the others are named.

    Raises:
        UserError: none can be read.
    """
    pictures: dict[str, Picture] = {}
    needs: dict[str, Needs] = {}
    kinds = {"cnt": Needs("qkv", residual=True) if masked else Needs("q"), "sty": Needs("kv")}
    for kind, files in paths.items():
        for path in files:
            try:
                picture = look_at(path, setting.sizing)
            except UserError as error:
                log.warning("left out: %s", error)
                continue
            pictures.setdefault(picture.sha256, picture)
            needs[picture.sha256] = needs.get(picture.sha256, Needs()) | kinds[kind]
    if not pictures:
        raise UserError("none of the pictures can be read")
    return list(pictures.values()), needs


def invert_all(cache: InversionCache, pictures: Sequence[Picture]) -> None:
    """Invert what is not there yet, as many pictures at a time as a batch has."""
    with tqdm(total=len(pictures), desc="pictures", dynamic_ncols=True, disable=None) as bar:
        for start in range(0, len(pictures), cache.batch):
            group = pictures[start : start + cache.batch]
            cache.get(group)
            bar.update(len(group))


@torch.no_grad()
def import_old(cache: InversionCache, picture: Picture, old: str) -> Any:
    """Take over an old file for one picture.

    Raises:
        UserError: see ``read_old_features``; or the file has other steps than were asked for.
    """
    clean = clean_latent(cache.model, picture.tensor())
    inversion = read_old_features(old, cache.model, context_for(cache.context, clean), clean, cache.capture.dtype)
    if len(inversion.visited) != cache.steps:
        raise UserError(f"'{old}' has {len(inversion.visited)} steps: add --ddim_inv_steps {len(inversion.visited)}")
    cache.adopt(picture, inversion)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = parse()
    options = checked(styleid_options(given))
    if not options.precomputed:
        raise UserError("inversions need a folder to be kept in: --precomputed FOLDER")
    if given.old is not None and given.inversion not in (None, DDIM):
        raise UserError(f"an old file is of --inversion ddim; leave out --inversion {given.inversion}")
    paths = find(given)
    if given.old is not None and sum(map(len, paths.values())) != 1:
        raise UserError("--import needs the one picture that the old file was made of: --cnt FILE or --sty FILE")
    studio = open_studio(options.ckpt, options.model_config, device=options.device, precision=options.precision)
    options = as_usual(options, studio.inference)
    setting = make_setting(options, studio)
    pictures, needs = look_at_all(paths, setting, given.masked)
    cache = cache_for(options, setting, needs)
    if given.old is not None:
        import_old(cache, pictures[0], given.old)
        print(f"{given.old} is in {options.precomputed} now")
        return
    invert_all(cache, pictures)
    print(
        f"{len(pictures)} pictures: {cache.inverted} inverted, {cache.read} were there; "
        f"in {options.precomputed}; peak memory {peak_memory()}"
    )


if __name__ == "__main__":
    run_command(main)
