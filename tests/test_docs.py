"""Every command and every piece of Python in the docs: run, in a shorter form where it is long, or said why not.

A command that is not run is taken apart by its own parser, so that its flags are those that there are.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.checkpoint import EmbeddingFile, write_embedding
from ldm.pictures.film import read_film, write_film
from ldm.shipped import here_or_shipped
from ldm.training.options import parse
from ldm.workflows import studio as studios
from ldm.workflows.models import open_model
from ldm.workflows.restyle.plan import StyleIDOptions
from tests.helpers import ROOT
from tests.workflows.small_model import write_small_model

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "models/ldm/tiny/README.md",
         ROOT / "models/ldm/tiny-film/README.md",
         ROOT / "examples/word/README.md", ROOT / "examples/flower/README.md"]  # fmt: skip
PROGRAMS = {"txt2img.py": "ldm.commands.txt2img", "run_styleid.py": "ldm.commands.styleid",
            "app.py": "ldm.commands.app"}  # fmt: skip

QUICK_PICTURE = ["--steps", "1", "--n_samples", "1", "--skip_grid"]
QUICK_RESTYLING = ["--ddim_inv_steps", "1", "--save_feat_steps", "1", "--start_step", "1", "--longest", "32",
                   "--precomputed", ""]  # fmt: skip

RUN: dict[str, list[str]] = {  # what is run, with what makes it short; the first that fits
    r"txt2img.py --prompt (?!.*(--ckpt|lora))": QUICK_PICTURE,
    r"-m scripts\.(img2img|inpaint) ": [*QUICK_PICTURE, "--longest", "64"],
    r"run_styleid.py(?!.*(--ckpt|--lora))": QUICK_RESTYLING,
    r"-m scripts\.make_mask (?!.*--sam)": [],
    r"-m scripts\.crop_subjects (?!.*--sam)": [],
    r"-m scripts\.(inspect|convert|merge)_embedding": [],
    r"-m scripts\.check_word": [],
    r"-m scripts\.download$": [],
    r"-m scripts\.world_pairs": ["-n", "20"],
    r"-m scripts\.scene_prompts": ["-n", "4"],
    r"-m scripts\.simple_video_sample --input_path examples/": ["--num_steps", "1", "--num_frames", "2"],
}
PARSED = {  # what is not, and why
    r"--ckpt|v1-inference|--actual_resume|-m scripts\.download sd|(v1|v2|1p4B)-finetune": "released weights are needed",
    r"main\.py": "it trains for minutes, or goes on with such a run; tests/training and test_shipped_model.py train",
    r"-m benchmarks\.|-m scripts\.(autoencoder|inversion|film)_quality": "it measures for minutes; tests/benchmarks",
    r"-m scripts\.(invert|attention_\w+)": "tests/scripts/test_look_inside.py and test_invert.py run it",
    r"-m scripts\.(inspect_checkpoint|evaluate_concept|language_scores|score|export_\w+|make_multilingual_encoder)":
        "tests/scripts and tests/models run it on files of their own",
    r"lora": "a LoRA of the small model is needed; tests/scripts/test_lora_scripts.py and tests/workflows run it",
    r"-m scripts\.evaluate_style": "networks of others are needed; tests/metrics run it on their stand-ins",
    r"--sam": "weights of SAM are needed; tests/pictures/test_mask_proposals.py has a small one",
    r"app\.py": "it waits for a browser; tests/web/test_page_making.py has one",
    r"-m scripts\.screenshots": "it makes the pictures of docs/app.md, in minutes",
    r"-m scripts\.serve": "it waits for requests; tests/web/test_server.py sends some",
    r"-m scripts\.draw_mask": "it waits for a browser; tests/scripts/test_mask_scripts.py presses its buttons",
    r"-m scripts\.caption": "a captioning model is needed; tests/scripts/test_caption.py has a small one",
    r"-m scripts\.sample_scenes": "it draws for a quarter of an hour; tests/scripts/test_sample_scenes.py draws six",
    r"-m scripts\.sample_errors": "it asks for minutes; tests/scripts/test_sample_errors.py asks about six",
    r"-m scripts\.sample_patches": "it draws for minutes; tests/scripts/test_sample_patches.py draws four",
    r"-m scripts\.train_scorer": "it trains for half an hour; tests/scripts/test_score.py trains for seconds",
    r"-m scripts\.judge": "it goes on with pictures of the command before; tests/scripts/test_judge_command.py",
    r"--from-file|--input_path outputs/": "it goes on with what the command before it printed",
}  # fmt: skip
NO_PROGRAM = {  # lines that are not commands of this project's Python
    r"make |source |pip |pre-commit ": "setting up; tests/test_package.py installs",
    r"tail ": "a tool of the system",
    r"ldm-": "an installed command; tests/test_package.py",
    r"torchrun ": "several processes; tests/workflows/test_run_styleid.py, tests/training/test_resume.py",
    r"python -m pytest|pytest ": "these tests",
    r"run=|\$run|until |sleep |python - <<|from ldm|a, b =|print\(|END$|lightning\.":
        "a script; tests/training/test_resume.py",
    r"python main.py \.\.\.|.* \.\.\.$": "a part of a command",
    r"photo\.jpg  ": "names of files",
    r"(checkpoints|embeddings|caches|headers|pictures|masks|yamls|prompts|csv|json) +\d+ read|\d+ mutations": "output",
    r"[\w./]+(, [\w./]+)* {2,}\S": "a map of the code",
}  # fmt: skip


def blocks(page: Path, *kinds: str) -> Iterator[str]:
    """The blocks of a page between fences, of some languages."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    yield from (block for kind, block in fenced if kind in kinds)


