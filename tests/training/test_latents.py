"""Latents that are encoded once give the losses of latents that are encoded at every step."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ldm.checkpoint import read_metadata
from ldm.data.reading import BatchReader
from ldm.training import latents
from ldm.training.latent_files import Latents, write_latents
from ldm.training.latents import LatentFile
from ldm.training.launch import main
from ldm.training.sampling import Position
from ldm.util import UserError
from tests.helpers import ROOT
from tests.training.toy import CountedPictures


class Renamed(CountedPictures):
    """Its captions are asked for at every visit."""

    def labels(self, index: int) -> dict[str, Any]:
        return {"caption": torch.full((8,), index)}


def train(folder: Path, *changes: str) -> list[float]:
    """Losses of two steps of a small latent diffusion model."""
    config = yaml.safe_load((ROOT / "tests/golden/ldm_full.yaml").read_text())
    node = {"target": "tests.training.toy.CountedPictures"}
    config["data"] = {
        "target": "main.DataModuleFromConfig",
        "params": {"batch_size": 4, "num_workers": 0, "train": node},
    }
    config["lightning"] = {
        "callbacks": {"image_logger": {"params": {"disabled": True}}},
        "trainer": {
            "accelerator": "cpu",
            "max_steps": 2,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    CountedPictures.reads = 0
    main(["-b", str(folder / "config.yaml"), "-t", "-l", str(folder), "-n", "run", *changes])
    *_, metrics = sorted(folder.glob("*/metrics/*/metrics.csv"))
    with metrics.open() as file:
        return [float(row["train/loss_step"]) for row in csv.DictReader(file) if row["train/loss_step"]]


def test_cached_latents_give_the_same_losses_and_read_no_pictures(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain")
    assert len(plain) == 2 and CountedPictures.reads >= 8
    file = tmp_path / "latents.safetensors"
    option = ["data.params.cache_latents=true"]
    cached = train(tmp_path / "cached", *option)
    torch.testing.assert_close(cached, plain, rtol=1e-3, atol=1e-3)  # moments are kept in half precision
    assert train(tmp_path / "workers", *option, "data.params.num_workers=2") == cached

    assert train(tmp_path / "written", *option, f"data.params.cache_file={file}") == cached
    before = file.stat()
    assert train(tmp_path / "read", *option, f"data.params.cache_file={file}") == cached
    assert file.stat().st_mtime_ns == before.st_mtime_ns, "a file that fits is not made again"


def test_a_file_made_from_other_pictures_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    option = ["data.params.cache_latents=true", f"data.params.cache_file={tmp_path}/latents.safetensors"]
    train(tmp_path / "a", *option)
    other = train(tmp_path / "b", *option, "data.params.train.params.brightness=0.5")
    assert "encoding again" in caplog.text
    assert other == train(tmp_path / "c", "data.params.cache_latents=true", "data.params.train.params.brightness=0.5")


def cache_of(data: Any, seen: list[int] | None = None) -> latents.CachedItems:
    """A cache whose moments are the mean of a picture's channels; ``seen`` gets the sizes of what is encoded."""

    def encode(pictures: torch.Tensor) -> torch.Tensor:
        if seen is not None:
            seen.append(len(pictures))
        return pictures.movedim(-1, 1).mean((2, 3), keepdim=True).half()

    return latents.CachedItems(data, encode, "image")


def visit(cache: latents.CachedItems, *indices: int, epoch: int = 0) -> dict[str, Any]:
    """A batch as a loader reads it and the data module finishes it."""
    read = cache.items(Position()).__getitems__([(index, epoch) for index in indices])
    return cache.finish(latents.Unfinished(read), torch.device("cpu"))


