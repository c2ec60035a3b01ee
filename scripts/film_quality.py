"""Films of a film model from held-out first frames of the rendered world, judged; see docs/video.md.

    python -m scripts.film_quality
    python -m scripts.film_quality --ckpt latest:film --shapes 1 -n 128 --outdir outputs/films
    python -m scripts.film_quality --ckpt film.safetensors --config configs/tiny-video/film.yaml --steps 50 --seed 1

Rows: true films, the model, the model without its temporal layers, the first frame as a still, and moved, where the
model is shown that. Columns: frames whose thing (shape and colour, or object) is right, the rank correlation of motion
asked and motion seen, the mean change of the background from frame to frame, films whose last frame goes on its course.
Below them, how right things are frame by frame, and how far films are from one another.
"""

from __future__ import annotations

from pathlib import Path

from ldm.arguments import Parser
from ldm.util import run_command
from ldm.workflows.film_options import VideoOptions
from ldm.workflows.measure.films import as_markdown, film_table
from ldm.workflows.video import film_studio


def main() -> None:
    """Raises UserError: as ``ldm.workflows.measure.films.film_table``."""
    parser = Parser(description=__doc__)
    parser.add_argument("--ckpt", help="weights, or latest:NAME of a run; the small film model without it")
    parser.add_argument("--config", help="its YAML; usually found beside the weights")
    parser.add_argument("-n", "--count", type=int, default=128, help="films of each row (%(default)s)")
    parser.add_argument("--num_frames", type=int, help="frames of a film; as the model was trained")
    parser.add_argument("--steps", type=int, help="of the sampler; as the model's YAML says, else 25")
    parser.add_argument("--scale", type=float, help="of guidance, for all frames; as the YAML says, else 1")
    parser.add_argument("--noise_scale", type=float, help="times the start noise; as the YAML says, else 1")
    parser.add_argument("--start_from", metavar="WHAT", help="noise or first; as the YAML says, else noise")
    parser.add_argument("--seed", type=int, default=0, help="which films, and their noise (%(default)s)")
    parser.add_argument("--shapes", type=float, default=0.5, help="share of shapes among the things (%(default)s)")
    parser.add_argument("--outdir", type=Path, help="where some films and the numbers go")
    parser.add_argument("--device", help="cuda, cpu; a GPU if there is one")
    parser.add_argument("--precision", default="autocast", help="full, autocast, bf16 or fp16 (%(default)s)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    settings = VideoOptions(num_frames=options.num_frames, num_steps=options.steps, max_scale=options.scale,
                            min_scale=options.scale, noise_scale=options.noise_scale,
                            start_from=options.start_from)  # fmt: skip
    studio = film_studio(options.ckpt, options.config, options.device, options.precision)
    table = film_table(studio, options.count, settings, options.seed, options.outdir, shapes=options.shapes)
    print(as_markdown(table))


if __name__ == "__main__":
    run_command(main)
