"""What a LoRA file holds: its family, kinds, ranks, layers, words, what its header tells of its training, what it fits.

    python -m scripts.inspect_lora style.safetensors
    python -m scripts.inspect_lora peft-folder/
    python -m scripts.inspect_lora style.safetensors --ckpt model.ckpt --config v1-inference.yaml

With a model it is said how much of the file that model has a place for, and how long each change is beside the weight.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/inspect_lora.py

from ldm.additions.lora.kinds import alpha_of, difference, kind_of, rank_of
from ldm.additions.lora.lora import Lora, called_by_width
from ldm.arguments import Parser
from ldm.checkpoint.lora import LoraFile, Parts, read_lora
from ldm.runs import LORAS, given_or_latest
from ldm.util import UserError, printable, run_command
from ldm.workflows.lora_spelling import width_of_context
from ldm.workflows.models import open_model

STRONGEST = 5  # changes that are named
FIELDS = ("ss_", "modelspec.")


def described(parts: Parts) -> str:
    """Kind, rank and alpha of a module, or what is wrong with it."""
    try:
        kind = ("DoRA on " if "dora_scale" in parts else "") + kind_of(parts)
    except UserError as error:
        return f"unusable ({error})"
    rank = rank_of(parts)
    return kind if rank is None else f"{kind} of rank {rank}, alpha {alpha_of(parts):g}"


def report(file: LoraFile) -> Iterator[str]:
    """What can be said without a model."""
    precisions = sorted({str(v.dtype).removeprefix("torch.") for ps in file.modules.values() for v in ps.values()})
    yield f"{file.path}: {file.family}, {', '.join(precisions)}"
    for network in file.networks:
        kinds = Counter(described(parts) for key, parts in file.modules.items() if key.network == network)
        yield f"  {network}: " + "; ".join(f"{count} x {kind}" for kind, count in kinds.most_common())
    width = width_of_context(file)
    if width is not None:
        yield f"  fits: {called_by_width(width)}"
    for word, vectors in file.words.items():
        yield f"  word: '{printable(word)}', {len(vectors)} vector(s) of width {vectors.shape[-1]}"
    for key, value in sorted(file.metadata.items()):
        if key.startswith(FIELDS):
            yield f"  {printable(key)}: {printable(value)}"
    if file.unknown:
        yield f"  {len(file.unknown)} other entries, such as '{printable(file.unknown[0])}'"


def beside(model: Any, file: LoraFile) -> Iterator[str]:
    """How it fits a model.

    Raises:
        UserError: it does not.
    """
    lora = Lora.read(file.path, model)
    yield f"  of {len(file.modules)} modules the model has {len(lora.modules)}"
    weights = dict(model.named_parameters())
    lengths: dict[str, float] = {}
    for module in lora.modules:
        rows = slice(None) if module.place.rows is None else slice(*module.place.rows)
        weight = weights[module.place.weight].data[rows]
        change = difference(weight, module.parts)
        if change is not None:
            lengths[str(module.key)] = float(change.norm() / weight.float().norm().clamp(min=1e-12))
    for name, length in sorted(lengths.items(), key=lambda item: -item[1])[:STRONGEST]:
        yield f"  {100 * length:6.2f} % of the weight: {printable(name)}"


def main() -> None:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("file", help="a LoRA file of any family, or a folder of PEFT or diffusers")
    add("--ckpt", metavar="FILE", help="a model to hold it against")
    add("--config", metavar="FILE", help="its YAML (config.yaml beside the weights)")
    add("--trust_config", action="store_true", help="the YAML beside the weights may name classes of any package")
    add("--debug", action="store_true", help="show the traceback of an error")
    given = parser.parse_args()
    file = read_lora(given_or_latest(given.file, LORAS))
    print("\n".join(report(file)))
    if given.ckpt is not None:
        model, _ = open_model(given.ckpt, given.config, device="cpu")
        print("\n".join(beside(model, file)))


if __name__ == "__main__":
    run_command(main)
