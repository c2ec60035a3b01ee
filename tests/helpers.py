"""What several tests share: golden cases and small builders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

from ldm.util import instantiate_from_config

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"


@dataclass
class GoldenCase:
    """One case of reference numbers: configuration, weights, inputs and the outputs to meet."""

    config: DictConfig
    weights: dict[str, torch.Tensor]
    inputs: dict[str, torch.Tensor]
    expected: dict[str, torch.Tensor]
    args: dict[str, Any]
    about: dict[str, Any]

    def assert_close(self, name: str, actual: torch.Tensor) -> None:
        """Compare with ``out.<name>`` at the tolerance that the case states for it."""
        expected = self.expected[name]
        assert actual.shape == expected.shape, f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
        tolerance = self.about["tensors"][f"out.{name}"]["tolerance"]
        if tolerance == "exact":
            assert torch.equal(actual.cpu(), expected), f"{name}: not equal"
            return
        torch.testing.assert_close(
            actual.detach().cpu().to(expected.dtype), expected, rtol=tolerance["rtol"], atol=tolerance["atol"],
            msg=lambda text: f"{name}: {text}",
        )


def noted(seen: list[Any], value: Any) -> bool:
    """Append ``value`` to what was seen; true, so that a stand-in can go on with ``and``."""
    seen.append(value)
    return True


def golden_case(name: str) -> GoldenCase:
    """Read the golden case ``name`` from tests/golden; inputs are clones, free to be changed."""
    about = json.loads((GOLDEN / f"{name}.json").read_text())
    tensors = load_file(GOLDEN / about["io"])
    config = OmegaConf.load(GOLDEN / about["config"]) if about.get("config") else OmegaConf.create({})
    assert isinstance(config, DictConfig)
    return GoldenCase(
        config=config,
        weights=load_file(GOLDEN / about["weights"]) if about.get("weights") else {},
        inputs={k[3:]: v for k, v in tensors.items() if k.startswith("in.")},
        expected={k[4:]: v for k, v in tensors.items() if k.startswith("out.")},
        args=about["args"],
        about=about,
    )


def golden_embedder(case: GoldenCase) -> Any:
    """The text encoder of a case of textual inversion, with the case's weights, in eval mode."""
    node = case.config.embedder
    if "hf_text_config" in case.args:
        node.params.config = case.args["hf_text_config"]
    model = instantiate_from_config(node).eval()
    model.load_state_dict(
        {k.removeprefix("embedder."): v for k, v in case.weights.items() if k.startswith("embedder.")}
    )
    return model
