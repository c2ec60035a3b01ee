"""One sentence and exit code 2: odd YAMLs, odd values, odd paths, and a stranger's text in messages."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ldm.building.inference import inference_defaults
from ldm.util import ConfigError, UserError, instantiate_from_config, printable, read_yaml, run_command, writable_folder

ODD = {
    "a number": "3\n", "a date": "2020-01-01\n", "a boolean": "true\n", "a list": "- 1\n", "text": "hello\n",
    "brackets": "[" * 50_000, "maps": "{a: " * 2000 + "1" + "}" * 2000, "nested lists": "a: " + "[" * 2000 + "]" * 2000,
    "laughs": "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{c}, *{c}]\n" for c, n in pairwise("abcdefghijklmnopqrs")),
    "digits": "a: " + "9" * 12_000, "itself": "a: &x [*x]", "object": "a: !!python/object/apply:os.system [x]",
    "large": "a: " + "x" * (1 << 21), "set": "a: !!set {x}", "unhashable": "? [a, b]\n: 1", "half": "a: ${",
    "hexadecimal digits": "a: 0x" + "f" * 12_000,
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("named", [True, False])
def test_odd_yamls_end_with_one_sentence(name: str, named: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(ODD[name])
    with pytest.raises(ConfigError) as caught:
        read_yaml(path, named=named)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 1000


SMALL_UNET = {"target": "torch.nn.Identity"}


@pytest.mark.parametrize(
    ("params", "what"),
    [
        ({"timesteps": "many"}, "'timesteps' must be a whole number"),
        ({"timesteps": True}, "'timesteps' must be a whole number"),
        ({"timesteps": 1.5}, "'timesteps' must be a whole number"),
        ({"linear_start": "small"}, "'linear_start' must be a number"),
        ({"linear_start": [1]}, "'linear_start' must be a number"),
        ({"unet_config": 3}, "'unet_config' must be settings by name"),
        ({"image_size": {"a": 1}}, "'image_size' must be a whole number or a list"),
        ({"image_size": ["a"]}, "'image_size' must be a whole number or a list"),
        ({"use_ema": "perhaps"}, "'use_ema' must be true or false"),
        ({"beta_schedule": 3}, "'beta_schedule' must be text"),
        ({"given_betas": ["a"]}, "'given_betas' must be a list"),
        ({"timesteps": int("9" * 4000)}, r"\('timesteps'\) needs at least 1 step and at most"),
        ({"timesteps": 1_000_000_000}, r"\('timesteps'\) needs at least 1 step and at most"),
        ({"timesteps": 0}, r"\('timesteps'\) needs at least 1 step"),
        ({"linear_start": float("nan")}, "finite numbers"),
    ],
)
def test_values_of_a_wrong_type_are_named(params: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what) as caught:
        instantiate_from_config({"target": "ldm.models.diffusion.ddpm.DDPM",
                                 "params": {"unet_config": SMALL_UNET, **params}})  # fmt: skip
    assert "\n" not in str(caught.value)


def test_what_a_constructor_stumbles_over_is_one_sentence() -> None:
    cases: list[tuple[str, dict[str, Any]]] = [
        ("torch.nn.Linear", {"in_features": "a", "out_features": 3}),
        ("torch.nn.Conv2d", {"in_channels": -1, "out_channels": 2, "kernel_size": 1}),
    ]
    for target, params in cases:
        with pytest.raises(ConfigError, match="cannot be built from its parameters") as caught:
            instantiate_from_config({"target": target, "params": params})
        assert "\n" not in str(caught.value)
    for odd in (3, [1], "x", {1: 2}):
        with pytest.raises(ConfigError, match="needs 'params' by name"):
            instantiate_from_config({"target": "torch.nn.Identity", "params": odd})


def test_types_are_those_of_the_public_classes_too() -> None:
    with pytest.raises(ConfigError, match="'channels' must be a whole number"):
        instantiate_from_config(
            {"target": "ldm.models.diffusion.ddpm.DDPM", "params": {"unet_config": SMALL_UNET, "channels": "x"}}
        )


@pytest.mark.parametrize(
    "inference",
    [3, [1], "x", {"steps": "many"}, {"steps": None}, {"steps": 2.5}, {"guidance_scale": "high"}, {"sampler": 5},
     {"width": [64]}, {"guidance_scale": float("nan")}, {"height": True}],
)  # fmt: skip
def test_inference_values_of_a_wrong_type(inference: Any) -> None:
    with pytest.raises(ConfigError, match=r"inference"):
        inference_defaults({"inference": inference})
    assert inference_defaults({}) == {} and inference_defaults({"inference": {"steps": 5}}) == {"steps": 5}


def test_a_strangers_text_is_short_and_without_control_characters() -> None:
    text = "\x1b[31mred\x07\u202e\r\n\x00 " + "x" * 5000 + " '" + "a b " * 3000 + "'"
    for shown in (str(UserError(text)), printable(text)):
        assert shown.isprintable() and len(shown) < 1300 and "x" * 300 not in shown
    assert "\\x1b[31mred" in printable(text)
    assert printable("파란 원 '蓝色' é ok") == "파란 원 '蓝色' é ok"


def test_an_error_out_of_a_loader_process_is_its_sentence() -> None:
    text = (
        "Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File x\n"
        "ldm.building.errors.UserError: no such picture 'a: Error: b'\n"
    )
    assert str(UserError(text)) == "no such picture 'a: Error: b'"


LONG = "n" * 5000


@pytest.mark.parametrize(
    "use",
    [lambda: Path(LONG).stat(), lambda: Path(LONG).is_file(), lambda: Path(LONG).read_text(),
     lambda: Path("/dev/null/x").mkdir(), lambda: read_yaml(LONG)],
)  # fmt: skip
def test_impossible_paths_end_a_command_with_one_sentence(use: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(use)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.count("\n") == 1 and len(error) < 400 and "Traceback" not in error


def test_folders_that_cannot_be_written_are_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file/below/it", tmp_path / LONG, Path("a\0b")):
        with pytest.raises(UserError, match="--outdir"):
            writable_folder(path, "--outdir")
    assert writable_folder(tmp_path / "new/folder", "--outdir") == tmp_path / "new/folder"
    assert not (tmp_path / "new").exists()
