"""The tools for LoRA files, as commands: merging, joining, extracting, inspecting, converting."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from ldm.additions.base import applied
from ldm.additions.lora.lora import Lora
from ldm.additions.lora.low_rank import nearest_pair
from ldm.additions.reading import read_additions
from ldm.checkpoint import read_embedding, read_metadata, read_state_dict, save_state_dict
from ldm.checkpoint.lora import read_lora
from ldm.util import UserError
from ldm.workflows import lora_spelling
from ldm.workflows.models import open_model
from scripts import convert_lora, inspect_lora, merge_lora
from tests.additions.lora.files import write_lora
from tests.additions.lora.networks import golden_networks
from tests.helpers import GOLDEN
from tests.workflows.small_model import write_small_model


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def model(ckpt: Path) -> Any:
    return open_model(ckpt, device="cpu")[0]


@pytest.fixture(scope="module")
def two(model: Any, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("loras")
    return [f"{write_lora(folder / 'a.safetensors', model, 1)}=0.8", write_lora(folder / "b.safetensors", model, 2)]


def run(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    module.main()


def state(model: Any, lora: str | list[str] | None = None) -> dict[str, torch.Tensor]:
    with applied(model, read_additions(model, lora=lora)):
        return {key: value.clone() for key, value in model.state_dict().items()}


def test_into_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, ckpt: Path, model: Any, two: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "merged.safetensors"
    run(monkeypatch, merge_lora, "--ckpt", ckpt, "--lora", *two, "--output", out)
    merged, expected = read_state_dict(out), state(model, two)
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[key], expected[key]) for key in expected)
    assert read_metadata(out)["loras"] == "a.safetensors=0.8, b.safetensors=1"


@pytest.mark.parametrize("spelling", ["kohya", "peft"])
def test_several_into_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ckpt: Path, model: Any, two: list[str],
    tmp_path: Path, spelling: str,
) -> None:  # fmt: skip
    """Two of rank 2 are one of rank 4, but for rounding; at rank 1 some of it is lost, and it is said how much."""
    out = tmp_path / "both.safetensors"
    command = ("--ckpt", ckpt, "--lora", *two, "--output", out, "--format", spelling, "--rank")
    run(monkeypatch, merge_lora, *command, 4)
    assert "100.00 % of the change" in capsys.readouterr().out
    one, both = state(model, str(out)), state(model, two)
    for key, value in both.items():
        torch.testing.assert_close(one[key], value, rtol=0, atol=1e-5)
    run(monkeypatch, merge_lora, *command, 1)
    assert "100.00 %" not in capsys.readouterr().out
    assert {parts["lora_down"].shape[0] for parts in read_lora(out).modules.values()} == {1}


def test_out_of_two_checkpoints(
    monkeypatch: pytest.MonkeyPatch, ckpt: Path, model: Any, two: list[str], tmp_path: Path
) -> None:
    tuned, out = tmp_path / "tuned.safetensors", tmp_path / "difference.safetensors"
    run(monkeypatch, merge_lora, "--ckpt", ckpt, "--lora", two[0], "--output", tuned)
    run(monkeypatch, merge_lora, "--ckpt", ckpt, "--tuned", tuned, "--rank", "2", "--output", out)
    expected = read_state_dict(tuned)
    for key, value in state(model, str(out)).items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-5)


def test_the_nearest_pair_is_that_of_the_singular_values() -> None:
    change = torch.randn(60, 12, 3, 3, generator=torch.Generator().manual_seed(0))
    up, down, share = nearest_pair(change, 5)
    assert up.shape == (60, 5, 1, 1) and down.shape == (5, 12, 3, 3)
    u, s, v = torch.linalg.svd(change.flatten(1).double(), full_matrices=False)
    best = (u[:, :5] * s[:5]) @ v[:5]
    found = (up.flatten(1) @ down.flatten(1)).double()
    assert (found - change.flatten(1)).norm() <= 1.02 * (best - change.flatten(1)).norm()
    assert share == pytest.approx(float((s[:5] ** 2).sum() / (s**2).sum()), rel=0.03)


def test_inspect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ckpt: Path, two: list[str]
) -> None:
    run(monkeypatch, inspect_lora, GOLDEN / "lora_dora.lora.safetensors")
    said = capsys.readouterr().out
    assert "kohya, float32" in said and "x DoRA on LoRA of rank 4, alpha 2" in said
    assert "ss_network_module: lycoris.kohya" in said and "context of width 24" in said
    run(monkeypatch, inspect_lora, GOLDEN / "lora_cloneofsimo.lora.safetensors")
    assert "word: '<s1>', 1 vector(s) of width 32" in capsys.readouterr().out
    run(monkeypatch, inspect_lora, two[1], "--ckpt", ckpt)
    said = capsys.readouterr().out
    assert "modules the model has" in said and "% of the weight: unet." in said


@pytest.mark.parametrize("name", ["kohya", "peft_metadata", "attn_procs", "cloneofsimo", "peft_dora", "dora", "lokr"])
@pytest.mark.parametrize("spelling", ["kohya", "peft"])
def test_convert(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, spelling: str
) -> None:
    """The same changes under other names; what PEFT has no name for is refused."""
    source, out = GOLDEN / f"lora_{name}.lora.safetensors", tmp_path / "new.safetensors"
    networks = golden_networks()
    monkeypatch.setattr(lora_spelling, "model_for", lambda file, config: networks)
    if name == "lokr" and spelling == "peft":
        with pytest.raises(UserError, match="for which PEFT has no name"):
            run(monkeypatch, convert_lora, source, "--output", out, "--format", spelling)
        assert not out.exists()
        return
    run(monkeypatch, convert_lora, source, "--output", out, "--format", spelling)
    assert read_lora(out).family == spelling
    before = {key: value.clone() for key, value in networks.state_dict().items()}
    found = []
    for path in (source, out):
        with applied(networks, [Lora.read(path, networks)]):
            found.append({key: value.clone() for key, value in networks.state_dict().items()})
    moved = [key for key in before if not torch.equal(found[0][key], before[key])]
    assert moved and all(torch.allclose(found[0][key], found[1][key], atol=1e-6) for key in before)
    if name == "cloneofsimo":
        assert list(read_embedding(tmp_path / "new_emb.safetensors").vectors) == ["<s1>"]


def test_the_newest_run_s_file_is_inspected_and_converted(
    model: Any, two: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "logs/2026-01-01T00-00-00_style/checkpoints/lora.safetensors"
    made.parent.mkdir(parents=True)
    made.write_bytes(Path(two[0].partition("=")[0]).read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lora_spelling, "model_for", lambda file, config: model)
    run(monkeypatch, inspect_lora, "latest:style")
    assert "checkpoints/lora.safetensors: " in capsys.readouterr().out
    run(monkeypatch, convert_lora, "latest:style", "--format", "peft", "--out", "d.safetensors")
    assert read_lora(tmp_path / "d.safetensors").modules


def test_the_model_of_a_file_is_told_by_its_context(tmp_path: Path) -> None:
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    save_state_dict(
        {f"{key}.lora_up.weight": torch.ones(320, 1), f"{key}.lora_down.weight": torch.ones(1, 768)}, tmp_path / "v1.pt"
    )
    file = read_lora(tmp_path / "v1.pt")
    (module,) = lora_spelling.converted(file, lora_spelling.model_for(file, None))
    assert module.name == "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    with pytest.raises(UserError, match="cannot be told which model"):
        lora_spelling.model_for(read_lora(GOLDEN / "lora_kohya.lora.safetensors"), None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --lora"),
        (["--tuned", "CKPT"], "needs --rank"),
        (["--lora", "LORA", "--rank", "0"], "--rank must be at least 1"),
        (["--tuned", "CKPT", "--rank", "2"], "no weight of a layer differs"),
        (["--lora", "LORA", "--output", "CKPT"], "is one of the files that are read"),
    ],
)
def test_what_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, ckpt: Path, two: list[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "out.safetensors"
    names = {"CKPT": str(ckpt), "LORA": two[1]}
    given = [names.get(text, text) for text in arguments]
    with pytest.raises(UserError, match=message):
        run(monkeypatch, merge_lora, "--ckpt", ckpt, "--output", out, *given)
    assert not out.exists()
