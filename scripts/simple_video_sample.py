"""Films from first frames, by Stable Video Diffusion or a small film model; see docs/video.md.

    python -m scripts.simple_video_sample --input_path picture.png
    python -m scripts.simple_video_sample --ckpt latest:film --input_path pictures/ --motion_bucket_id 200 --fps_id 5
    python -m scripts.simple_video_sample --version svd_xt --ckpt svd_xt.safetensors --input_path picture.png --seed 1

Each picture becomes <name>.mp4, .gif, .webp and a sheet of its frames; what is finished is not made again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/simple_video_sample.py

from ldm.arguments import Parser
from ldm.pictures.film import FORMATS
from ldm.util import run_command
from ldm.workflows.film_course import MANNERS
from ldm.workflows.film_options import VideoOptions
from ldm.workflows.film_versions import VERSIONS
from ldm.workflows.video import video


def parser() -> argparse.ArgumentParser:
    """The command line; the names of the public program, and more."""
    flags = Parser(description=__doc__)
    usual = VideoOptions()
    flags.add_argument("--input_path", default="", help="the picture that the film begins with, or a folder")
    flags.add_argument("--last_path", help="the picture that it ends with (or a folder), for a model that takes one")
    flags.add_argument("--prompt", default="", help="for a model that reads one")
    flags.add_argument("--version", help=f"of the released models: {', '.join(VERSIONS)}")
    flags.add_argument("--ckpt", help="the model's weights, or latest:NAME of a run; the small film model without it")
    flags.add_argument("--config", help="its YAML; usually found beside the weights")
    flags.add_argument("--num_frames", type=int, help="14, or 25 for svd_xt, or as the model was trained")
    flags.add_argument("--num_steps", type=int, help="25, or 30 for svd_xt, or as the model's YAML says")
    flags.add_argument("--fps_id", type=int, default=usual.fps_id, help="frames a second less one (%(default)s)")
    flags.add_argument("--motion_bucket_id", type=int, default=usual.motion_bucket_id, help="0 to 255 (%(default)s)")
    flags.add_argument("--heading", type=float, help="where the thing goes, in degrees clockwise from the right; "
                       "by chance of the seed where not given, as --manner; for the small film model")  # fmt: skip
    flags.add_argument("--manner", help=f"and what it does besides: {', '.join(MANNERS)}")
    flags.add_argument("--cond_aug", type=float, default=usual.cond_aug, help="noise on the first frame (%(default)s)")
    flags.add_argument("--seed", type=int, default=usual.seed, help="of the first film; -1 draws one (%(default)s)")
    flags.add_argument("--decoding_t", type=int, default=usual.decoding_t, help="frames decoded at once (%(default)s)")
    flags.add_argument("--decoding_overlap", type=int, default=usual.decoding_overlap,
                       help="of which two neighbours share so many (%(default)s)")  # fmt: skip
    flags.add_argument("--max_scale", type=float, help="guidance of the last frame; as the version or the YAML says")
    flags.add_argument("--min_scale", type=float, help="guidance of the first frame; likewise")
    flags.add_argument("--guider", default=usual.guider, help="linear, or triangle: strongest in the middle")
    flags.add_argument("--sampler", help="one of txt2img.py's; as the model's YAML says, else euler")
    flags.add_argument("--noise_scale", type=float, metavar="S", help="times the start noise (1, or as the YAML says)")
    flags.add_argument("--start_from", metavar="WHAT", help="noise, or first: with as much of the first frame in it "
                       "as latents have at that level; as the YAML says, else noise")  # fmt: skip
    flags.add_argument("--height", type=int, help="pixels; the picture is scaled so that it fits in")
    flags.add_argument("--width", type=int)
    flags.add_argument("--crop", action="store_true", help="exactly that size, from the picture's middle")
    flags.add_argument("--output_folder", help="outputs/simple_video_sample/VERSION, or .../films without one")
    flags.add_argument("--formats", nargs="+", default=FORMATS, help=f"some of {' '.join(FORMATS)} (all)")
    flags.add_argument("--device", help="cuda, cpu; a GPU if there is one")
    flags.add_argument("--precision", default=usual.precision, help="full, autocast, bf16 or fp16 (%(default)s)")
    flags.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return flags


def main() -> None:
    """Raises UserError: as ``ldm.workflows.video.video``."""
    given = vars(parser().parse_args())
    given.pop("debug")
    for result in video(VideoOptions(**given)):
        print(f"{'kept' if result.kept else 'made'} {', '.join(map(str, result.files))}")


if __name__ == "__main__":
    run_command(main)
