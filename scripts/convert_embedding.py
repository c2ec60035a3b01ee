"""Write a file of learned words in another format.

    python -m scripts.convert_embedding embeddings.pt cat.safetensors
    python -m scripts.convert_embedding cat.safetensors='<cat>' cat.png
    python -m scripts.convert_embedding cat.safetensors cat.pt --format a1111

The suffix chooses the format: .safetensors, .pt (CompVis), .bin (diffusers), .png (web UI); --format says the others.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/convert_embedding.py

from ldm.arguments import Parser
from ldm.checkpoint import read_embeddings, write_embedding
from ldm.checkpoint.embeddings import FORMATS
from ldm.util import UserError, run_command


def main() -> None:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("source", metavar="SOURCE[=NAME]", help="any embedding file; =NAME or =OLD:NEW renames its placeholder")
    add("target", type=Path)
    add("--format", choices=FORMATS)
    add("--only", metavar="PLACEHOLDER", help="leave out the others, for formats that hold one")
    add("--base_model", help="the name of the model that the words belong to, for the record")
    add("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    (file,) = read_embeddings([options.source]).values()
    if options.only is not None:
        if options.only not in file.vectors:
            raise UserError(f"there is no placeholder '{options.only}'; there are: {', '.join(file.vectors)}")
        file.vectors = {options.only: file.vectors[options.only]}
    if options.base_model:
        file.metadata["base_model"] = options.base_model
    write_embedding(options.target, file, options.format)
    counts = ", ".join(f"'{name}' ({len(vectors)})" for name, vectors in file.vectors.items())
    print(f"{options.target}: {counts}, width {file.width}, for {file.made_for}; it was a {file.format} file")


if __name__ == "__main__":
    run_command(main)
