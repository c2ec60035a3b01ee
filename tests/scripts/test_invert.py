"""scripts/invert.py: what it writes is what run_styleid.py uses, and old feature files become such files."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.control import FeatureStore
from ldm.util import UserError
from ldm.workflows.inversion.invert import Inversion
from ldm.workflows.models import open_model
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.styleid import styleid
from scripts import invert
from tests.workflows.small_model import write_small_model

STEPS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, a content and a style."""
    folder = tmp_path_factory.mktemp("invert")
    write_small_model(folder / "model")
    for name, seed in (("photo", 0), ("art", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: object) -> None:
    usual = ["--ckpt", folder / "model" / "model.safetensors", "--ddim_inv_steps", STEPS, "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["invert", *map(str, [*usual, *arguments])])
    invert.main()


def restyle(folder: Path, out: Path, **options: Any) -> np.ndarray:
    (result,) = styleid(
        StyleIDOptions(
            cnt=str(folder / "photo.png"), sty=str(folder / "art.png"), output_path=str(out), device="cpu",
            ckpt=str(folder / "model" / "model.safetensors"), ddim_inv_steps=STEPS, save_feat_steps=STEPS,
            no_sheet=True, progress=False, **options,
        )
    )  # fmt: skip
    return np.asarray(Image.open(result.path))


@pytest.mark.parametrize("features", ["replay", "disk"])
def test_restyling_finds_the_inversions(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, features: str
) -> None:
    kept = tmp_path / "kept"
    both = ("--cnt", folder / "photo.png", "--sty", folder / "art.png", "--precomputed", kept)
    run(monkeypatch, folder, *both, "--features", features)
    assert len(list(kept.glob("*_latents.safetensors"))) == 2
    assert len(list(kept.glob("*_features.safetensors"))) == (2 if features == "disk" else 0)
    with caplog.at_level("INFO"):
        found = restyle(folder, tmp_path / "a", precomputed=str(kept), features=features)
    assert "inverted: 0, read from inversions that were kept: 2" in caplog.text and "again" not in caplog.text
    again = {"features": "replay"} if features == "replay" else {}
    assert np.array_equal(found, restyle(folder, tmp_path / "b", precomputed="", **again))


def old_file(folder: Path, kept: Path, path: Path, style: str) -> None:
    """The features of an inversion as the original wrote them."""
    inversion = Inversion.load(next(kept.glob("photo_*_latents.safetensors")))
    store = FeatureStore.load(next(kept.glob("photo_*_features.safetensors")))
    entries: list[dict[str, Any]] = []
    for index in sorted(inversion.visited):
        after = inversion.visited.get(index - 1, inversion.noise)
        entry: dict[str, Any] = {"config": {"gamma": 0.75, "T": 1.5}, "z_enc": after}
        for site, level, name in store:
            if level == index:
                entry[style.format(site.split(".")[1], name)] = store.get(site, index, name)[0].clone()
        entries.append(entry)
    path.write_bytes(pickle.dumps(entries))


@pytest.mark.parametrize("style", ["output_block_{}_self_attn_{}", "layer{}_{}"])
def test_an_old_file(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, style: str
) -> None:
    kept, taken = tmp_path / "kept", tmp_path / "taken"
    photo = ("--cnt", folder / "photo.png")
    run(monkeypatch, folder, *photo, "--features", "disk", "--precomputed", kept)
    old_file(folder, kept, tmp_path / "photo_cnt.pkl", style)
    run(monkeypatch, folder, *photo, "--import", tmp_path / "photo_cnt.pkl", "--precomputed", taken)
    assert sorted(p.name for p in taken.iterdir()) == sorted(p.name for p in kept.iterdir())
    before, after = (FeatureStore.load(next(f.glob("*_features.safetensors"))) for f in (kept, taken))
    assert set(before) == set(after) and before.metadata == after.metadata
    assert all(torch.equal(before.get(*key), after.get(*key)) for key in before)
    with caplog.at_level("INFO"):
        found = restyle(folder, tmp_path / "a", precomputed=str(taken), features="disk")
    assert "inverted: 1, read from inversions that were kept: 1" in caplog.text and "again" not in caplog.text
    assert np.array_equal(found, restyle(folder, tmp_path / "b", precomputed=""))


def test_old_files_that_do_not_fit(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    photo = ("--cnt", folder / "photo.png")
    run(monkeypatch, folder, *photo, "--features", "disk", "--precomputed", kept)
    path = tmp_path / "old.pkl"
    old_file(folder, kept, path, "layer{}_{}")

    def refused(message: str, *arguments: object) -> None:
        with pytest.raises(UserError, match=message):
            run(monkeypatch, folder, *(arguments or photo), "--import", path, "--precomputed", tmp_path / "none")
        assert not (tmp_path / "none").exists()

    refused("of another picture", "--cnt", folder / "art.png")
    refused("--crop may be missing", *photo, "--longest", 16)
    refused("add --ddim_inv_steps 4", *photo, "--ddim_inv_steps", 8)
    refused("needs the one picture", "--cnt", folder / "photo.png", "--sty", folder / "art.png")

    entries = pickle.loads(path.read_bytes())
    shuffled = [{k: v.flip(0) if k.endswith("_q") else v for k, v in entry.items()} for entry in entries]
    path.write_bytes(pickle.dumps(shuffled))
    refused("made by another model: its q of 'output_blocks")
    path.write_bytes(pickle.dumps([{"z_enc": entry["z_enc"]} for entry in entries]))
    refused("holds no features")
    path.write_bytes(pickle.dumps([{**entry, "z_enc": None} for entry in entries]))
    refused("has no latent 'z_enc'")
    path.write_bytes(pickle.dumps({"a": torch.zeros(1)}))
    refused("a list of dictionaries")


def test_nothing_in_an_old_file_is_executed(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    class Mischief:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "harm",)

    (tmp_path / "old.pkl").write_bytes(pickle.dumps([{"z_enc": Mischief()}]))
    with pytest.raises(UserError):
        run(monkeypatch, folder, "--cnt", folder / "photo.png", "--import", tmp_path / "old.pkl",
            "--precomputed", tmp_path / "none")  # fmt: skip
    assert not (tmp_path / "harm").exists()


def test_pictures_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(UserError, match="none of the pictures can be read"):
        run(monkeypatch, folder, "--cnt", tmp_path / "bad.png", "--precomputed", tmp_path / "kept")
    with pytest.raises(UserError, match="there is no style 'nowhere'"):
        run(monkeypatch, folder, "--sty", "nowhere")


def test_without_names_the_samples_are_inverted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["invert", "--ddim_inv_steps", "2", "--longest", "64", "--precomputed", str(tmp_path), "--batch", "2"]
    monkeypatch.setattr(sys, "argv", arguments)
    invert.main()
    assert "5 pictures: 5 inverted" in capsys.readouterr().out
    model, _ = open_model(device="cpu")
    inversion = Inversion.load(next(tmp_path.glob("cat_*_latents*.safetensors")))
    assert inversion.noise.shape == (1, model.channels, 5, 8)
