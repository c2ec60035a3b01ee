"""The command line as people type it, and what it makes of the configuration."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from ldm.training.config import apply_personalization, read_config
from ldm.training.options import parse
from ldm.training.run_folder import choose_run_folder, saved_configurations
from ldm.util import ConfigError, UserError
from tests.helpers import ROOT


def test_a_command_line_from_somebody_s_history() -> None:
    options, changes = parse(
        shlex.split(
            "--base a.yaml b.yaml -t -n cats --postfix _x -l out --gpus 0, --seed 5 --scale_lr False --no-test "
            "model.params.timesteps=10 --data.params.batch_size 2 --max_steps=7 --precision bf16 --fast_dev_run"
        )
    )
    assert options.base == ["a.yaml", "b.yaml"]
    assert (options.train, options.no_test, options.scale_lr, options.debug) == (True, True, False, False)
    assert (options.name, options.postfix, options.logdir, options.seed) == ("cats", "_x", "out", 5)
    config = read_config([], changes)
    assert config.model.params.timesteps == 10
    assert config.data.params.batch_size == 2
    assert dict(config.lightning.trainer) == {
        "gpus": "0,", "max_steps": 7, "precision": "bf16", "fast_dev_run": True
    }  # fmt: skip


def test_a_value_that_looks_like_a_change_is_a_value() -> None:
    options, changes = parse(shlex.split("-t --data_root my.pics=2024 -n run.a=1 --a.b c.d=2 x.y=3 -b a.yaml z.w=4"))
    assert (options.data_root, options.name, options.base) == ("my.pics=2024", "run.a=1", ["a.yaml"])
    assert changes == ["a.b=c.d=2", "x.y=3", "z.w=4"]
    config = read_config([], changes)
    assert config.a.b == "c.d=2" and config.x.y == 3


def test_defaults_are_those_of_old() -> None:
    options, changes = parse([])
    assert (options.train, options.seed, options.scale_lr, options.logdir) == (False, 23, True, "logs")
    assert changes == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--wrong", "1"], "no flag '--wrong'"),
        (["stray"], "'stray' is neither a flag nor a change"),
        (["--model.params.x"], "needs a value"),
        (["--model.params.x", "--max_steps", "1"], "'--model.params.x' needs a value"),
    ],
)
def test_a_wrong_flag_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(arguments)


def test_yamls_merge_left_to_right_then_changes(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("x: {a: 1, b: 1, c: 1}\ny: ${x.c}\n")
    (tmp_path / "b.yaml").write_text("x: {b: 2, c: 2}\n")
    config = read_config([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")], ["x.c=3"])
    assert OmegaConf.to_container(config) == {"x": {"a": 1, "b": 2, "c": 3}, "y": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "not readable as YAML"), ("- 1\n- 2\n", "is no configuration"), ("a: ${nowhere}\n", "do not fit")],
)
def test_a_broken_yaml_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_config([str(path)], [])
    assert "\n" not in str(error.value)


def test_a_change_of_a_section_that_nothing_reads_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: {target: x}\nmine: {size: 2}")
    read_config([str(tmp_path / "a.yaml")], ["mine.size=3", "lightning.trainer.max_steps=1"])
    with pytest.raises(ConfigError, match=r"has no section 'modle'; .*: model"):
        read_config([str(tmp_path / "a.yaml")], ["modle.params.x=1"])


def test_personalization_goes_where_textual_inversion_reads_it() -> None:
    config = OmegaConf.create(
        {
            "model": {"params": {"personalization_config": {"params": {"placeholder_strings": ["*"]}}}},
            "data": {"params": {"train": {"target": "t"}, "validation": {"target": "v"}}},
        }
    )
    flags = shlex.split("--data_root pics --init_word toy --placeholder_string @ --embedding_manager_ckpt e.pt")
    apply_personalization(config, parse(flags)[0])
    assert config.data.params.train.params.data_root == "pics"
    assert config.data.params.validation.params.data_root == "pics"
    assert OmegaConf.to_container(config.model.params.personalization_config.params) == {
        "placeholder_strings": ["@"], "initializer_words": ["toy"], "embedding_manager_ckpt": "e.pt",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], ["*"]),
        (["--placeholder_string", "<mill>"], ["<mill>"]),
        (["model.params.personalization_config.params.placeholder_strings=[a1,b2]"], ["a1", "b2"]),
        (["data.params.reg.params.placeholder_token=b2"], "b2"),
    ],
)
def test_what_is_around_a_word_says_the_words_that_learn(flags: list[str], said: list[str] | str) -> None:
    options, changes = parse(flags)
    config = read_config([str(ROOT / "configs/tiny/textual-inversion.yaml")], changes)
    apply_personalization(config, options)
    assert config.data.params.reg.params == {"size": 128, "two": 0.1, "placeholder_token": said}


def test_personalization_without_a_place_for_it_is_an_error() -> None:
    with pytest.raises(UserError, match="personalization_config"):
        apply_personalization(OmegaConf.create({"model": {}}), parse(["--init_word", "toy"])[0])


def test_run_folders_are_named_as_of_old(tmp_path: Path) -> None:
    named = choose_run_folder(parse(["-n", "cats", "--postfix", "_2", "-l", str(tmp_path)])[0])
    assert named.path.name == f"{named.now}_cats_2"
    assert not named.path.exists()
    plain = choose_run_folder(parse(["-b", "configs/tiny/ldm.yaml"])[0])
    assert plain.path.name == f"{plain.now}_ldm"
    front = choose_run_folder(parse(shlex.split("--data_root a/b -n n -f _3"))[0])
    assert front.path.name == f"b_{front.now}_n_3"
    without = choose_run_folder(parse(shlex.split("--data_root a/b --datadir_in_name false -n n"))[0])
    assert without.path.name == f"{without.now}_n"
    bare = choose_run_folder(parse(shlex.split("-b configs/tiny/ldm.yaml -t -n"))[0])
    assert bare.path.name == f"{bare.now}_ldm"


def test_resume_takes_a_folder_or_a_checkpoint_and_its_saved_configurations(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("configs/2-lightning.yaml", "configs/1-project.yaml", "checkpoints/last.ckpt", "checkpoints/b.ckpt"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).touch()
    for checkpoint in (run / "checkpoints").iterdir():
        torch.save({"pytorch-lightning_version": "2.6.6", "state_dict": {}, "global_step": 1, "loops": {}}, checkpoint)
    options = parse(["-r", str(run), "-b", "more.yaml"])[0]
    found = choose_run_folder(options)
    assert found.checkpoint == run / "checkpoints/last.ckpt"
    assert [Path(path).name for path in saved_configurations(options, found)] == ["1-project.yaml", "2-lightning.yaml"]
    assert choose_run_folder(parse(["-r", str(run / "checkpoints/b.ckpt")])[0]).path == run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-r", "nowhere"], "there is no 'nowhere'"),
        (["-r", "."], "holds no checkpoints/last.ckpt"),
        (["-r", ".", "-n", "x"], "exclude each other"),
    ],
)
def test_what_cannot_be_resumed_is_said(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_run_folder(parse(arguments)[0])
