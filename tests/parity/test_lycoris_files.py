"""Files that the lycoris-lora library writes, read here: the same network as it has with them applied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ldm.additions.base import applied
from ldm.additions.lora.lora import Lora
from ldm.checkpoint import load_model
from tests.checkpoint.test_diffusers import save_pipeline, small_unet

lycoris = pytest.importorskip("lycoris")


@pytest.mark.parametrize(
    ("algo", "options"),
    [("lora", {}), ("lora", {"dora_wd": True}), ("loha", {}), ("lokr", {"factor": 4}), ("full", {})],
    ids=["lora", "dora", "loha", "lokr", "full"],
)
def test_a_file_of_the_library(tmp_path: Path, algo: str, options: dict[str, Any]) -> None:
    model: Any = load_model(None, save_pipeline(tmp_path / "pipeline", "sd_v1"))
    model.eval()
    unet = small_unet("sd_v1")
    generator = torch.Generator().manual_seed(2)
    x, context = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 16, generator=generator)
    t = torch.tensor([3, 700])
    lycoris.LycorisNetwork.apply_preset({"enable_conv": True, "target_module": ["Transformer2DModel", "ResnetBlock2D"]})
    network = lycoris.create_lycoris(unet, 1.0, linear_dim=4, linear_alpha=2.0, algo=algo, **options)
    network.apply_to()
    torch.manual_seed(3)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            parameter.data.add_(0.05 * torch.randn(parameter.shape))
    network.save_weights(str(tmp_path / "l.safetensors"), torch.float32, {"made": "here"})
    with torch.no_grad():
        expected = unet(x, t, encoder_hidden_states=context).sample
        with applied(model, [Lora.read(tmp_path / "l.safetensors", model)]):
            found = model.model.diffusion_model(x, t, context=context)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=5e-4)
