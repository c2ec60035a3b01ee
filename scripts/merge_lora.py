"""LoRAs into a checkpoint for good, several LoRAs into one, or a LoRA out of two checkpoints.

    python -m scripts.merge_lora --ckpt model.ckpt --lora a.safetensors=0.8 b.safetensors --out merged.safetensors
    python -m scripts.merge_lora --lora a.safetensors=0.8 b.safetensors --rank 16 --out both.safetensors
    python -m scripts.merge_lora --ckpt model.ckpt --tuned finetuned.ckpt --rank 32 --out difference.safetensors

With --rank the result is a LoRA, the nearest of that rank, and it is said how much of the change it keeps; without it,
a checkpoint that needs no LoRA any more. Words in LoRA files stay in those files.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/merge_lora.py

from ldm.additions.lora.lora import DORA_RULES, Lora, merged_state
from ldm.additions.lora.low_rank import as_lora, joined
from ldm.additions.lora.scales import parse_lora
from ldm.additions.reading import read_loras
from ldm.arguments import Parser
from ldm.checkpoint import read_state_dict, save_state_dict
from ldm.checkpoint.lora.writing import SPELLINGS, Written, write_lora
from ldm.util import UserError, run_command
from ldm.workflows.models import open_model
from ldm.workflows.options import old_spellings


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--ckpt", metavar="FILE", help="the model (the small model)")
    add("--config", metavar="FILE", help="its YAML (config.yaml beside the weights)")
    add("--lora", nargs="+", metavar="FILE[=SCALE]", help="what to put into it, or to join")
    add("--tuned", metavar="FILE", help="a checkpoint of the same model that was trained on, to take a LoRA out of")
    add("--rank", type=int, metavar="R", help="write a LoRA of at most this rank, not a checkpoint")
    add("--format", choices=SPELLINGS, default="kohya", help="whose names a LoRA has (kohya)")
    add("--precision", choices=["full", "bf16", "fp16"], default="full", help="of a checkpoint that is written (full)")
    add("--lora_dora", choices=DORA_RULES, default="interpolate", help="how other scales than 1 act with DoRA")
    out = add("--out", "--output", dest="output", type=Path, required=True, metavar="FILE")
    out.help = "what to write; never one of the files read"
    old_spellings(out)
    add("--trust_config", action="store_true", help="the YAML beside the weights may name classes of any package")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def check(given: argparse.Namespace) -> None:
    """Raises UserError: options do not go together, or a file would be written over what is read."""
    if (given.lora is None) == (given.tuned is None):
        raise UserError("give --lora (to merge) or --tuned (to take a LoRA out of), one of them")
    if given.tuned is not None and given.rank is None:
        raise UserError("--tuned needs --rank, the rank of the LoRA, such as 32")
    inputs = [given.ckpt, given.tuned, *(parse_lora(text)[0] for text in given.lora or ())]
    if any(path is not None and Path(path).resolve() == given.output.resolve() for path in inputs):
        raise UserError(f"--out '{given.output}' is one of the files that are read; name another")


def write_checkpoint(model: Any, loras: list[Lora], output: Path) -> str:
    state = {**model.state_dict(), **merged_state(model, [(lora, 1.0) for lora in loras])}
    save_state_dict(state, output, {"loras": ", ".join(lora.label for lora in loras)})
    return f"{output}: {len(state)} tensors; use it with the YAML of the model"


def write_low_rank(modules: list[Written], share: float, given: argparse.Namespace, base: str) -> str:
    write_lora(given.output, modules, given.format, {"ss_sd_model_name": base, "modelspec.title": given.output.stem})
    return f"{given.output}: {len(modules)} layers of rank {given.rank} or less, {100 * share:.2f} % of the change"


def main() -> None:
    """Merge, join or extract, and say what was written.

    Raises:
        UserError: options or files do not fit; nothing is written.
    """
    given = make_parser().parse_args()
    check(given)
    model, _ = open_model(given.ckpt, given.config, device="cpu", precision=given.precision)
    base = model.origin.name
    if given.tuned is not None:
        print(write_low_rank(*as_lora(model, read_state_dict(given.tuned, ema=False), given.rank), given, base))
        return
    loras = read_loras(model, [parse_lora(text) for text in given.lora], given.lora_dora)
    if given.rank is not None:
        print(write_low_rank(*joined(model, loras, given.rank), given, base))
        return
    print(write_checkpoint(model, loras, given.output))


if __name__ == "__main__":
    run_command(main)
