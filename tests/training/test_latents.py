"""Latents that are encoded once give the losses of latents that are encoded at every step."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ldm.training import latents
from ldm.training.launch import main
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


class Encoder:
    """Stands for a model: moments are the picture's mean."""

    first_stage_key = "image"
    seen = 0

    def encode_first_stage(self, x: torch.Tensor) -> Any:
        self.seen += len(x)
        return type("Posterior", (), {"parameters": x.mean((2, 3), keepdim=True)})


def test_the_same_picture_is_encoded_once() -> None:
    data, model = CountedPictures(), Encoder()
    batches = [[data[i] for i in range(k, k + 4)] for k in (0, 4, 8)]
    found = latents.encode_pictures(batches, model, torch.device("cpu"), "fp32")
    assert model.seen == 6
    assert found.moments.shape == (6, 3, 1, 1) and found.moments.dtype == torch.float16
    assert found.which.tolist() == [0, 1, 2, 3, 4, 5] * 2
    assert found.fields is None, "tensors are not kept, the data set is asked for them"


def test_what_changes_from_visit_to_visit_is_asked_for() -> None:
    stored = latents.Latents(torch.zeros(6, 2, 1, 1), torch.arange(12) % 6, [{"caption": "old"}] * 12)
    item = latents.CachedItems(Renamed(), stored, "image")[7]
    assert item["caption"].tolist() == [7] * 8
    assert latents.CachedItems(CountedPictures(), stored, "image")[7]["caption"] == "old"
    unknown = latents.Latents(stored.moments, stored.which, None)
    item = latents.CachedItems(CountedPictures(), unknown, "image")[7]
    assert set(item) == {"caption", "name", "moments"}


def test_a_model_without_an_autoencoder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'ToyModel' has no first stage"):
        train(
            tmp_path, "data.params.cache_latents=true", "model.target=tests.training.toy.ToyModel", "model.params=null"
        )
