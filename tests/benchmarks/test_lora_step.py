"""The benchmark of a LoRA's step compares like with like: the same loss and the same gradients of all layers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import lora_step, textual_inversion
from benchmarks.live_memory import LiveMemory
from benchmarks.lora_step_diffusers import DiffusersLora
from benchmarks.lora_step_ours import OurHeldLora, OurLora
from benchmarks.textual_inversion_common import SIZES, Draws
from benchmarks.textual_inversion_diffusers import write_weights
from tests import forked


def test_both_sides_do_the_same_work(tmp_path: Path) -> None:
    size, weights = SIZES["small_sd"], tmp_path / "weights.safetensors"
    write_weights(size, weights, torch.float32)
    dtype = lora_step.dtype_of(weights)
    ours, theirs = OurLora(size, weights, dtype), DiffusersLora(size, weights, dtype)
    assert [p.shape for p in ours.seconds] == [p.shape for p in theirs.seconds] and len(ours.seconds) == 128
    for number in (3, 4):  # the second step has factors that the first one moved
        our_loss, our_gradient = ours.step(Draws.of_step(number, size))
        their_loss, their_gradient = theirs.step(Draws.of_step(number, size))
        assert float(our_loss) == pytest.approx(float(their_loss), rel=2e-3)
        assert torch.cosine_similarity(our_gradient, their_gradient, dim=0) > 0.999
    moved = torch.cat([p.detach().flatten() for p in ours.seconds])
    assert torch.cosine_similarity(moved, torch.cat([p.detach().flatten() for p in theirs.seconds]), dim=0) > 0.98
    assert all(".factors." in f".{name}" for name, p in ours.model.named_parameters() if p.requires_grad)


@pytest.mark.slow
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textual_inversion, "subprocess", forked.as_subprocess())
    lora_step.main(["--parts", "small_sd", "--repeats", "1", "--threads", "1", "--offload", "--out", str(tmp_path)])
    (row,) = json.loads((tmp_path / "lora_step-bfloat16-offload.json").read_text())["rows"]
    assert row["time_ratio"] == pytest.approx(row["seconds"]["ours"] / row["seconds"]["diffusers"])
    assert row["gradient_cosine"] > 0.98


def test_weights_that_are_held_give_nearly_the_same_gradients(tmp_path: Path) -> None:
    size, weights = SIZES["small_sd"], tmp_path / "weights.safetensors"
    write_weights(size, weights, torch.float32)
    plain, held = OurLora(size, weights, torch.float32), OurHeldLora(size, weights, torch.float32)
    kinds = [p.dtype for p in held.model.model.parameters()]
    assert kinds.count(torch.bfloat16) > 100 and held.model.model.diffusion_model.dtype is torch.float32
    (_, expected), (_, found) = (side.step(Draws.of_step(3, size)) for side in (plain, held))
    assert 0.999 < torch.cosine_similarity(found, expected, dim=0) < 1 - 1e-7


def test_weights_in_a_file_give_the_same_gradients(tmp_path: Path) -> None:
    size, weights = SIZES["small_sd"], tmp_path / "weights.safetensors"
    write_weights(size, weights, torch.float32)
    plain, laid = OurLora(size, weights, torch.float32), OurLora(size, weights, torch.float32)
    before = laid.model.cond_stage_model.transformer.text_model.final_layer_norm.weight.data_ptr()
    laid.offload()
    assert before != laid.model.cond_stage_model.transformer.text_model.final_layer_norm.weight.data_ptr()
    (_, expected), (_, found) = (side.step(Draws.of_step(3, size)) for side in (plain, laid))
    assert torch.equal(found, expected)


def test_what_tensors_take_is_counted() -> None:
    with LiveMemory() as memory:
        kept = torch.zeros(3, 1000)
        assert (torch.ones(1000) + kept[0]).shape == (1000,)
    assert (memory.now, memory.peak) == (12000, 20000)


@pytest.mark.slow
def test_the_counting_command(capsys: pytest.CaptureFixture[str]) -> None:
    lora_step.main(["--parts", "small_sd", "--count"])
    rows = [line.rsplit(maxsplit=5) for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["float32, diffusers", "float32, ours", "float32, ours, held in bfloat16",
                                        "bfloat16, diffusers", "bfloat16, ours"]  # fmt: skip
    before, peak = ([float(row[i]) for row in rows] for i in (1, 3))
    assert before[0] == before[1] and before[3] == pytest.approx(before[0] / 2, rel=0.01)
    assert before[2] < 0.7 * before[0]
    assert all(one < other for one, other in zip(before, peak, strict=True))
