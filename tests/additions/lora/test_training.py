"""LoRA that learns: one step as kohya's and diffusers' code takes it, layers, lengths, files, and going on with one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ldm.additions.base import applied
from ldm.additions.lora.layers import chosen
from ldm.additions.lora.lora import Lora
from ldm.additions.lora.trained import TrainedLora
from ldm.checkpoint import read_metadata, read_state_dict
from ldm.checkpoint.lora import read_lora
from ldm.modules.cpu.frozen import lean_where_frozen
from ldm.modules.diffusionmodules.util import make_beta_schedule
from ldm.modules.encoders.open_clip import FrozenOpenCLIPEmbedder
from ldm.util import ConfigError, UserError
from tests.additions.lora.networks import Networks, golden_networks
from tests.helpers import GOLDEN, GoldenCase, golden_case


@pytest.fixture(scope="module")
def base() -> Networks:
    return golden_networks().requires_grad_(False)


@pytest.fixture
def networks(base: Networks) -> Networks:
    return copy.deepcopy(base)


def loss_of(networks: Networks, case: GoldenCase) -> Tensor:
    betas = torch.as_tensor(make_beta_schedule("linear", 1000, 0.00085, 0.012), dtype=torch.float64)
    acp = torch.cumprod(1 - betas, dim=0)[case.inputs["t"]].float()[:, None, None, None]
    x = acp.sqrt() * case.inputs["x0"] + (1 - acp).sqrt() * case.inputs["noise"]
    output = networks.model.diffusion_model(x, case.inputs["t"], context=case.inputs["context"])
    return (output - case.inputs["noise"]).square().mean()


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("recipe", ["kohya", "diffusers"])
def test_a_step_is_that_of_the_original(networks: Networks, recipe: str, lean: bool, tmp_path: Path) -> None:
    case = golden_case(f"lora_train_{recipe}")
    lora = TrainedLora(networks, rank=case.args["rank"], alpha=case.args["alpha"], layers=recipe, text_layers=recipe)
    unet = [name for name in lora.places if name.startswith("unet")]
    counts = {n: sum(p.numel() for p in lora.factors[n].parameters()) for n in lora.places}
    assert len(unet) == case.args["modules_unet"] and sum(counts[n] for n in unet) == case.args["parameters_unet"]
    assert len(counts) - len(unet) == case.args["modules_text_encoder"]
    assert sum(counts.values()) - sum(counts[n] for n in unet) == case.args["parameters_text_encoder"]

    lora = TrainedLora(
        networks, rank=4, alpha=4, layers=recipe, lora_ckpt=str(GOLDEN / case.about["lora"]), format="kohya"
    )
    lora.attach(networks)
    if lean:
        lean_where_frozen(networks.model)
    optimiser = torch.optim.AdamW(lora.parameter_groups(case.args["lr"]), lr=case.args["lr"], weight_decay=1e-2)
    loss = loss_of(networks, case)
    case.assert_close("loss", loss)
    loss.backward()
    case.assert_close("grad_norm", nn.utils.clip_grad_norm_(lora.parameters(), 1.0))
    assert all(p.grad is None for n, p in networks.named_parameters())
    optimiser.step()
    lora.save(tmp_path / "after.safetensors")
    after = read_lora(tmp_path / "after.safetensors")
    for key in [key for key in case.expected if key.startswith("after.")]:
        stem = key.removeprefix("after.").removeprefix("lora_unet_").removeprefix("unet.").replace(".", "_")
        name, _, part = stem.partition("_lora_")
        part = "lora_down" if part.startswith("down") else "lora_up"
        parts = next(parts for module, parts in after.modules.items() if module.module == name)
        case.assert_close(key, parts[part])


def randomised(lora: TrainedLora) -> TrainedLora:
    torch.manual_seed(1)
    for parameter in lora.learned():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return lora


@torch.no_grad()
def outputs(networks: Networks) -> list[Tensor]:
    case = golden_case("lora_kohya")
    eps = networks.model.diffusion_model(case.inputs["x"], case.inputs["t"], context=case.inputs["context"])
    return [eps, networks.cond_stage_model.encode_tokens(case.inputs["tokens"])]


@pytest.mark.parametrize("options", [
    {"layers": "kohya", "text_layers": "kohya", "format": "kohya"},
    {"layers": "kohya", "conv_rank": 2, "conv_alpha": 1.0, "alpha": 2.0, "format": "peft"},
    {"layers": "kohya", "conv_rank": 2, "text_layers": "diffusers", "dora": True},
    {"dora": True, "text_layers": "kohya", "format": "peft", "alpha": 8.0},
    {"layers": ["attn2.to_[kv]", "input_blocks.1.0.in_layers.2"], "text_layers": ["*fc1"]},
], ids=["kohya", "conv-peft", "dora", "dora-peft", "patterns"])  # fmt: skip
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_what_is_learned_is_what_its_file_does(
    networks: Networks, tmp_path: Path, options: dict[str, Any], scale: float
) -> None:
    """Beside the layers or added to their weights, it is one model; a file read by others' rule is that of PEFT."""
    lora = randomised(TrainedLora(networks, rank=3, **options))
    lora.save(tmp_path / "l.safetensors", {"steps": "7", "base_model": "base.ckpt"})
    about = read_metadata(tmp_path / "l.safetensors")
    assert about["ss_steps"] == "7" and about["ss_sd_model_name"] == "base.ckpt"
    assert about["modelspec.architecture"].endswith("/lora") and about["modelspec.title"] == "l"
    plain = outputs(networks)
    with applied(networks, [lora], [scale]):
        beside = outputs(networks)
    read = Lora.read(tmp_path / "l.safetensors", networks)
    read.dora = "peft"
    with applied(networks, [read], [scale]):
        merged = outputs(networks)
    for one, other in zip(beside, merged, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=5e-4)
    assert not torch.allclose(beside[0], plain[0], atol=1e-2)
    assert all(torch.equal(a, b) for a, b in zip(outputs(networks), plain, strict=True))


