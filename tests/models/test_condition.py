"""``model.condition`` and ``model.unconditional``: every kind of model, by the same two calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ldm.models.diffusion.ddpm import LatentDiffusion
from ldm.models.diffusion.sampling import sample
from ldm.util import UserError, instantiate_from_config
from tests.helpers import noted
from tests.models.stand_ins import LetterEncoder, PooledFirstStage
from tests.models.test_variants import CONFIGS, SCALE, batch, build, config, randomise

CLASSES = {"target": "ldm.modules.encoders.modules.ClassEmbedder", "params": {"embed_dim": 8, "n_classes": 11}}
PLAIN: dict[str, Any] = {
    "text": config("LatentDiffusion", 4, "crossattn"),
    "class": config("LatentDiffusion", 4, "crossattn", cond_stage_config=CLASSES, cond_stage_key="class_label"),
    "unconditional": config("LatentDiffusion", 4, None, {"use_spatial_transformer": False, "context_dim": None},
                            cond_stage_config="__is_unconditional__"),
    "small_picture": config("LatentDiffusion", 7, "concat", {"use_spatial_transformer": False, "context_dim": None},
                            cond_stage_config={"target": "torch.nn.Identity"}, cond_stage_key="LR_image"),
    "map": config("LatentDiffusion", 6, "concat", {"use_spatial_transformer": False, "context_dim": None},
                  cond_stage_config={"target": "ldm.modules.encoders.modules.SpatialRescaler",
                                     "params": {"in_channels": 5, "out_channels": 2}}, cond_stage_key="segmentation"),
    "masked_picture": config("LatentDiffusion", 9, "concat", {"use_spatial_transformer": False, "context_dim": None},
                             cond_stage_config="__is_first_stage__", cond_stage_key="masked_image"),
}  # fmt: skip
PICTURE = batch(1)["jpg"].permute(0, 3, 1, 2)
MASK = batch(1)["mask"].permute(0, 3, 1, 2)
GIVEN: dict[str, dict[str, Any]] = {
    "text": {},
    "class": {"class_label": 3},
    "unconditional": {},
    "small_picture": {"low_res": PICTURE[:, :, ::2, ::2]},
    "map": {"map": torch.ones(1, 5, 16, 16)},
    "masked_picture": {"image": PICTURE, "mask": MASK},
    "inpaint": {"image": PICTURE, "mask": MASK},
    "depth": {"image": PICTURE},
    "upscale": {"low_res": PICTURE[:, :, ::2, ::2]},
    "upscale_finetune": {"low_res": PICTURE[:, :, ::2, ::2]},
    "embedding": {"image": PICTURE},
}
KINDS = [*PLAIN, *CONFIGS]
GUIDED = {"text", "class", *CONFIGS}


def open_kind(kind: str) -> Any:
    torch.manual_seed(0)
    model = (instantiate_from_config(PLAIN[kind]) if kind in PLAIN else build(kind)).eval()
    randomise(model)
    return model


def tensors(part: Any) -> list[Tensor]:
    return part if isinstance(part, list) else [part]


@pytest.mark.parametrize("kind", KINDS)
def test_a_condition_has_a_row_for_each_prompt_and_samples(kind: str) -> None:
    model = open_kind(kind)
    condition = model.condition(["a red house", "a boat", "a cat"], size=(8, 8), **GIVEN[kind])
    assert all(tensor.shape[0] == 3 for part in condition.values() for tensor in tensors(part))
    assert bool(model.needs) == bool(GIVEN[kind])
    uncond = model.unconditional(condition)
    assert (uncond is not None) == (kind in GUIDED)
    if uncond is not None:
        assert {name: [t.shape for t in tensors(part)] for name, part in uncond.items()} == {
            name: [t.shape for t in tensors(part)] for name, part in condition.items()
        }
    z = sample(model, torch.randn(3, 4, 8, 8), condition, steps=2, guidance_scale=3.0, uncond=uncond)
    assert torch.isfinite(z).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_model_needs_is_said_in_one_sentence(kind: str) -> None:
    model = open_kind(kind)
    if not GIVEN[kind]:
        model.condition(["a"], size=(8, 8))
        return
    for left_out in GIVEN[kind]:
        given = {name: value for name, value in GIVEN[kind].items() if name != left_out}
        with pytest.raises(UserError, match=f"lacks '{left_out}'.*model.condition") as raised:
            model.condition(["a"], size=(8, 8), **given)
        assert "\n" not in str(raised.value)
    assert all(f"{name}=..." in model.needs.sentence for name in GIVEN[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_model_does_not_know_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match="has no 'motion'"):
        open_kind(kind).condition(["a"], size=(8, 8), motion=127, **GIVEN[kind])


@pytest.mark.parametrize("kind", sorted({*CONFIGS} - {"upscale_finetune"}))
def test_a_batch_and_a_request_give_the_same_condition(kind: str) -> None:
    """Training has pictures under the names of its YAML, channels last; a request has them as images are everywhere."""
    model, given = open_kind(kind), batch(1)
    request = dict(GIVEN[kind]) | ({"noise_level": 20} if kind == "upscale" else {})
    torch.manual_seed(0)
    one = model.get_condition(given, (8, 8))
    torch.manual_seed(0)
    other = model.condition(given["txt"], size=(8, 8), **request)
    assert one.keys() == other.keys()
    for name, part in one.items():
        for a, b in zip(tensors(part), tensors(other[name]), strict=True):
            torch.testing.assert_close(a, b)


def test_prompts_that_are_alike_are_encoded_once_but_not_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_kind("text")
    seen: list[int] = []
    encode = LetterEncoder.encode
    monkeypatch.setattr(LetterEncoder, "encode", lambda self, p: noted(seen, len(p)) and encode(self, p))
    model.unconditional(model.condition(["a cat"] * 4), "ugly")
    model.condition(["a cat", "a dog"])
    model.train().condition(["a cat"] * 4)
    assert seen == [1, 1, 2, 4]


def test_text_is_encoded_and_the_negative_prompt_is_what_guidance_leaves() -> None:
    model = open_kind("text")
    condition = model.condition(["a cat", "a house"])
    assert torch.equal(condition["c_crossattn"][0], LetterEncoder().encode(["a cat", "a house"]))
    assert torch.equal(model.unconditional(condition, "ugly")["c_crossattn"][0], LetterEncoder().encode(["ugly"] * 2))
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([3, 400])
    assert torch.equal(model.predict(x, t, condition), model.predict(x, t, condition["c_crossattn"][0]))


def test_a_class_is_a_number_or_one_a_picture_and_the_last_stands_for_none() -> None:
    model = open_kind("class")
    table = model.cond_stage_model.embedding.weight
    assert torch.equal(model.condition([""] * 2, class_label=3)["c_crossattn"][0][:, 0], table[[3, 3]])
    condition = model.condition([""] * 2, class_label=[3, 7])
    assert torch.equal(condition["c_crossattn"][0][:, 0], table[[3, 7]])
    assert torch.equal(model.unconditional(condition)["c_crossattn"][0][:, 0], table[[10, 10]])
    assert torch.equal(model.unconditional(condition, class_label=1)["c_crossattn"][0][:, 0], table[[1, 1]])
    assert torch.equal(model.get_unconditional_conditioning(2)[:, 0], table[[10, 10]])
    with pytest.raises(UserError, match="between 0 and 10"):
        model.condition([""], class_label=11)


def test_a_masked_picture_is_black_where_something_new_is_wanted() -> None:
    """As latent-diffusion's own in-painting program has it: black, not grey, and a mask in [-1, 1]."""
    model = open_kind("masked_picture")
    encoded, mask = model.condition([""], image=PICTURE, mask=MASK)["c_concat"]
    black = torch.where(MASK > 0, torch.tensor(-1.0), PICTURE)
    torch.testing.assert_close(encoded, PooledFirstStage().encode(black))
    assert torch.equal(mask, 2 * MASK[:, :, ::2, ::2] - 1)


