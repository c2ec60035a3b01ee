"""What can be asked of films from first frames, refused before a model is opened where it cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ldm.checkpoint import is_diffusers_folder
from ldm.models.diffusion.sampling import step_rule
from ldm.pictures.film import FORMATS
from ldm.pictures.images import list_images
from ldm.shipped import here_or_shipped
from ldm.util import UserError
from ldm.workflows.film_course import NO_COURSE, check_course
from ldm.workflows.film_files import check_formats
from ldm.workflows.film_versions import DECLINED, VERSIONS
from ldm.workflows.plan import checked_noise_scale

STARTS = ("noise", "first")


@dataclass
class VideoOptions:
    """Which films to make, how, and where to put them. None means: as the version or the model's YAML says, else usual.

    Each film has a seed of its own, ``seed`` + its number.
    """

    input_path: str = ""  # a picture, or a folder of pictures
    last_path: str | None = None  # the last frame, for a model that takes one; a folder with the same names
    prompt: str = ""  # for a model that reads one
    version: str | None = None  # svd, svd_xt, and each with _image_decoder; None: the model's own settings
    ckpt: str | None = None  # None: the small film model
    config: str | None = None
    num_frames: int | None = None
    num_steps: int | None = None
    fps_id: int = 6  # frames a second less one, as the released models are told
    motion_bucket_id: int = 127  # how much moves, 0 to 255
    heading: float | None = None  # where it goes, for a model that is told: degrees clockwise from the right
    manner: str | None = None  # and what it does besides: a name of MANNERS; None: by chance, of the seed
    cond_aug: float = 0.02  # deviation of the noise on the first frame
    seed: int = 23  # of the first film; -1 draws one
    decoding_t: int = 14  # frames that are decoded at once
    decoding_overlap: int = 0  # of which neighbours share so many
    max_scale: float | None = None  # guidance of the last frame
    min_scale: float | None = None  # and of the first one
    guider: str = "linear"  # or triangle: strongest in the middle
    sampler: str | None = None  # as the model's YAML says, else euler
    noise_scale: float | None = None  # 1; times the start noise
    start_from: str | None = None  # noise, or first: with as much of the first frame as latents have there
    height: int | None = None  # pixels
    width: int | None = None
    crop: bool = False  # exactly that size, from the picture's middle; else its aspect stays
    output_folder: str | None = None  # outputs/simple_video_sample/<version>
    formats: Sequence[str] = FORMATS
    device: str | None = None
    precision: str = "autocast"
    progress: bool = True


def check_options(options: VideoOptions) -> None:
    """Raises UserError for what can be refused before a model is opened."""
    version = options.version
    if version in DECLINED:
        raise UserError(f"'{version}' turns an object around (SV3D, SV4D); such models are not here, films of "
                        f"{', '.join(VERSIONS)} are")  # fmt: skip
    if version is not None and version not in VERSIONS:
        raise UserError(f"there is no version '{version}'; there are: {', '.join(VERSIONS)}")
    if version is not None and options.ckpt is None:
        raise UserError(f"--version {version} needs the released weights: --ckpt {version}.safetensors")
    if not 0 <= options.motion_bucket_id <= 255:
        raise UserError(f"--motion_bucket_id lies between 0 (still) and 255, got {options.motion_bucket_id}")
    if options.num_frames is not None and options.num_frames < 2:
        raise UserError(f"--num_frames must be 2 or more, got {options.num_frames}")
    if options.num_steps is not None and options.num_steps < 1:
        raise UserError(f"--num_steps must be 1 or more, got {options.num_steps}")
    if not 0 <= options.fps_id <= 119 or not 0 <= options.cond_aug <= 10:
        raise UserError(f"--fps_id lies between 0 and 119 and --cond_aug between 0 and 10, got {options.fps_id} and "
                        f"{options.cond_aug}")  # fmt: skip
    if options.decoding_t < 1 or not 0 <= options.decoding_overlap < options.decoding_t:
        raise UserError(f"--decoding_t frames are decoded at once, 1 or more, of which --decoding_overlap are fewer; "
                        f"got {options.decoding_t} and {options.decoding_overlap}")  # fmt: skip
    if options.guider not in ("linear", "triangle"):
        raise UserError(f"--guider is linear or triangle, not '{options.guider}'")
    check_course(options.heading, options.manner)
    if version is not None and (options.heading, options.manner) != (None, None):
        raise UserError(NO_COURSE.format(version))
    check_formats(options.formats)
    if options.sampler is not None:
        step_rule(options.sampler)
    if options.noise_scale is not None:
        checked_noise_scale(options.noise_scale)
    if options.start_from is not None:
        checked_start(options.start_from)


def checked_start(name: str) -> str:
    """What films start from.

    Raises:
        UserError: an unknown name.
    """
    if name not in STARTS:
        raise UserError(f"films start from {' or '.join(STARTS)} (--start_from, or start_from in a YAML), not '{name}'")
    return name


def inputs_of(options: VideoOptions) -> list[tuple[Path, Path | None]]:
    """The pictures that films begin with, and end with where that is asked for.

    Raises:
        UserError: there are none, or a last frame is missing.
    """
    if not options.input_path:
        raise UserError("--input_path is needed: a picture that the film begins with, or a folder of pictures")
    path = here_or_shipped(options.input_path)
    paths = list_images(path) if path.is_dir() else [path]
    if not paths:
        raise UserError(f"'{path}' has no pictures to begin films with")
    if options.last_path is None:
        return [(file, None) for file in paths]
    last = here_or_shipped(options.last_path)
    ends = [last / file.name if last.is_dir() else last for file in paths]
    missing = [end for end in ends if not end.is_file()]
    if missing:
        raise UserError(f"there is no last frame '{missing[0]}'")
    return list(zip(paths, ends, strict=True))


def output_folder(options: VideoOptions) -> str:
    """Where the films go; as the public program has it, a folder for each version."""
    return options.output_folder or f"outputs/simple_video_sample/{options.version or 'films'}"


def config_of(options: VideoOptions) -> str | None:
    """The configuration given, or that of a version; a diffusers folder describes itself."""
    is_folder = options.ckpt is not None and is_diffusers_folder(options.ckpt)
    if options.config is None and options.version is not None and not is_folder:
        return VERSIONS[options.version].config
    return options.config
