"""Pictures of no prompt at all, under the name and with the flags of latent diffusion's command.

    python -m scripts.sample_diffusion -n 16 --batch_size 8 -c 20 -e 0                     # the small model
    python -m scripts.sample_diffusion -r models/ldm/celeba256/model.ckpt -l samples -n 100 --batch_size 10 -c 200 -e 1
    python -m scripts.sample_diffusion -r logs/RUN -n 100 -v                               # every step of the training

Pictures go to <logdir>/samples/<time>/img, all of them as one array to .../numpy.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/sample_diffusion.py

from ldm.commands.flags import new_parser
from ldm.util import run_command


def main() -> None:
    """Raises UserError: as ``ldm.workflows.sample_diffusion.sample_diffusion``."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("-r", "--resume", metavar="RUN|CKPT", help="a checkpoint, or the folder of one or of a run (the small model)")
    add("-n", "--n_samples", type=int, metavar="N", help="how many pictures (50000)")
    add("-e", "--eta", type=float, help="fresh noise in DDIM: 0 none, 1 as DDPM (1)")
    add("-v", "--vanilla_sample", dest="vanilla", action="store_true", help="all steps of the training, as DDPM")
    add("-l", "--logdir", metavar="FOLDER", help="where pictures go (beside the checkpoint)")
    add("-c", "--custom_steps", dest="steps", type=int, metavar="N", help="steps of DDIM (50)")
    add("--batch_size", type=int, metavar="N", help="pictures in a batch (10)")
    add("--seed", type=int, help="of the first picture; each further one has the next; -1 draws one (42)")
    add("--config", metavar="FILE", help="the model's YAML (the one beside the weights, or the run's)")
    add("--precision", choices=["full", "autocast", "bf16", "fp16"], help="autocast: mixed on a GPU, full on a CPU")
    add("--device", help="cpu, cuda, cuda:1, ... (a GPU if there is one)")
    add("--debug", action="store_true", help="show the traceback of an error")
    given = vars(parser.parse_args())
    given.pop("debug", None)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from ldm.workflows.sample_diffusion import SampleDiffusionOptions, sample_diffusion

    folder = sample_diffusion(SampleDiffusionOptions(**given))
    print(f"pictures are in {folder}")


if __name__ == "__main__":
    run_command(main)
