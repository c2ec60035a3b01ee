"""Make a small file of a trained corrector, for a model's YAML to name as ``inference.corrector``.

    python -m scripts.export_corrector latest:tiny-corrector models/ldm/tiny/corrector.safetensors
    python -m scripts.export_corrector logs/<run>/checkpoints/last.ckpt outputs/corrector.safetensors
    python -m scripts.export_corrector RUN FILE --model WEIGHTS --config YAML     # of another model than the small one

The file says which network's errors were learned: beside other weights it is not used.
"""

from __future__ import annotations

from pathlib import Path

from ldm.arguments import Parser
from ldm.checkpoint import read_state_dict
from ldm.runs import given_or_latest
from ldm.util import run_command
from ldm.workflows.correcting import corrector_of, save_corrector
from ldm.workflows.studio import open_studio

START = "corrector."  # of its keys in a checkpoint


def main() -> None:
    """Raises UserError: the checkpoint is of no corrector, or a file cannot be read or written."""
    parser = Parser(description=__doc__)
    parser.add_argument("ckpt", help="checkpoint of a run with configs/tiny/corrector.yaml, or latest:NAME")
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--model", help="weights of the model whose errors it has learned; none: the small model")
    parser.add_argument("--config", help="their YAML")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    weights = read_state_dict(given_or_latest(options.ckpt))
    own = {key.removeprefix(START): value for key, value in weights.items() if key.startswith(START)}
    corrector = corrector_of(own, options.ckpt)
    network = open_studio(options.model, options.config, device="cpu").model.model.diffusion_model
    save_corrector(corrector, network, options.out)
    print(f"{options.out}: {options.out.stat().st_size / 2**20:.1f} MB")


if __name__ == "__main__":
    run_command(main)
