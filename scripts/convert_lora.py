"""A LoRA file in another spelling: kohya's names (sd-scripts, the web UI, ComfyUI), or PEFT's (diffusers).

    python -m scripts.convert_lora style.safetensors --out style-kohya.safetensors
    python -m scripts.convert_lora style.safetensors --config v1-inference.yaml --out style-kohya.safetensors
    python -m scripts.convert_lora style.safetensors --format peft --out style-diffusers.safetensors

Names are looked up in the model that the file is for: that of --config, or the one whose context is as wide as the
file's. No weights are read. Learned words in the file go into a file of their own beside the new one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/convert_lora.py

import torch
from omegaconf import OmegaConf

from ldm.additions.lora.lora import check_model, matched, report_missing
from ldm.additions.lora.names import places
from ldm.checkpoint import EmbeddingFile, write_embedding
from ldm.checkpoint.lora import LoraFile, read_lora
from ldm.checkpoint.lora.diffusers import SETTINGS
from ldm.checkpoint.lora.writing import SPELLINGS, Written, write_lora
from ldm.shipped import here_or_shipped
from ldm.util import UserError, instantiate_from_config, read_yaml, run_command
from ldm.workflows.models import sampling_node
from ldm.workflows.options import old_spellings
from scripts.inspect_lora import width_of_context

CONFIGS = {
    192: "configs/tiny/ldm.yaml",
    768: "configs/stable-diffusion/v1-inference.yaml",
    1024: "configs/stable-diffusion/v2-inference-v.yaml",
    1280: "configs/latent-diffusion/txt2img-1p4B-eval.yaml",
}


def model_for(file: LoraFile, config: str | None) -> Any:
    """The model that a file's names are of, without weights.

    Raises:
        UserError: it cannot be told which.
    """
    width = width_of_context(file)
    if config is None and width not in CONFIGS:
        raise UserError(f"it cannot be told which model '{file.path}' is for; name its YAML with --config")
    path = here_or_shipped(CONFIGS[width or 0] if config is None else config)
    node, _ = sampling_node(read_yaml(path, config is not None))
    plain = OmegaConf.to_container(OmegaConf.create(dict(node)), resolve=True)
    with torch.device("meta"):
        return instantiate_from_config(plain)  # type: ignore[arg-type]


def converted(file: LoraFile, model: Any) -> list[Written]:
    """The file's modules under the names that both spellings are made of."""
    modules, missing = matched(file, places(model))
    check_model(file, modules, model)
    if missing or file.unknown:
        print(report_missing(file, missing), file=sys.stderr)
    return [Written(module.place.network, module.place.name, module.parts) for module in modules]


def main() -> None:
    """Write the file in another spelling.

    Raises:
        UserError: the file is no LoRA, or of a kind that the spelling has no names for; nothing is written.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("file", help="a LoRA file of any family, or a folder of PEFT or diffusers")
    old_spellings(
        add("--out", "--output", dest="output", type=Path, required=True, metavar="FILE", help="what to write")
    )
    add("--format", choices=SPELLINGS, default="kohya", help="whose names it has (kohya)")
    add("--config", metavar="FILE", help="the YAML of the model that it is for")
    add("--debug", action="store_true", help="show the traceback of an error")
    given = parser.parse_args()
    file = read_lora(given.file)
    if Path(given.file).resolve() == given.output.resolve():
        raise UserError(f"--out '{given.output}' is the file that is read; name another")
    modules = converted(file, model_for(file, given.config))
    notes = {key: value for key, value in file.metadata.items() if key not in ("format", SETTINGS)}
    write_lora(given.output, modules, given.format, notes)
    print(f"{given.output}: {len(modules)} modules in {given.format}'s spelling")
    if file.words:
        words = given.output.with_name(f"{given.output.stem}_emb.safetensors")
        vectors = {name: value.float() for name, value in file.words.items()}
        write_embedding(words, EmbeddingFile(vectors, {"name": next(iter(vectors))}))
        print(f"{words}: its words")


if __name__ == "__main__":
    run_command(main)