def test_a_masked_picture_is_grey_for_stable_diffusion() -> None:
    (shown,) = open_kind("inpaint").condition(["a"] * 2, size=(8, 8), image=PICTURE, mask=MASK)["c_concat"]
    grey = torch.where(MASK > 0, torch.tensor(0.0), PICTURE)
    assert shown.shape == (2, 5, 8, 8)
    torch.testing.assert_close(shown[1:, 1:], SCALE * PooledFirstStage().encode(grey))


def test_each_picture_of_a_small_one_has_its_own_noise_at_the_usual_level() -> None:
    model = open_kind("upscale")
    condition = model.condition(["a"] * 2, size=(8, 8), **GIVEN["upscale"])
    assert condition["c_adm"].tolist() == [20, 20]
    assert not torch.equal(*condition["c_concat"][0].chunk(2))
    assert model.condition(["a"], size=(8, 8), noise_level=7, **GIVEN["upscale"])["c_adm"].tolist() == [7]
    noise = torch.randn(1, 3, 8, 8)
    given = [model.condition(["a"] * n, size=(8, 8), noise=noise, **GIVEN["upscale"])["c_concat"][0] for n in (1, 2)]
    assert torch.equal(given[0], given[1][1:])  # the same noise, the same condition, in any batch
    with pytest.raises(UserError, match=r"'noise' must be \[B, 3, 8, 8\]"):
        model.condition(["a"], size=(8, 8), noise=noise[..., :4], **GIVEN["upscale"])
    with pytest.raises(UserError, match="noise level"):
        model.condition(["a"], size=(8, 8), noise_level=1000, **GIVEN["upscale"])


def test_other_sizes_and_numbers_of_rows_are_refused() -> None:
    with pytest.raises(UserError, match="8 x 8 beside latents of 16 x 16"):
        open_kind("upscale").condition(["a"], size=(16, 16), **GIVEN["upscale"])
    with pytest.raises(UserError, match="for 2 images was given for a batch of 3"):
        open_kind("class").condition([""] * 3, class_label=[1, 2])
    for kind in ("inpaint", "masked_picture"):
        with pytest.raises(UserError, match="the mask has 4 x 4 beside a picture of 16 x 16"):
            open_kind(kind).condition(["a"], size=(8, 8), image=PICTURE, mask=torch.ones(1, 1, 4, 4))
    with pytest.raises(UserError, match="8 x 8 beside latents of 4 x 4"):
        open_kind("inpaint").condition(["a"], size=(4, 4), **GIVEN["inpaint"])
    for wrong in (PICTURE[0], PICTURE[:, :2], "photo.png"):
        with pytest.raises(UserError, match="'image' must be pictures"):
            open_kind("depth").condition(["a"], size=(8, 8), image=wrong)
    for kind in ("inpaint", "depth"):
        with pytest.raises(UserError, match="needs 'size'"):
            open_kind(kind).condition(["a"], **GIVEN[kind])


def test_old_names_of_text_stay() -> None:
    model = open_kind("text")
    assert isinstance(model, LatentDiffusion)
    assert torch.equal(model.get_learned_conditioning(["a"]), LetterEncoder().encode(["a"]))
    assert torch.equal(model.get_unconditional_conditioning(2), LetterEncoder().encode(["", ""]))
