"""Every family of LoRA files against the libraries that wrote them: changed weights, UNet and text encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ldm.additions.base import applied
from ldm.additions.lora.lora import Lora
from tests.additions.lora.networks import Networks, golden_networks
from tests.helpers import GOLDEN, GoldenCase, golden_case

CASES = sorted(
    path.name.removesuffix(".json") for path in GOLDEN.glob("lora_*.json") if not path.name.startswith("lora_train")
)


@pytest.fixture(scope="module")
def networks() -> Networks:
    return golden_networks()


def deltas(case: GoldenCase, networks: Networks, lora: Lora, scale: float) -> Callable[[str], torch.Tensor]:
    """The change of a weight by its name in its own network."""
    before = {name: value.clone() for name, value in networks.state_dict().items()}
    with applied(networks, [lora], [scale]):
        after = {name: value.clone() for name, value in networks.state_dict().items()}

    def of(name: str) -> torch.Tensor:
        full = next(p + name for p in ("model.diffusion_model.", "cond_stage_model.") if p + name in before)
        return after[full] - before[full]

    return of


@torch.no_grad()
def check(case: GoldenCase, networks: Networks, lora: Lora, scale: float, end: str, linear: str = "") -> None:
    with applied(networks, [lora], [scale]):
        eps = networks.model.diffusion_model(case.inputs["x"], case.inputs["t"], context=case.inputs["context"])
        case.assert_close(f"eps_{end}{linear}", eps)
        if f"z_{end}" in case.expected and not linear:
            case.assert_close(f"z_{end}", networks.cond_stage_model.encode_tokens(case.inputs["tokens"]))


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, networks: Networks) -> None:
    case = golden_case(name)
    path = GOLDEN / case.about["lora"]
    before = {key: value.clone() for key, value in networks.state_dict().items()}
    lora = Lora.read(path, networks, dora="producer")
    check(case, networks, lora, 1.0, "10")
    check(case, networks, lora, 0.6, "06")
    for start, scale in (("delta.", 1.0), ("delta_06.", 0.6)):
        of = deltas(case, networks, lora, scale)
        for key in [key for key in case.expected if key.startswith(start)]:
            case.assert_close(key, of(key.removeprefix(start)))
    if "eps_06_linear" in case.expected:
        check(case, networks, Lora.read(path, networks), 0.6, "06", "_linear")
    assert all(torch.equal(value, before[key]) for key, value in networks.state_dict().items())


def count(lora: Lora, network: str) -> int:
    """Weights and biases that it changes."""
    modules = [module for module in lora.modules if module.key.network == network]
    return len(modules) + sum(bool({"diff_b", "b_norm"} & module.parts.keys()) for module in modules)


@pytest.mark.parametrize("name", CASES)
def test_every_module_is_found(name: str, networks: Networks, caplog: pytest.LogCaptureFixture) -> None:
    case = golden_case(name)
    lora = Lora.read(GOLDEN / case.about["lora"], networks)
    changed: dict[str, Any] | None = case.about.get("modules_changed")
    if changed is not None:
        assert (count(lora, "unet"), count(lora, "text_encoder")) == (changed["unet"], changed["text_encoder"])
    if name == "lora_kohya_sgm":
        assert "no place for 12 of its entries" in caplog.text and "text_encoder_2" in caplog.text
    else:
        assert not caplog.text
