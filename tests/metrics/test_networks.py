"""Weight files of measures: where they are found, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ldm.metrics.intervals import bootstrap, jackknife, leave_out
from ldm.metrics.networks import NETWORKS, Network, file_hash, find_weights, load_network
from ldm.metrics.towers import alexnet, vgg16
from ldm.util import MissingPartError, UserError
from tests.metrics.drawn import drawn, write_networks


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def test_a_file_is_found_loaded_and_its_hash_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_networks(tmp_path / "w", "alexnet")
    path = tmp_path / "w" / NETWORKS["alexnet"].file.saved_as
    with pytest.raises(UserError, match="not 7be5be79; numbers of other weights do not compare"):
        find_weights("alexnet", tmp_path / "w")
    assert find_weights("alexnet", tmp_path / "w", any_weights=True).released is False
    monkeypatch.setattr(Network, "sha256", file_hash(path)[:8])
    found = find_weights("alexnet", tmp_path / "w")
    assert found.released and found.path == path
    tower = alexnet()
    load_network(tower, "alexnet", found)
    assert torch.equal(tower.state_dict()["features.3.weight"], drawn(alexnet())["features.3.weight"])
    assert not tower.training and not any(weight.requires_grad for weight in tower.parameters())


def test_torchs_cache_is_looked_at_and_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match=r"there is no '.*vgg19-dcbb9e9d.pth'; .*scripts.download cfsd-vgg19'"):
        find_weights("vgg19", tmp_path)
    write_networks(tmp_path / "torch" / "hub" / "checkpoints", "vgg19")
    assert find_weights("vgg19", tmp_path, any_weights=True).path.parent.name == "checkpoints"


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(drawn(alexnet()), tmp_path / NETWORKS["vgg16"].file.saved_as)
    found = find_weights("vgg16", tmp_path, any_weights=True)
    with pytest.raises(UserError, match=r"vgg16-397923af.pth"):
        load_network(vgg16(), "vgg16", found)


def test_hashes_of_the_table_and_of_names_agree() -> None:
    for network in NETWORKS.values():
        stem = network.file.saved_as.removesuffix(".pth").rsplit("-", 1)[-1]
        assert network.sha256.startswith(stem if len(stem) == 8 else "")
    assert NETWORKS["alexnet"].sha256 == "7be5be79"  # the table has none


def test_the_art_network_has_no_published_hash(tmp_path: Path) -> None:
    (tmp_path / "art_inception.pth").write_bytes(b"weights")
    assert find_weights("art_inception", tmp_path).released is None


def test_intervals() -> None:
    torch.manual_seed(0)
    values = torch.randn(400, dtype=torch.float64)
    error = float(values.std()) / 20
    low, high = bootstrap(values)
    assert low == pytest.approx(float(values.mean()) - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(float(values.mean()) + 1.96 * error, abs=0.2 * error)
    few = values[:10]  # left out one by one, the jackknife of a mean is its usual standard error
    kept = leave_out(10)
    assert sorted(len(rows) for rows in kept) == [9] * 10
    low, high = jackknife(float(few.mean()), [float(few[rows].mean()) for rows in kept])
    assert (high - low) / 2 == pytest.approx(1.96 * float(few.std()) / 10**0.5, rel=1e-4)
