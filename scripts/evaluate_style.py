"""Numbers of restyled pictures, beside those of simple ways: ArtFID and its parts, CFSD, colours, CLIP, KID.

    python -m scripts.evaluate_style --sty styles --cnt contents --tar output
    python -m scripts.evaluate_style --sty styles --cnt contents --tar outputs/styleid --baselines content style
    python -m scripts.evaluate_style --sty data/sty_eval --cnt data/cnt_eval --tar output --weights models/measures

Results are matched by their names (<content>_stylized_<style>), or, where three folders hold equally many pictures, by
sorted names as in StyleID's evaluation. A number whose network is not at hand is left out. A table (also as Markdown,
CSV and JSON) and a sheet of pictures go to --outdir. What each number sees: docs/measures.md.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/evaluate_style.py

from ldm.arguments import Parser
from ldm.util import run_command
from ldm.workflows.measure.baselines import BASELINES
from ldm.workflows.measure.evaluate import MODES, EvaluateOptions, evaluate_style
from ldm.workflows.measure.judges import CONTENT_METRICS
from ldm.workflows.measure.report import write_report
from ldm.workflows.options import old_spellings


def parse() -> argparse.Namespace:
    parser = Parser(description=__doc__, argument_default=argparse.SUPPRESS)
    add = parser.add_argument
    add("--sty", required=True, metavar="DIR", help="styles")
    add("--cnt", required=True, metavar="DIR", help="contents")
    add("--tar", required=True, metavar="DIR", help="results")
    add("--mode", choices=MODES, help="the FID that ArtFID is made of (art_fid_inf)")
    add("--content_metric", choices=list(CONTENT_METRICS), help="the content distance of ArtFID (lpips)")
    add("--weights", metavar="DIR", help="where the networks' files are (models/measures, then torch's cache)")
    add("--any_weights", action="store_true", help="take files whose hash is not the published one; the report says so")
    add("--clip", metavar="DIR", help="a CLIP model as transformers saves it: adds CLIP scores")
    add("--text", help="with --clip: what the results should show")
    add("--content_text", help="with --text: what the contents show, for the direction of the change")
    add("--baselines", nargs="*", choices=BASELINES, help=f"ways to compare with ({' '.join(BASELINES)})")
    add("--ckpt", metavar="FILE", help="the model whose latents are a baseline (the small one)")
    old_spellings(add("--config", "--model_config", dest="model_config", metavar="FILE", help="its YAML"))
    add("--device", help="cpu, cuda, ... (a GPU if there is one)")
    old_spellings(add("--outdir", "--out", dest="out", metavar="DIR",
                      help="for table.md, pairs.csv, summary.json and sheet.png (outputs/evaluate_style)"))  # fmt: skip
    for name in ("--batch_size", "--num_workers"):
        add(name, type=int, help="accepted for old command lines; pictures are seen one by one")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args()


def main() -> None:
    given = vars(parse())
    for ignored in ("debug", "batch_size", "num_workers"):
        given.pop(ignored, None)
    options = EvaluateOptions(**given)
    print(write_report(evaluate_style(options), Path(options.out), asdict(options)))


if __name__ == "__main__":
    run_command(main)