def test_a_fresh_one_changes_nothing_until_it_learns(networks: Networks) -> None:
    plain = outputs(networks)
    for options in ({"layers": "kohya", "text_layers": "kohya"}, {"dora": True, "conv_rank": 4, "start": "diffusers"}):
        with applied(networks, [TrainedLora(networks, **options)]):
            for one, other in zip(outputs(networks), plain, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_doras_lengths_begin_from_the_weights_that_are_loaded(networks: Networks) -> None:
    holder = nn.ModuleDict({"networks": networks})
    lora = TrainedLora(networks, dora=True)
    holder["lora"] = lora
    weights = {name: 2 * value for name, value in networks.state_dict().items()}
    holder.load_state_dict({f"networks.{name}": value for name, value in weights.items()}, strict=False)
    name, place = next(iter(lora.places.items()))
    length = weights[place.weight].norm(dim=1)
    torch.testing.assert_close(lora.factors[name].dora_scale.data, length)


def test_rows_of_one_weight_learn_apart(base: Networks, tmp_path: Path) -> None:
    sizes = {"embed_dim": 8, "width": 16, "heads": 2, "layers": 2, "vocab_size": 32}
    torch.manual_seed(0)
    networks = Networks(base.model.diffusion_model, FrozenOpenCLIPEmbedder(arch="tiny", config=sizes))
    lora = randomised(TrainedLora(networks, text_layers="kohya"))
    assert len([place for place in lora.places.values() if place.rows is not None]) == 6
    lora.save(tmp_path / "l.safetensors")
    tokens = torch.arange(20).reshape(1, 20)
    encode = networks.cond_stage_model.encode_tokens
    plain = encode(tokens)
    with applied(networks, [lora]):
        beside = encode(tokens)
        assert beside.requires_grad
    with applied(networks, [Lora.read(tmp_path / "l.safetensors", networks)]):
        torch.testing.assert_close(encode(tokens), beside, rtol=1e-4, atol=1e-4)
    assert torch.equal(encode(tokens), plain) and not torch.allclose(plain, beside, atol=1e-2)


def test_going_on_with_a_file(networks: Networks, tmp_path: Path) -> None:
    lora = randomised(TrainedLora(networks, rank=3, alpha=1.5))
    lora.save(tmp_path / "l.safetensors")
    again = TrainedLora(networks, rank=3, alpha=7.0, lora_ckpt=str(tmp_path / "l.safetensors"))
    again.save(tmp_path / "again.safetensors")
    before, after = (read_state_dict(tmp_path / f"{name}.safetensors") for name in ("l", "again"))
    assert all(torch.equal(before[key], after[key]) for key in before)
    with pytest.raises(UserError, match=r"'lora_down' is \[3, .*\], but \[2, .*\] is needed; take its rank"):
        TrainedLora(networks, rank=2, lora_ckpt=str(tmp_path / "l.safetensors"))
    with pytest.raises(UserError, match="has nothing for the layer"):
        TrainedLora(networks, rank=3, layers="kohya", lora_ckpt=str(tmp_path / "l.safetensors"))


def test_rates_apart(networks: Networks) -> None:
    lora = TrainedLora(networks, text_layers="diffusers", text_rate=0.1)
    assert TrainedLora(networks, rate=0.5).parameter_groups(1e-3)[0]["lr"] == pytest.approx(5e-4)
    unet, text = lora.parameter_groups(1e-3)
    assert "lr" not in unet and text["lr"] == pytest.approx(1e-4)
    assert len(unet["params"]) + len(text["params"]) == len(lora.learned())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank >= 1"),
        ({"dropout": 1.0}, "0 <= dropout < 1"),
        ({"layers": "attic"}, "no layer of the unet is called 'attic'; diffusers, kohya, or a pattern"),
        ({"layers": "kohya", "text_layers": ["x*"]}, "no layer of the text_encoder is called 'x\\*'"),
        ({"format": "a1111"}, "'format' is 'a1111'; known: kohya, kohya_sgm, peft"),
        ({"start": "zero"}, "'start' is 'zero'"),
    ],
)
def test_what_does_not_fit(networks: Networks, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainedLora(networks, **options)


def test_layers_of_the_recipes(networks: Networks) -> None:
    """The counts of kohya's and diffusers' code on this network; with convolutions its residual blocks as well."""
    assert len(chosen(networks, "diffusers", "none")) == 56
    assert len(chosen(networks, "kohya", "none")) == 84
    assert len(chosen(networks, "kohya", "none", convolutions=True)) > 84