def lines_of(page: Path) -> Iterator[str]:
    """The lines of the blocks of commands, continued ones joined, without remarks."""
    for block in blocks(page, "bash", ""):
        for line in re.sub(r" *\\\n *", " ", block).splitlines():
            line = re.sub(r"(^|\s+)# .*$", "", line).strip()
            if line:
                yield line


COMMANDS = sorted({line for page in PAGES for line in lines_of(page)})


def test_links_lead_somewhere() -> None:
    found = [(page, re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))) for page in PAGES]
    inside = [(page, target) for page, targets in found for target in targets if not target.startswith("http")]
    assert len(inside) > 100
    assert [f"{page}: {target}" for page, target in inside if not (page.parent / target).exists()] == []


def is_left_out(line: str) -> bool:
    return any(re.match(pattern, line) for pattern in NO_PROGRAM)


def rule_of(line: str) -> list[str] | str | None:
    """What makes it short, or why it is not run."""
    for run, short in RUN.items():
        if re.search(run, line):
            return short
    return next((why for pattern, why in PARSED.items() if re.search(pattern, line)), None)


def module_and_arguments(line: str) -> tuple[str, list[str]]:
    words = shlex.split(line.split(" > ")[0].split(" &")[0])
    while "=" in words[0]:
        words.pop(0)
    assert words.pop(0) == "python", line
    first = words.pop(0)
    module = words.pop(0) if first == "-m" else PROGRAMS.get(first, first)
    return module, words


