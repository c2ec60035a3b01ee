"""What the reference numbers do not cover: SDXL's conditions, depths, precision, checkpointing, bad values."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from ldm.modules.attention import BasicTransformerBlock, SpatialTransformer
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from ldm.util import ConfigError

SMALL: dict[str, Any] = {
    "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 2],
    "attention_resolutions": [1, 2], "num_head_channels": 16, "use_spatial_transformer": True, "context_dim": 24,
}  # fmt: skip
PLAIN = {k: v for k, v in SMALL.items() if k not in ("use_spatial_transformer", "context_dim")}


def build(**changes: Any) -> UNetModel:
    """A small UNet whose zero-initialised layers hold something, so that every layer matters."""
    torch.manual_seed(0)
    unet = UNetModel(**{**SMALL, **changes})
    for parameter in unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return unet.eval()


def inputs(batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "x": torch.randn(batch, 4, 8, 8, generator=generator),
        "timesteps": torch.tensor([3, 700])[:batch],
        "context": torch.randn(batch, 5, 24, generator=generator),
    }


def test_depth_is_per_level_and_the_middle_has_that_of_the_last() -> None:
    unet = build(transformer_depth=[1, 3])
    transformers: list[Any] = [m for m in unet.modules() if isinstance(m, SpatialTransformer)]
    depths = [len(transformer.transformer_blocks) for transformer in transformers]
    assert depths == [1, 3, 3, 3, 3, 1, 1]
    middle: Any = build(transformer_depth=[1, 3], transformer_depth_middle=2).middle_block[1]
    assert len(middle.transformer_blocks) == 2


def test_vector_condition_of_sdxl_changes_the_output_and_has_its_keys() -> None:
    unet = build(num_classes="sequential", adm_in_channels=12)
    assert unet.state_dict()["label_emb.0.0.weight"].shape == (128, 12)
    assert unet.state_dict()["label_emb.0.2.weight"].shape == (128, 128)
    one = unet(**inputs(), y=torch.zeros(2, 12))
    other = unet(**inputs(), y=torch.ones(2, 12))
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize(("kind", "y"), [("continuous", torch.rand(2)), ("timestep", torch.tensor([1, 50]))])
def test_other_vector_conditions(kind: str, y: torch.Tensor) -> None:
    unet = build(num_classes=kind)
    assert not torch.equal(unet(**inputs(), y=y), unet(**inputs(), y=y.flip(0)))


def test_y_is_wanted_if_and_only_if_the_network_has_classes() -> None:
    with pytest.raises(ValueError, match="class-conditional"):
        build()(**inputs(), y=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="class-conditional"):
        build(num_classes=3)(**inputs())


def test_codebook_ids_are_predicted() -> None:
    assert build(n_embed=50)(**inputs()).shape == (2, 50, 8, 8)


def test_attention_may_be_left_out_of_later_blocks_of_a_level() -> None:
    unet = build(num_res_blocks=2, num_attention_blocks=[1, 0])
    with_attention = [name for name, m in unet.named_modules() if isinstance(m, SpatialTransformer)]
    assert with_attention == ["input_blocks.1.1", "middle_block.1", "output_blocks.3.1"]


def test_self_attention_may_look_at_the_context_instead() -> None:
    unet: Any = build(disable_self_attentions=[True, False])
    block = unet.input_blocks[1][1].transformer_blocks[0]
    assert block.attn1.to_k.in_features == 24
    assert unet.input_blocks[3][1].transformer_blocks[0].attn1.to_k.in_features == 64
    assert unet(**inputs()).isfinite().all()


def test_half_precision_stays_near_and_returns_the_precision_of_x() -> None:
    unet = build()
    half = copy.deepcopy(unet).to(torch.bfloat16)
    with torch.no_grad():
        full, low = unet(**inputs()), half(**inputs())
    assert half.dtype is torch.bfloat16 and low.dtype is torch.float32
    assert (full - low).abs().max() < 0.05 * full.abs().max()
    assert build(use_fp16=True).dtype is torch.float16


def test_checkpointing_happens_in_training_only_and_leaves_gradients_alone() -> None:
    plain, checkpointed = build(), build(use_checkpoint=True)
    calls = []
    block = next(m for m in checkpointed.modules() if isinstance(m, BasicTransformerBlock))
    block.norm1.register_forward_hook(lambda *_: calls.append(1))

    gradients = []
    for unet in (plain, checkpointed):
        unet.train()
        unet(**inputs()).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in unet.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients)
    assert len(calls) == 2  # once forward, once more in the backward pass

    calls.clear()
    checkpointed.eval()(**inputs()).sum().backward()
    assert len(calls) == 1


def test_any_size_that_the_levels_divide() -> None:
    x = {**inputs(), "x": torch.randn(2, 4, 6, 14)}
    assert build()(**x).shape == (2, 4, 6, 14)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dims": 3}, "dims"),
        ({"context_dim": None}, "together"),
        ({"num_head_channels": -1}, "num_heads"),
        ({"num_res_blocks": [1, 2, 3]}, "one entry a level"),
        ({"num_classes": "sequential"}, "adm_in_channels"),
        ({"num_classes": "words"}, "num_classes"),
    ],
)
def test_values_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UNetModel(**{**SMALL, **changes})


def test_without_transformer_both_orders_of_qkv_have_the_same_keys_but_not_the_same_output() -> None:
    torch.manual_seed(0)
    old, new = UNetModel(**PLAIN).eval(), UNetModel(**PLAIN, use_new_attention_order=True).eval()
    for parameter in old.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    new.load_state_dict(old.state_dict())
    x = {k: v for k, v in inputs().items() if k != "context"}
    assert (old(**x) - new(**x)).abs().max() > 1e-4


def test_a_keyword_that_it_does_not_know_is_an_error() -> None:
    unet = UNetModel(**SMALL)
    with pytest.raises(TypeError, match="controls"):
        unet(torch.randn(1, 4, 8, 8), torch.tensor([1]), controls=None)
