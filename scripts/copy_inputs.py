"""Contents and styles copied once for each pair, for evaluations that match by sorted names.

    python -m scripts.copy_inputs --cnt data/cnt --sty data/sty      # into data/cnt_eval and data/sty_eval
    python -m scripts.copy_inputs --cnt photos --sty paintings
    python -m scripts.copy_inputs --cnt examples/styleid/cnt --sty examples/styleid/sty

``scripts.evaluate_style`` needs no copies where results have the names that run_styleid.py gives them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/copy_inputs.py

from ldm.arguments import Parser
from ldm.util import run_command
from ldm.workflows.measure.trios import copy_inputs


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--cnt", default="data/cnt", metavar="DIR", help="contents (data/cnt)")
    parser.add_argument("--sty", default="data/sty", metavar="DIR", help="styles (data/sty)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    contents, styles = copy_inputs(options.cnt, options.sty)
    print(f"each pair's content is in {contents}, its style in {styles}")


if __name__ == "__main__":
    run_command(main)
