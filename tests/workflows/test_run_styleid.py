"""run_styleid.py as it is typed: old command lines, no arguments, errors, two processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ldm.commands import styleid
from ldm.pictures.sizing import sizing_for
from ldm.util import UserError
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.results import Result
from tests import forked
from tests.training.two_processes import torchrun
from tests.workflows.small_model import write_small_model

QUICK = ["--ddim_inv_steps", "2", "--save_feat_steps", "2"]


def parsed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> StyleIDOptions:
    """The options that the command makes of its arguments."""
    seen: list[StyleIDOptions] = []

    def note(options: StyleIDOptions, model: Any = None) -> list[Result]:
        seen.append(options)
        return []

    monkeypatch.setattr("ldm.workflows.restyle.styleid.styleid", note)
    monkeypatch.setattr(sys, "argv", ["run_styleid.py", *arguments])
    styleid.main()
    return seen[0]


def test_an_old_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    line = (
        "--cnt data/cnt --sty data/sty --gamma 0.75 --T 1.5 --attn_layer 6,7,8,9,10,11 --ddim_inv_steps 50 "
        "--save_feat_steps 50 --start_step 49 --ddim_eta 0.0 --H 512 --W 512 --C 4 --f 8 --precomputed feats "
        "--model_config v1-inference.yaml --ckpt model.ckpt --precision full --output_path out "
        "--without_init_adain --without_attn_injection"
    )
    options = parsed(monkeypatch, *line.split())
    assert options == StyleIDOptions(
        cnt="data/cnt", sty="data/sty", gamma=0.75, T=1.5, attn_layer="6,7,8,9,10,11", ddim_inv_steps=50,
        save_feat_steps=50, start_step=49, ddim_eta=0.0, H=512, W=512, precomputed="feats",
        model_config="v1-inference.yaml", ckpt="model.ckpt", precision="full", output_path="out",
        without_init_adain=True, without_attn_injection=True,
    )  # fmt: skip

    class Model:
        class first_stage_model:  # noqa: N801
            factor = 8

    sizing = sizing_for(Model(), options.H, options.W, options.crop)
    assert sizing(Image.new("RGB", (700, 400))).size == (512, 512)


def test_no_arguments_mean_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed(monkeypatch) == StyleIDOptions()


@pytest.mark.parametrize(
    ("line", "masks"),
    [
        ("--mask", None),
        ("--no_masks", ["none"]),
        ("--masks a.npy b.npy", ["a.npy", "b.npy"]),
        ("--mask a.npy,b.npy", ["a.npy", "b.npy"]),
    ],
)
def test_masks_on_the_command_line(monkeypatch: pytest.MonkeyPatch, line: str, masks: list[str] | None) -> None:
    assert parsed(monkeypatch, *line.split()).masks == masks


@pytest.mark.parametrize("line", [("--boxes", "cat: 0 0 1 1"), ("--excite",), ("--edit", "a dog")])
def test_guidance_by_attention_is_of_another_command(monkeypatch: pytest.MonkeyPatch, line: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=rf"{line[0]} is for what txt2img\.py makes: .* name that by --cnt"):
        parsed(monkeypatch, "--cnt_prompt", "a cat", *line)


def test_the_small_model_on_the_samples(tmp_path: Path) -> None:
    done = forked.run(
        "run_styleid.py", *QUICK, "--longest", 64, "--output_path", tmp_path / "out", "--precomputed", "",
        "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = {f"{c}_stylized_{s}" for c in ("astronaut", "cat") for s in ("retina", "shapes", "tissue")}
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == names | {"contact_sheet"}
    assert Image.open(tmp_path / "out" / "cat_stylized_shapes.png").size == (64, 40)
    assert done.stdout.strip() == f"6 pictures are in {tmp_path / 'out'}"
    assert "6 made, 0 skipped" in done.stderr and "peak memory" in done.stderr


def test_bad_input_ends_with_one_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.jpg"
    done = forked.run("run_styleid.py", "--cnt", missing, "--sty", tmp_path, "--output_path", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no content") and done.stderr.count("\n") == 1


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    ckpt = write_small_model(tmp_path / "small")
    rng = np.random.default_rng(0)
    for name in ("cnt/a.png", "cnt/b.png", "cnt/c.png", "sty/s.png", "sty/t.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(tmp_path / name)
    arguments = [
        "--cnt", tmp_path / "cnt", "--sty", tmp_path / "sty", "--ckpt", ckpt, "--device", "cpu", *QUICK,
        "--output_path", tmp_path / "out", "--precomputed", tmp_path / "cache",
    ]  # fmt: skip
    for process in [forked.start("run_styleid.py", *arguments, environment=torchrun(rank)) for rank in range(2)]:
        _, said = process.communicate()
        assert process.returncode == 0 and "3 made, 0 skipped" in said, said
    out = tmp_path / "out"
    assert len(list(out.glob("*_stylized_*.png"))) == len(list(out.glob("*.json"))) == 6

    alone = forked.run(
        "run_styleid.py", *arguments, "--output_path", tmp_path / "alone", environment={"RANK": "1", "WORLD_SIZE": "2"}
    )
    assert alone.returncode == 0, alone.stderr
    made = sorted((tmp_path / "alone").glob("*_stylized_*.png"))
    assert [path.stem for path in made] == ["a_stylized_t", "b_stylized_s", "c_stylized_t"]
    assert all(np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(out / path.name))) for path in made)
    record = json.loads((out / made[0].with_suffix(".json").name).read_text())
    assert record["parameters"]["ddim_inv_steps"] == 2
