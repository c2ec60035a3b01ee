"""Pictures in the manner of others: ``python run_styleid.py --cnt photo.jpg``, or ``ldm-styleid``; docs/styleid.md."""

from __future__ import annotations

import argparse
import logging

from ldm.util import run_command


def parse() -> argparse.Namespace:
    """Only what was given; the defaults are those of ``ldm.workflows.restyle.plan.StyleIDOptions``."""
    parser = argparse.ArgumentParser(
        description="Restyle pictures: every content with every style.", argument_default=argparse.SUPPRESS
    )
    as_ever(parser.add_argument_group("as in the original"))
    added(parser.add_argument_group("added"))
    return parser.parse_args()


def as_ever(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--cnt", metavar="PATH", help="content: a picture or a folder (bundled samples)")
    add("--sty", metavar="PATH", help="style: a picture or a folder (bundled samples)")
    add("--gamma", type=float, help="the content's share of the query, 0 to 1 (0.75; with masks 0.2)")
    add("--T", type=float, help="factor on the attention's logits (1.5; with masks 2)")
    add("--attn_layer", metavar="LIST", help="decoder blocks (the later half: 6,7,8,9,10,11 in Stable Diffusion)")
    add("--ddim_inv_steps", type=int, metavar="N", help="steps of the inversion (50)")
    add("--save_feat_steps", type=int, metavar="N", help="steps of the sampling, for which features are kept (50)")
    add("--start_step", type=int, metavar="N", help="run only the last N sampling steps (all but the first: 49)")
    add("--ddim_eta", type=float, metavar="ETA", help="fresh noise in sampling: 0 none (default), 1 as DDPM")
    add("--H", type=int, help="height in pixels; the middle of each picture is cut out (aspect kept, longest side 512)")
    add("--W", type=int, help="width in pixels; one of the two means a square")
    add("--precomputed", metavar="FOLDER", help='where inversions are kept (precomputed_feats); "" keeps none')
    add("--model_config", metavar="FILE", help="the model's YAML (config.yaml beside the weights)")
    add("--ckpt", metavar="FILE", help="weights in any format (the small model)")
    add("--precision", choices=["full", "autocast", "bf16", "fp16"], help="autocast: sampling is mixed on a GPU")
    add("--output_path", metavar="FOLDER", help="where results go (output)")
    add("--without_init_adain", action="store_true", help="start from the content's noise as it is")
    add("--without_attn_injection", action="store_true", help="leave attention alone")
    add("--C", type=int, dest="channels", help=argparse.SUPPRESS)
    add("--f", type=int, dest="factor", help=argparse.SUPPRESS)


def added(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--pairs", metavar="FILE", help="a line each: content, style, style, ...")
    add("--mask", "--masks", dest="masks", nargs="*", metavar="FILE",
        help="a mask for each style, or 'none' (those beside the content: <content>_mask.npy, _mask0.npy, ...)")
    add("--pi", type=float, help="the styles' share inside the masks (0.9)")
    add("--mix", choices=["mass", "competition"], help="how content and styles share attention (mass)")
    add("--sharpen", action="store_true", help="sharpen mixed attention, for each head")
    add("--detail", type=float, metavar="R", help="radius of the filter for the content's detail; 0: none")
    add("--gamma_schedule", metavar="LIST", help="gammas from the first step to the last, such as 0.9,0.5")
    add("--keep_color", action="store_true", help="the result's brightness with the content's colours")
    add("--crop", action="store_true", help="cut a square out of the middle, 512x512 or as --longest says")
    add("--longest", type=int, metavar="N", help="the longer side in pixels, when it is not cut (512)")
    add("--batch", type=int, metavar="N", help="contents of one style that are made together (1)")
    add("--features", choices=["memory", "disk", "replay"], help="how features are kept (memory)")
    add("--feature_gb", type=float, metavar="GB", help="features kept in memory beside those in use (2)")
    add("--seed", type=int, help="of the fresh noise of --ddim_eta (22)")
    add("--device", help="cpu, cuda, cuda:1, ... (a GPU if there is one)")
    add("--no_sheet", action="store_true", help="no contact sheet")
    add("--debug", action="store_true", help="show the traceback of an error")


def main() -> None:
    given = vars(parse())
    for ignored in ("debug", "channels", "factor"):  # the model knows its channels and its factor
        given.pop(ignored, None)
    if "masks" in given:
        given["masks"] = [part for item in given["masks"] for part in item.split(",") if part] or None
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from ldm.workflows.restyle.plan import StyleIDOptions
    from ldm.workflows.restyle.styleid import styleid

    options = StyleIDOptions(**given)
    results = styleid(options)
    print(f"{len(results)} pictures are in {options.output_path}")


def run() -> None:
    run_command(main)
