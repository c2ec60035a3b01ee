"""A LoRA file in another spelling: kohya's names (sd-scripts, the web UI, ComfyUI), or PEFT's (diffusers).

    python -m scripts.convert_lora style.safetensors --out style-kohya.safetensors
    python -m scripts.convert_lora style.safetensors --config v1-inference.yaml --out style-kohya.safetensors
    python -m scripts.convert_lora style.safetensors --format peft --out style-diffusers.safetensors

Names are looked up in the model that the file is for: that of --config, or the one whose context is as wide as the
file's. No weights are read. Learned words in the file go into a file of their own beside the new one.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/convert_lora.py

from ldm.arguments import Parser
from ldm.checkpoint import EmbeddingFile, write_embedding
from ldm.checkpoint.lora import read_lora
from ldm.checkpoint.lora.writing import SPELLINGS
from ldm.runs import LORAS, given_or_latest
from ldm.util import UserError, run_command
from ldm.workflows.lora_spelling import respell
from ldm.workflows.options import old_spellings


def main() -> None:
    """Write the file in another spelling.

    Raises:
        UserError: the file is no LoRA, or of a kind that the spelling has no names for; nothing is written.
    """
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("file", help="a LoRA file of any family, or a folder of PEFT or diffusers")
    old_spellings(
        add("--out", "--output", dest="output", type=Path, required=True, metavar="FILE", help="what to write")
    )
    add("--format", choices=SPELLINGS, default="kohya", help="whose names it has (kohya)")
    add("--config", metavar="FILE", help="the YAML of the model that it is for")
    add("--debug", action="store_true", help="show the traceback of an error")
    given = parser.parse_args()
    file = read_lora(given_or_latest(given.file, LORAS))
    if Path(given.file).resolve() == given.output.resolve():
        raise UserError(f"--out '{given.output}' is the file that is read; name another")
    count = respell(file, given.output, given.format, given.config)
    print(f"{given.output}: {count} modules in {given.format}'s spelling")
    if file.words:
        words = given.output.with_name(f"{given.output.stem}_emb.safetensors")
        vectors = {name: value.float() for name, value in file.words.items()}
        write_embedding(words, EmbeddingFile(vectors, {"name": next(iter(vectors))}))
        print(f"{words}: its words")


if __name__ == "__main__":
    run_command(main)
