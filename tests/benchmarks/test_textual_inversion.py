"""The benchmark of textual inversion compares like with like: the same loss, gradient and learned vector."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import textual_inversion
from benchmarks.textual_inversion_common import PLACEHOLDER, SIZES, Draws, read_parts
from benchmarks.textual_inversion_diffusers import Diffusers, DiffusersInHalf, write_weights
from benchmarks.textual_inversion_ours import Ours
from tests import forked


@pytest.mark.parametrize(("name", "kind"), [("small_ldm", Diffusers), ("small_sd", DiffusersInHalf)])
def test_both_sides_do_the_same_work(name: str, kind: type[Diffusers], tmp_path: Path) -> None:
    size, weights = SIZES[name], tmp_path / "weights.safetensors"
    write_weights(size, weights)
    ours, theirs = Ours(size, weights), kind(size, weights)
    start = theirs.table[PLACEHOLDER].detach().clone()
    assert torch.equal(ours.vector[0], start)
    draws = Draws.of_step(3, size)
    our_loss, our_gradient = ours.step(draws)
    their_loss, their_gradient = theirs.step(draws)
    assert float(our_loss) == pytest.approx(float(their_loss), rel=0.01)
    assert torch.cosine_similarity(our_gradient, their_gradient, dim=0) > 0.99
    # AdamW's first step is the learning rate times the gradient's sign
    agree = torch.sign(ours.vector.detach()[0] - start) == torch.sign(theirs.table[PLACEHOLDER].detach() - start)
    assert agree.float().mean() > 0.9
    assert torch.equal(theirs.table[theirs.others], theirs.original[theirs.others])
    assert [name for name, p in ours.model.named_parameters() if p.requires_grad] == [
        "embedding_manager.string_to_param_dict.*"
    ]
    assert {p.dtype for p in ours.model.model.parameters()} == {torch.bfloat16}


def test_reading_leaves_no_part_of_the_file_in_memory(tmp_path: Path) -> None:
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("the system does not list what is mapped")
    write_weights(SIZES["small_sd"], tmp_path / "weights.safetensors")
    parts = read_parts(tmp_path / "weights.safetensors")
    assert all(parts.values())
    assert str(tmp_path) not in maps.read_text()


@pytest.mark.slow
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textual_inversion, "subprocess", forked.as_subprocess())
    textual_inversion.main(["--parts", "small_sd", "--repeats", "1", "--threads", "1", "--out", str(tmp_path)])
    (row,) = json.loads((tmp_path / "textual_inversion-recipe.json").read_text())["rows"]
    assert row["time_ratio"] == pytest.approx(row["seconds"]["ours"] / row["seconds"]["diffusers"])
    assert row["peak_ratio"] == pytest.approx(row["peak_mb"]["ours"] / row["peak_mb"]["diffusers"])
    assert row["gradient_cosine"] > 0.99
