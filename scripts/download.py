"""Get released weights, and put them where they belong: docs/models.md lists them.

    python -m scripts.download                       # what there is
    python -m scripts.download sd-v1-5               # a model, its YAML beside it, and the tokenizer that it needs
    python -m scripts.download kl-f8 --to weights    # into another folder
"""

from __future__ import annotations

import logging
from pathlib import Path

from ldm.arguments import Parser
from ldm.released import RELEASED, markdown_table, released
from ldm.util import run_command
from ldm.workflows.download import download


def listing() -> str:
    """A line for each entry: name, what for, how large."""
    width = max(len(one.name) for one in RELEASED)
    rows = [(one, " + ".join(filter(None, (file.amount for file in one.files)))) for one in RELEASED]
    return "\n".join(f"{one.name:{width}}  {one.purpose}" + (f" ({size})" if size else "") for one, size in rows)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the list; without one the list is printed")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="another place than the one in docs/models.md")
    parser.add_argument("--markdown", action="store_true", help="the list as the table of docs/models.md")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    if not options.names:
        print((markdown_table() if options.markdown else listing()).rstrip())
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in options.names:
        paths = download(name, options.to)
        entry = released(name)
        if entry is not None and entry.tokenizer:
            download(entry.tokenizer)
        print(f"'{name}' is in {paths[0].parent}" + (f": --ckpt {paths[0]}" if entry and entry.config else ""))


if __name__ == "__main__":
    run_command(main)
