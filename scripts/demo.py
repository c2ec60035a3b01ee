"""What `make demo` shows: prompts in three languages, restyled photographs, a film, the autoencoder, a training.

    python -m scripts.demo
    python -m scripts.demo --outdir outputs/again
    python -m scripts.demo --debug                  # with the traceback of an error

Everything is written under outputs/demo; the pictures come from the small models in models/ldm.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ldm.arguments import Parser
from ldm.pictures.images import centre_crop, image_to_tensor, make_grid, save_image, tensor_to_image
from ldm.shipped import SAMPLES
from ldm.util import UserError, run_command
from ldm.workflows.film_options import VideoOptions
from ldm.workflows.models import open_model
from ldm.workflows.options import old_spellings
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.styleid import SHEET, styleid
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img
from ldm.workflows.video import video
from ldm.world.paint import box, layer
from ldm.world.photos import load_photo, photos
from ldm.world.scene import SHAPES, Thing
from scripts.inversion_quality import psnr
from scripts.scene_prompts import prompts

ROOT = Path(__file__).resolve().parents[1]
SUNSET_PROMPTS = [f"a large {thing} on a sunset background" for thing in ("white star", "black heart", "green circle")]
PHOTO_SIZE = 256
STEPS = 20  # of the short training, whose rate is so much higher than a longer one's
RATE = 3e-4
FILM_PROMPT = "a small balloon in a meadow"
MOTION, UP = 80, 270.0  # of 255; degrees clockwise from the right
PAINTINGS = SAMPLES.parent / "paintings"
TRANSLATED = ("a penguin on a yellow background", "노란 배경 위의 펭귄", "黄色背景上的企鹅")


def main() -> None:
    parser = Parser(description=__doc__)
    old_spellings(parser.add_argument("--outdir", "--out", type=Path, default=ROOT / "outputs" / "demo",
                                      help="folder for the results (outputs/demo)"))  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    out: Path = options.outdir
    started = time.perf_counter()
    steps = (show_prompts, show_languages, show_restyling, show_film, show_photographs, show_training)
    written = [step(out) for step in steps]
    print(f"\nDone in {time.perf_counter() - started:.0f} s. Look at:")
    for path in written:
        print(f"  {path}")


def show_prompts(out: Path) -> Path:
    """A sheet of prompts and pictures, of scenes that training never saw: with one thing, and with two."""
    shown = [*prompts(4, "one", seed=3)[0], *prompts(1, "shapes", seed=3)[0], *prompts(3, "two", seed=3)[0]]
    return sheet(draw(shown, out / "txt2img"), shown, out / "txt2img.png", columns=4)


def show_languages(out: Path) -> Path:
    """One sentence in English, Korean and Chinese."""
    pictures = draw(list(TRANSLATED), out / "languages")
    return sheet(pictures, ["English", "Korean", "Chinese"], out / "languages.png", columns=3, zoom=2)


def show_restyling(out: Path) -> Path:
    """A photograph in the manner of two pictures (StyleID), without any training."""
    folder = out / "restyled"
    styles = [PAINTINGS / name for name in ("train/hokusai_great_wave.jpg", "heldout/van_gogh_auvers.jpg")]
    pairs = out / "pairs.txt"
    pairs.parent.mkdir(parents=True, exist_ok=True)
    content = SAMPLES / "cnt" / "cat.jpg"
    pairs.write_text("".join(f"{content}, {style}\n" for style in styles), encoding="utf-8")
    styleid(StyleIDOptions(pairs=str(pairs), output_path=str(folder), precomputed="", fast=True))
    return folder / SHEET


def show_film(out: Path) -> Path:
    """A picture that begins to move: its frames, and below each how it differs from the one before."""
    folder = out / "film"
    first = folder / "first.png"
    save_image(draw([FILM_PROMPT], folder)[0], first)  # the pictures of another run may lie beside it
    options = VideoOptions(str(first), output_folder=str(folder), motion_bucket_id=MOTION, heading=UP, manner="move",
                           formats=("gif", "sheet"))  # fmt: skip
    (film,) = video(options)
    return film.files[-1]


def show_photographs(out: Path) -> Path:
    """Photographs that training never saw, beside what the autoencoder makes of them."""
    model, _ = open_model()
    pictures, labels = [], []
    for photo in photos("heldout"):
        original = centre_crop(load_photo(photo), PHOTO_SIZE, PHOTO_SIZE)
        x = image_to_tensor(original)[None]
        with torch.no_grad():
            z = model.encode_first_stage(x).mode() * model.scale_factor
            reconstruction = model.decode_first_stage(z)[0]
        pictures += [original, tensor_to_image(reconstruction)]
        labels += [photo.name, f"from {z[0].numel()} numbers: {psnr(reconstruction, x[0]):.1f} dB"]
    return sheet(pictures, labels, out / "reconstruction.png", columns=4)


def show_training(out: Path) -> Path:
    """The model before and after it learns a new word from a folder of captioned pictures."""
    folder = out / "sunset"
    render_sunsets(folder)
    before = draw(SUNSET_PROMPTS, out / "before")
    logs = out / "logs"
    earlier = set(logs.glob("*_sunset"))
    command = [
        sys.executable, str(ROOT / "main.py"), "-b", str(ROOT / "configs/tiny/finetune.yaml"), "-t",
        "--scale_lr", "false", "--name", "sunset", "--data_root", str(folder), "--logdir", str(logs),
        "lightning.callbacks.image_logger.params.disabled=true", f"lightning.trainer.max_steps={STEPS}",
        f"model.base_learning_rate={RATE}", f"model.params.scheduler_config.params.max_decay_steps={STEPS}",
        "model.params.ema_decay=0.9",
    ]  # fmt: skip
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise UserError("the short training did not finish; what it printed above says why")
    (run,) = set(logs.glob("*_sunset")) - earlier
    ckpt = run / "checkpoints" / "last.ckpt"
    after = draw(SUNSET_PROMPTS, out / "after", ckpt=str(ckpt), config=str(ROOT / "configs/tiny/finetune.yaml"))
    labels = [f"{when}: {prompt}" for when in ("before", "after") for prompt in SUNSET_PROMPTS]
    return sheet(before + after, labels, out / "training.png", columns=len(before), zoom=2)


def draw(sentences: list[str], outdir: Path, ckpt: str | None = None, config: str | None = None) -> list[Image.Image]:
    """A picture for each prompt, as `txt2img.py --from-file` makes them."""
    outdir.mkdir(parents=True, exist_ok=True)
    listing = outdir / "prompts.txt"
    listing.write_text("\n".join(sentences) + "\n", encoding="utf-8")
    together = min(len(sentences), 6)
    return txt2img(
        Txt2ImgOptions(
            from_file=str(listing), n_samples=together, outdir=str(outdir), skip_grid=True, ckpt=ckpt, config=config
        )
    )


def render_sunsets(folder: Path, size: int = 128) -> None:
    """Shapes before a sky that the rendered world does not have, with a caption in a text file beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    height = np.linspace(0.0, 1.0, size, dtype=np.float32)[:, None, None]
    top, bottom = np.array([[-0.6, -0.5, 0.3], [1.0, 0.1, -0.7]], dtype=np.float32)
    sky = np.broadcast_to((1 - height) * top + height * bottom, (size, size, 3))
    for shape, colour in itertools.product(SHAPES, ("white", "black", "green", "yellow")):
        left, upper, side = box("large", "middle", size)
        sprite = layer(Thing(shape, "large", "middle", colour, "plain"), side, size)
        picture, colours, cover = sky.copy(), sprite[..., :3] * 2, sprite[..., 3:]
        under = picture[upper : upper + side, left : left + side]
        under[:] = under * (1 - cover) + colours - cover
        name = f"{shape}-{colour}"
        save_image(tensor_to_image(torch.from_numpy(picture).movedim(-1, 0)), folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a large {colour} {shape} on a sunset background\n", encoding="utf-8")


def sheet(images: list[Image.Image], labels: list[str], path: Path, columns: int, zoom: int = 1) -> Path:
    """Save labelled pictures, each ``zoom`` times as large."""
    large = [i.resize((i.width * zoom, i.height * zoom), Image.Resampling.NEAREST) for i in images]
    save_image(make_grid(large, columns, labels), path)
    return path


if __name__ == "__main__":
    run_command(main)
