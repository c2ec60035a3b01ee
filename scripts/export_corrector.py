"""Make a small file of a trained corrector or retoucher, for a model's YAML to name as ``inference.corrector``.

    python -m scripts.export_corrector latest:tiny-corrector models/ldm/tiny/corrector.safetensors
    python -m scripts.export_corrector latest:tiny-retoucher models/ldm/tiny/retoucher.safetensors
    python -m scripts.export_corrector RUN FILE --model WEIGHTS --config YAML     # of another model than the small one

The file says for which network it was trained: beside other weights it is not used. A retoucher's is the decoder, and
the YAML names it as ``inference.retoucher``.
"""

from __future__ import annotations

from pathlib import Path

from ldm.arguments import Parser
from ldm.checkpoint import read_state_dict
from ldm.runs import given_or_latest
from ldm.util import run_command
from ldm.workflows.correcting import corrector_of, decoder_of, retoucher_of, save_for
from ldm.workflows.studio import open_studio

RETOUCHER, CORRECTOR = "retoucher.", "corrector."  # what their keys in a checkpoint begin with


def main() -> None:
    """Raises UserError: the checkpoint is of neither, or a file cannot be read or written."""
    parser = Parser(description=__doc__)
    parser.add_argument("ckpt", help="checkpoint of a run with configs/tiny/corrector.yaml, or latest:NAME")
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--model", help="weights of the model whose pictures it puts right; none: the small model")
    parser.add_argument("--config", help="their YAML")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    weights = read_state_dict(given_or_latest(options.ckpt))
    start = RETOUCHER if any(key.startswith(RETOUCHER) for key in weights) else CORRECTOR
    own = {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}
    part = retoucher_of(own, options.ckpt) if start == RETOUCHER else corrector_of(own, options.ckpt)
    model = open_studio(options.model, options.config, device="cpu").model
    save_for(decoder_of(model) if start == RETOUCHER else model.model.diffusion_model, part, options.out)
    print(f"{options.out}: {options.out.stat().st_size / 2**20:.1f} MB")


if __name__ == "__main__":
    run_command(main)
