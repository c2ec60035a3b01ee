"""``latest`` and ``latest:NAME`` wherever a file of a run is asked for."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from ldm.checkpoint import EmbeddingFile, read_embeddings, write_embedding
from ldm.checkpoint.embedding_sources import parse_source
from ldm.runs import LAST, WORDS, given_or_latest, runs
from ldm.training.run_folder import choose_run_folder
from ldm.util import UserError
from ldm.workflows.files import find_model
from tests.workflows.small_model import write_small_model


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs of two names, the oldest of which was touched last, and things that are no runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("2026-03-01T00-00-00_star", "2026-02-01T00-00-00_cat", "2026-01-01T00-00-00_star"):
        (tmp_path / "logs" / name / "checkpoints").mkdir(parents=True)
    (tmp_path / "logs" / "2027-01-01T00-00-00_file").write_text("")
    (tmp_path / "logs" / "other").mkdir()
    return tmp_path / "logs"


def words(logs: Path, run: str, placeholder: str = "*") -> Path:
    path = logs / run / "checkpoints/embeddings.safetensors"
    write_embedding(path, EmbeddingFile({placeholder: torch.ones(1, 4)}))
    return path.relative_to(logs.parent)


def test_the_newest_run_is_known_by_its_date(logs: Path) -> None:
    assert [path.name[:7] for path in runs(logs)] == ["2026-03", "2026-02", "2026-01"]
    assert [path.name[:7] for path in runs(logs, "star")] == ["2026-03", "2026-01"]
    assert [path.name[:7] for path in runs(logs, "c*")] == ["2026-02"]
    (logs / "pictures_2026-04-01T00-00-00_star-2").mkdir()  # --datadir_in_name, and a second run of one second
    assert runs(logs, "star")[0].name == "pictures_2026-04-01T00-00-00_star-2"


def test_a_run_counts_if_it_has_what_is_asked_for(logs: Path) -> None:
    old, cat = words(logs, "2026-01-01T00-00-00_star"), words(logs, "2026-02-01T00-00-00_cat")
    assert given_or_latest("latest", WORDS) == cat and given_or_latest("latest:star", WORDS) == old
    with pytest.raises(UserError, match=r"'latest:dog': no run called 'dog' in 'logs' has checkpoints/embeddings"):
        given_or_latest("latest:dog", WORDS)
    with pytest.raises(UserError, match=r"'latest': no run in 'logs' has checkpoints/last\.ckpt"):
        given_or_latest("latest")


def test_a_file_of_that_name_is_itself(logs: Path) -> None:
    words(logs, "2026-02-01T00-00-00_cat")
    Path("latest").write_text("")
    assert given_or_latest("latest", WORDS) == Path("latest")
    assert given_or_latest("a/file", WORDS) == Path("a/file")


def test_learned_words_are_found_and_renamed(logs: Path) -> None:
    cat = words(logs, "2026-02-01T00-00-00_cat")
    star = words(logs, "2026-03-01T00-00-00_star")
    assert parse_source("latest:cat=<cat>").names == {"": "<cat>"} and parse_source("latest:cat=<cat>").path == cat
    files = read_embeddings(["latest", "latest:cat=@"])
    assert {path: list(file.vectors) for path, file in files.items()} == {star: ["*"], cat: ["@"]}


def test_a_run_is_resumed(logs: Path) -> None:
    torch.save({"state_dict": {}, "global_step": 1, "pytorch-lightning_version": "2"},
               logs / "2026-02-01T00-00-00_cat" / LAST[0])  # fmt: skip
    options = argparse.Namespace(resume="latest", name="", logdir="logs")
    assert choose_run_folder(options).path == logs / "2026-02-01T00-00-00_cat"
    options.resume = "latest:star"
    with pytest.raises(UserError, match="no run called 'star'"):
        choose_run_folder(options)


def test_a_model_is_opened_with_the_yaml_that_its_run_kept(logs: Path) -> None:
    small = write_small_model(logs.parent / "small")
    run = logs / "2026-03-01T00-00-00_star"
    shutil.copy(small, run / LAST[0])
    with pytest.raises(UserError, match="has kept no configuration"):
        find_model("latest", None)
    (run / "configs").mkdir()
    kept = OmegaConf.load(small.parent / "config.yaml")
    kept.inference.steps = 3
    OmegaConf.save(kept, run / "configs/2026-03-01T00-00-00-project.yaml")
    ckpt, document = find_model("latest:star", None)
    assert ckpt == (run / LAST[0]).relative_to(logs.parent) and document.inference.steps == 3
