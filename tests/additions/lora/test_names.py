"""The table of names: against the translation of diffusers' own weights, and OpenCLIP's fused rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from ldm.additions.base import applied
from ldm.additions.lora.lora import Lora
from ldm.additions.lora.names import places, unet_names
from ldm.checkpoint import save_state_dict
from ldm.checkpoint.diffusers_keys import open_clip_weights, unet_weights
from ldm.checkpoint.lora import UNET, Key
from ldm.modules.encoders.open_clip import FrozenOpenCLIPEmbedder
from ldm.util import instantiate_from_config, read_yaml
from tests.additions.lora.networks import Networks
from tests.helpers import ROOT, golden_case


@pytest.mark.parametrize(
    ("config", "blocks"),
    [
        ("stable-diffusion/v1-inference", [2, 2, 2, 2]),
        ("stable-diffusion/v2-inference-v", [2, 2, 2, 2]),
        ("latent-diffusion/txt2img-1p4B-eval", [2, 2, 2, 2]),
        ("tiny/ldm", [1, 1]),
    ],
)
def test_diffusers_names_are_those_that_its_weights_have(config: str, blocks: list[int]) -> None:
    node: Any = OmegaConf.to_container(read_yaml(ROOT / "configs" / f"{config}.yaml").model, resolve=True)
    with torch.device("meta"):
        unet = instantiate_from_config(node["params"]["unet_config"])
    paths = [name.removesuffix(".weight") for name, _ in unet.named_parameters() if name.endswith(".weight")]
    theirs = {names[-1]: path for path, names in unet_names(paths).items()}
    assert len(theirs) == len(paths)
    assert all(len(names) == 2 for names in unet_names(paths).values())
    weights = {f"{name}.weight": torch.empty(0) for name in theirs}
    translated = unet_weights(weights, blocks)
    assert list(translated) == [f"{path}.weight" for path in theirs.values()]


def test_a_name_is_looked_up_not_taken_apart() -> None:
    unet = instantiate_from_config(golden_case("unet_sd1").config)
    table = places(Networks(unet, nn.Identity()))
    block = "model.diffusion_model.output_blocks"
    for name, weight in {
        "up_blocks_2_resnets_0_conv_shortcut": f"{block}.4.0.skip_connection.weight",
        "output_blocks_4_0_skip_connection": f"{block}.4.0.skip_connection.weight",
        "up_blocks_2_attentions_1_transformer_blocks_0_attn1_to_out_0":
            f"{block}.5.1.transformer_blocks.0.attn1.to_out.0.weight",
    }.items():
        assert table[Key(UNET, name)].weight == weight


@pytest.mark.parametrize("level", ["text_model.", ""])
def test_open_clip_has_q_k_and_v_in_rows_of_one_weight(tmp_path: Path, level: str) -> None:
    torch.manual_seed(0)
    width, layers, shapes = 16, 2, {"mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    sizes = {"embed_dim": 8, "width": width, "heads": 2, "layers": layers, "vocab_size": 32}
    encoder = FrozenOpenCLIPEmbedder(arch="tiny", config=sizes)
    names = [f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")] + list(shapes)
    file: dict[str, torch.Tensor] = {}
    changed: dict[str, torch.Tensor] = {}
    for layer in range(layers):
        for name in names:
            rows, columns = shapes.get(name, (1, 1))
            up, down = torch.randn(rows * width, 2), torch.randn(2, columns * width)
            key = f"{level}encoder.layers.{layer}.{name}"
            flat = f"lora_te_{key.replace('.', '_')}"
            file |= {f"{flat}.lora_up.weight": up, f"{flat}.lora_down.weight": down}
            changed[f"encoder.layers.{layer}.{name}.weight"] = up @ down
    save_state_dict(file, tmp_path / "text.safetensors")
    rest = {"embeddings.token_embedding.weight": torch.zeros(4, width)}
    expected = open_clip_weights({**rest, **changed}, width)  # q, k and v of a layer are joined there
    networks = Networks(instantiate_from_config(golden_case("unet_sd1").config), encoder)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with applied(networks, [Lora.read(tmp_path / "text.safetensors", networks)]):
        now = {name: value.clone() for name, value in encoder.state_dict().items()}
    moved = [name for name in now if not torch.equal(now[name], before[name])]
    assert len(moved) == 4 * layers
    for name in moved:
        torch.testing.assert_close(now[name] - before[name], expected[name], rtol=1e-4, atol=1e-4)
