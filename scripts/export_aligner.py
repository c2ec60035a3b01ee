"""Make small files of a trained aligner: the aligner, and its multilingual encoder if that was trained as well.

    python -m scripts.export_aligner latest:aligner models/ldm/tiny --precision bytes
    python -m scripts.export_aligner logs/<run> outputs/aligner --precision fp32
    python -m scripts.export_aligner logs/<run> outputs/aligner --ckpt logs/<run>/checkpoints/<file>

writes aligner.safetensors and, after ``train_encoder: true``, the folder multilingual/: the encoder and its tokenizer.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from ldm.arguments import Parser
from ldm.checkpoint import load_weights, read_state_dict
from ldm.modules.encoders.aligner import save_aligner
from ldm.modules.encoders.multilingual import MultilingualEncoder
from ldm.runs import given_or_latest, is_latest
from ldm.util import UserError, atomic_write, instantiate_from_config, read_yaml, run_command, temporary_folder

ENCODER = "multilingual"
BYTES = "bytes"  # for the aligner's matrices; all else is in bfloat16 then
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, BYTES: torch.bfloat16}


def export(run: Path, folder: Path, precision: str = "bf16", ckpt: Path | None = None) -> list[Path]:
    """Write the files of a run to ``folder`` and return them.

    Raises:
        UserError: the folder is no run that trained an aligner, or a file cannot be written.
    """
    configs = sorted(run.glob("configs/*-project.yaml"))
    if not configs:
        raise UserError(f"'{run}' is no run folder: it has no configs/*-project.yaml")
    params: Any = OmegaConf.select(read_yaml(configs[-1]), "model.params")
    if params is None or "aligner_config" not in params:
        raise UserError(f"the run '{run}' did not train an aligner")
    weights = read_state_dict(ckpt or run / "checkpoints" / "last.ckpt")
    aligner = instantiate_from_config(params.aligner_config)
    load_weights(aligner, weights, prefix="aligner.", strict=True)
    encoder = params.encoder
    made = [folder / "aligner.safetensors"]
    if params.get("train_encoder"):
        reader = MultilingualEncoder(encoder)
        load_weights(reader, weights, prefix="encoder.", strict=True)
        encoder = ENCODER
        made.append(folder / ENCODER)
        save_encoder(reader, folder / ENCODER, precision)
    about = {"made_for": str(params.model_config)}
    save_aligner(aligner.to(PRECISIONS[precision]), made[0], encoder, about, small=precision == BYTES)
    return made


def save_encoder(reader: MultilingualEncoder, folder: Path, precision: str) -> None:
    """Write an encoder and its tokenizer as transformers reads them, file by file."""
    with temporary_folder() as temporary:
        reader.model.to(PRECISIONS[precision]).save_pretrained(temporary)
        reader.tokenizer.save_pretrained(temporary)
        for source in sorted(temporary.iterdir()):
            with atomic_write(folder / source.name) as path:
                shutil.copyfile(source, path)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder of main.py with configs/aligner/*.yaml")
    parser.add_argument("folder", type=Path, help="where to put the files, for example beside the model's config.yaml")
    parser.add_argument("--ckpt", type=Path, help="another checkpoint of the run than last.ckpt")
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args()
    run = given_or_latest(options.run).parent.parent if is_latest(options.run) else options.run
    made = export(run, options.folder, options.precision, options.ckpt)
    files = [file for path in made for file in (path.iterdir() if path.is_dir() else [path])]
    size = sum(file.stat().st_size for file in files) / 2**20
    print(f"{' and '.join(map(str, made))}: {size:.1f} MB")


if __name__ == "__main__":
    run_command(main)