def write_picture(path: Path, size: tuple[int, int] = (320, 400)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path.name))).integers(0, 255, (5, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the docs speak of."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("photo.jpg", "painting.jpg", "panorama.png", "photos/a.jpg", "paintings/b.jpg", "drawn.png",
                 "square.png", "frames/1.png", "frames/2.png"):  # fmt: skip
        write_picture(folder / name)
    write_film(read_film(folder / "frames"), folder / "film.mp4")
    for name, palette in (("labels", [0, 1, 2]), ("strokes", [0, 128, 255])):
        Image.fromarray(np.repeat(np.array(palette, np.uint8), 160)[None].repeat(400, 0)[:, 80:400]).save(
            folder / f"{name}.png"
        )
    Image.fromarray(np.repeat([[0] * 160 + [255] * 160], 400, axis=0).astype(np.uint8)).save(folder / "mask.png")
    colours = np.zeros((400, 320, 3), np.uint8)
    colours[:100], colours[100:200] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(colours).save(folder / "colours.png")
    for name, word in (("star.safetensors", "*"), ("a.safetensors", "*"), ("word.safetensors", "*"), ("a.pt", "*"),
                       ("b.pt", "*"), ("logs/2026-01-01T00-00-00_word/checkpoints/embeddings.safetensors", "*"),
                       ("logs/2026-01-01T00-00-00_example/checkpoints/embeddings.safetensors", "*")):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_embedding(folder / name, EmbeddingFile({word: torch.ones(1, 192)}))
    return folder


@pytest.fixture(scope="module")
def quick_model() -> Any:
    """The small model, which makes pictures in one step."""
    model, inference = open_model(device="cpu")
    model.origin = replace(model.origin, inference={**inference, "steps": 1})
    return model


@pytest.fixture
def here(place: Path, quick_model: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is ``place``, and the small model is opened once for all."""
    plain = studios.open_model

    def opened(ckpt: Any = None, *rest: Any, **more: Any) -> tuple[Any, dict[str, Any]]:
        return (quick_model, dict(quick_model.origin.inference)) if ckpt is None else plain(ckpt, *rest, **more)

    monkeypatch.setattr(studios, "open_model", opened)
    monkeypatch.chdir(place)
    for mask in place.glob("photo_mask*"):  # of the command before
        mask.unlink()
    return place


class ParsedError(Exception):
    """Raised in the place of the work that would follow."""


def taken_apart(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's own parser takes the arguments; nothing is done."""
    inside = []

    def stopping(plain: Callable[..., Any]) -> Callable[..., Any]:
        def stop(self: argparse.ArgumentParser, *rest: Any, **more: Any) -> Any:
            inside.append(plain)
            found = plain(self, *rest, **more)
            inside.pop()
            if inside:  # parse_args asks parse_known_args
                return found
            raise ParsedError

        return stop

    for name in ("parse_args", "parse_known_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, stopping(getattr(argparse.ArgumentParser, name)))
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(ParsedError):
        importlib.import_module(module).main()


@pytest.mark.parametrize("line", [line for line in COMMANDS if not is_left_out(line)])
def test_a_command_of_the_docs(
    line: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rule, (module, arguments) = rule_of(line), module_and_arguments(line)
    assert rule is not None, "neither run nor said why not: add it to RUN or PARSED"
    for name in arguments:
        if name.startswith(("configs/", "examples/", "models/ldm/tiny/")):
            assert here_or_shipped(name).exists(), name
    if module == "main.py":
        assert parse(arguments)
    elif isinstance(rule, str):
        taken_apart(module, arguments, monkeypatch)
    else:
        monkeypatch.setattr(sys, "argv", [module, *arguments, *rule])
        importlib.import_module(module).main()
        if module in PROGRAMS.values():
            assert re.search(r"(picture|film)(s are| is)", capsys.readouterr().out)


def test_rules_are_about_commands_that_there_are() -> None:
    for pattern in [*RUN, *PARSED]:
        assert any(re.search(pattern, line) for line in COMMANDS), pattern
    for pattern in NO_PROGRAM:
        assert any(re.match(pattern, line) for line in COMMANDS), pattern


SNIPPETS = {  # page -> why its Python is not run here
    "attention.md": "tests/control/test_docs.py",
    "checkpoints.md": "released weights are needed; tests/checkpoint",
    "server.md": "a server is needed; tests/web/test_server.py has one, and that client",
    "personalise.md": "a LoRA of the small model is needed; tests/additions",
}


def snippets(page: Path) -> str:
    return "\n".join(blocks(page, "python"))


def test_python_of_every_page_is_run_somewhere() -> None:
    ran = {"README.md", "sampling.md", "styleid.md", "look-inside.md"}
    assert {page.name for page in PAGES if snippets(page)} == ran | set(SNIPPETS)


@pytest.mark.parametrize("name", ["README.md", "docs/sampling.md"])
def test_python_of_a_page(name: str, here: Path) -> None:
    write_small_model(here / "small").rename(here / "model.ckpt")
    for file in ("config.yaml", "vocab.txt"):
        (here / "small" / file).replace(here / file)
    exec(compile(snippets(ROOT / name), name, "exec"), {})


def test_restyling_from_python(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first block; the second has the names of docs/attention.md, where it is run with them."""
    plain = StyleIDOptions.__init__
    quick = {"ddim_inv_steps": 1, "save_feat_steps": 1, "start_step": 1, "longest": 32, "progress": False}
    monkeypatch.setattr(StyleIDOptions, "__init__", lambda self, **said: plain(self, **{**said, **quick}))
    write_small_model(here / "other").replace(here / "model.ckpt")
    for name in ("config.yaml", "vocab.txt"):
        (here / "other" / name).replace(here / name)
    names: dict[str, Any] = {}
    exec(compile(next(blocks(ROOT / "docs/styleid.md", "python")), "docs/styleid.md", "exec"), names)
    assert [result.pair.name for result in names["results"]] == ["a_stylized_b"]


def test_reading_what_attention_was(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of the page, in two steps, and the Python that reads its file."""
    page = ROOT / "docs/look-inside.md"
    (line,) = [line for line in lines_of(page) if "--save" in line]
    module, arguments = module_and_arguments(line)
    monkeypatch.setattr(sys, "argv", [module, *arguments, "--steps", "2", "--longest", "64"])
    importlib.import_module(module).main()
    names: dict[str, Any] = {}
    exec(compile(snippets(page), page.name, "exec"), names)
    assert names["q"].dim() == 4 and torch.allclose(names["looks"].sum(dim=-1), torch.ones(()), atol=1e-2)
