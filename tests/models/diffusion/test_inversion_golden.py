"""DDIM inversion against the latents that StyleID's own inversion gives, step by step."""

from __future__ import annotations

import pytest
import torch

from ldm.models.diffusion.samplers.ddim import invert
from ldm.util import instantiate_from_config
from tests.helpers import golden_case


@pytest.mark.parametrize("picture", ["cnt", "sty"])
def test_every_stored_latent(picture: str) -> None:
    case = golden_case("styleid")
    model = instantiate_from_config(case.config.model).eval()
    model.load_state_dict(case.weights, strict=True)
    context = model.get_learned_conditioning(case.inputs["uc_tokens"])
    case.assert_close("uc", context)

    steps = case.args["steps"]
    after: dict[float, torch.Tensor] = {}
    z_T = invert(
        model, case.inputs[f"{picture}_z0"], context, steps=steps, callback=lambda s: after.update({s.t: s.x.clone()})
    )

    case.assert_close(f"{picture}_zT", z_T)
    assert sorted(after) == list(range(1, 1000, 1000 // steps))
    for index in (49, 40, 30, 20, 10):  # feature index i is the step at which the network saw t = 981 - 20 i
        case.assert_close(f"{picture}_z_enc_{index}", after[981 - 20 * index])
