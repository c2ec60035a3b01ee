"""Write what each picture of a folder shows into a text beside it, by a captioning model of transformers on this disk.

    python -m scripts.caption photos --captioner models/blip
    python -m scripts.caption photos --captioner models/blip --word "sks dog" --noun dog puppy  # "a sks dog outside"
    python -m scripts.caption photos --captioner models/blip --word "*" --overwrite             # "*, a dog outside"

A training reads the texts where its YAML says captions: auto (data.params.train.params.captions=auto); look at them
before. Texts that are there stay, unless --overwrite. Nothing of the model's folder is run.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ldm.arguments import Parser
from ldm.util import run_command
from ldm.workflows.captioner import write_captions


def parse() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="the pictures")
    add("--captioner", required=True, metavar="FOLDER", help="BLIP, GIT, ViT with GPT-2, ...: a folder of transformers")
    add("--word", default="", help="what the thing is called, such as * or 'sks dog': put in front of each caption")
    add("--noun", nargs="+", default=[], metavar="NOUN", help="what the model may call it: the word takes its place")
    add("--overwrite", action="store_true", help="captions in the place of those that are there")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args()


def main() -> None:
    options = parse()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    made = kept = 0
    for one in write_captions(options.folder, options.captioner, options.word, options.noun, options.overwrite):
        made, kept = made + one.made, kept + (not one.made)
        print(f"{one.path}: {one.text}{'' if one.made else '  (kept)'}", flush=True)
    print(f"{made} captions were written, {kept} were kept")


if __name__ == "__main__":
    run_command(main)