class Named(CountedPictures):
    """Its items hold text besides the picture."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": super().__getitem__(index)["image"], "name": f"{index}"}


def test_pictures_are_encoded_when_they_are_first_needed_and_once() -> None:
    seen: list[int] = []
    data = Named()
    cache = cache_of(data, seen)
    Named.reads = 0
    first = visit(cache, 3, 1, 9)  # 9 is the same picture as 3
    assert seen == [2] and Named.reads == 3 and cache.known.sum() == 3
    again = visit(cache, 9, 3, 1)
    assert seen == [2] and Named.reads == 3, "neither read nor encoded again"
    assert torch.equal(again["moments"], first["moments"][[2, 0, 1]]) and again["name"] == ["9", "3", "1"]
    assert torch.equal(first["moments"][0], data[3]["image"].movedim(-1, 0).mean((1, 2), keepdim=True).half())
    visit(cache, 3, 4)
    assert seen == [2, 2], "one picture goes with itself: alone its last bits would be others"


def test_what_changes_from_visit_to_visit_is_asked_for() -> None:
    cache = cache_of(Renamed())
    visit(cache, 7)
    Renamed.reads = 0
    assert visit(cache, 7, epoch=1)["caption"].tolist() == [[7] * 8] and Renamed.reads == 0
    tensors = cache_of(CountedPictures())  # its captions are tensors, which are not kept
    visit(tensors, 7)
    assert set(visit(tensors, 7)) == {"caption", "name", "moments"}


def test_a_run_that_ends_early_leaves_what_it_has_encoded(tmp_path: Path) -> None:
    seen: list[int] = []
    path = tmp_path / "latents.safetensors"
    cache = cache_of(Named(), seen)
    file = LatentFile(cache, path, "key")
    expected = visit(cache, 2, 5)
    file.write_if_due()
    assert not path.exists(), "two items are too few to write a file for"
    file.write()
    again = cache_of(Named(), seen)
    LatentFile(again, path, "key")
    assert again.known.nonzero().flatten().tolist() == [2, 5]
    assert torch.equal(visit(again, 2, 5)["moments"], expected["moments"]) and seen == [2]
    visit(again, 8)  # the same picture as 2
    assert seen == [2]


def test_processes_share_their_files(tmp_path: Path) -> None:
    path = tmp_path / "latents.safetensors"
    for rank, indices in enumerate([(0, 1), (2, 3)]):
        cache = cache_of(Named())
        file = LatentFile(cache, path, "key", rank)
        visit(cache, *indices)
        file.write()
    both = cache_of(Named())
    LatentFile(both, path, "key")
    assert both.known.nonzero().flatten().tolist() == [0, 1, 2, 3]
    other = cache_of(Named())
    LatentFile(other, path, "another key")
    assert not other.known.any()


def test_a_complete_file_of_an_earlier_version_is_taken_whole(tmp_path: Path) -> None:
    moments = torch.randn(6, 3, 1, 1).half()
    fields: Any = [{"name": f"old {index}"} for index in range(12)]
    write_latents(Latents(moments, torch.arange(12) % 6, fields), tmp_path / "x.safetensors", "key")
    assert read_metadata(tmp_path / "x.safetensors")["made_from"] == "key"
    cache = cache_of(Named())
    Named.reads = 0
    LatentFile(cache, tmp_path / "x.safetensors", "key")
    batch = visit(cache, 7, 0)
    assert torch.equal(batch["moments"], moments[[1, 0]]) and batch["name"] == ["old 7", "old 0"]
    assert Named.reads == 0


def test_a_full_disk_costs_the_file_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise UserError("no space left")

    monkeypatch.setattr(latents, "write_latents", full)
    cache = cache_of(Named())
    file = LatentFile(cache, tmp_path / "x.safetensors", "key")
    visit(cache, 0)
    file.write()
    assert "encoded pictures are not kept for later runs: no space left" in caplog.text


class ManyNames(Renamed):
    """Captions of a whole batch at once."""

    calls = 0

    def labels_of(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        ManyNames.calls += 1
        return [self.labels(index) for index in indices]


def test_captions_of_a_batch_are_asked_for_at_once() -> None:
    position = Position(1)
    cache = latents.CachedItems(ManyNames(), lambda pictures: pictures.mean((1, 2)).half(), "image")
    items = cache.items(position).__getitems__([(7, 0), (2, 0)])
    assert ManyNames.calls == 1
    assert [item.fields["caption"][0].item() for item in items if item.fields] == [7, 2]
    one_by_one = latents.CachedItems(Renamed(), cache.encode, "image").items(position).visits.data
    assert not isinstance(one_by_one, BatchReader), "where each item's draws are its own, they stay so"


def test_a_model_without_an_autoencoder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'ToyModel' has no first stage"):
        train(
            tmp_path, "data.params.cache_latents=true", "model.target=tests.training.toy.ToyModel", "model.params=null"
        )
