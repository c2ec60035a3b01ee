"""Classifier-free guidance and batches of conditions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ldm.models.diffusion.guidance import can_join, expand_condition, guided, join, rows_of
from ldm.models.diffusion.sampling import sample
from ldm.util import UserError
from tests.models.diffusion.gaussian_world import GaussianDenoiser


def test_guidance_is_one_batch_with_the_unconditional_half_first() -> None:
    world = GaussianDenoiser()
    x, t = torch.randn(2, 4, 4, 4), torch.tensor([500, 500])
    cond, uncond = torch.tensor([[1.0], [2.0]]), torch.zeros(1, 1)
    seen: list[torch.Tensor] = []

    class Spy(GaussianDenoiser):
        def predict(self, x: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
            seen.append(cond)
            return super().predict(x, t, cond)

    out = guided(Spy(), 5.0, uncond).predict(x, t, cond)
    u, c = world.predict(x, t, uncond.expand(2, 1)), world.predict(x, t, cond)
    torch.testing.assert_close(out, u + 5 * (c - u))
    assert len(seen) == 1 and seen[0].flatten().tolist() == [0, 0, 1, 2]


def test_no_unconditional_half_where_it_changes_nothing() -> None:
    x_T = torch.randn(2, 4, 4, 4)
    cond, uncond = torch.ones(2, 1), torch.zeros(2, 1)
    for scale, given, rows in ((1.0, uncond, 2), (7.5, None, 2), (7.5, uncond, 4)):
        world = GaussianDenoiser()
        sample(world, x_T, cond, steps=5, guidance_scale=scale, uncond=given)
        assert set(world.calls) == {rows}


def test_contexts_of_different_length_take_two_calls() -> None:
    class Length(GaussianDenoiser):
        def predict(self, x: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
            self.calls.append(x.shape[0])
            return torch.full_like(x, cond.shape[1])

    world = Length()
    out = guided(world, 3.0, torch.zeros(1, 7, 8)).predict(
        torch.zeros(2, 4, 4, 4), torch.tensor([1, 1]), torch.zeros(2, 9, 8)
    )
    assert world.calls == [2, 2] and out.unique().tolist() == [7 + 3 * (9 - 7)]


def test_hybrid_conditions_are_joined_part_by_part() -> None:
    first = {"c_concat": [torch.zeros(2, 5, 4, 4)], "c_crossattn": [torch.zeros(1, 7, 8)], "c_adm": torch.zeros(2, 3)}
    second = {"c_concat": [torch.ones(2, 5, 4, 4)], "c_crossattn": [torch.ones(2, 7, 8)], "c_adm": torch.ones(2, 3)}
    first = expand_condition(first, 2)
    assert can_join(first, second)
    both = join(first, second)
    assert both["c_concat"][0].shape == (4, 5, 4, 4)
    assert both["c_crossattn"][0][:, 0, 0].tolist() == [0, 0, 1, 1]
    assert both["c_adm"][:, 0].tolist() == [0, 0, 1, 1]
    assert not can_join(first, {"c_crossattn": first["c_crossattn"]})
    assert not can_join([torch.zeros(1, 7)], torch.zeros(1, 7))
    assert join(None, None) is None


def test_wrong_conditions_are_one_sentence() -> None:
    with pytest.raises(UserError, match="condition for 3 images was given for a batch of 2"):
        expand_condition([torch.zeros(3, 7)], 2)
    with pytest.raises(UserError, match="got str"):
        expand_condition({"c_crossattn": ["a prompt"]}, 2)


def test_a_scale_for_each_row_or_frame() -> None:
    world = GaussianDenoiser()
    x, t = torch.randn(6, 4, 4, 4), torch.full((6,), 500)
    cond, uncond = torch.ones(1, 1), torch.zeros(1, 1)
    u, c = world.predict(x, t, uncond.expand(6, 1)), world.predict(x, t, cond.expand(6, 1))
    for scale, factors in (
        (torch.tensor([1.0, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5, 6]),
        (torch.tensor([1.0, 2.0, 4.0]), [1, 2, 4, 1, 2, 4]),  # three frames of two films
        (torch.tensor(3.0), [3] * 6),
    ):
        out = guided(world, scale, uncond).predict(x, t, cond)
        expected = torch.stack([u[i] + factor * (c[i] - u[i]) for i, factor in enumerate(factors)])
        torch.testing.assert_close(out, expected)
    assert guided(world, torch.ones(3), uncond) is world
    with pytest.raises(UserError, match="4 guidance scales do not fit a batch of 6"):
        guided(world, torch.arange(4.0), uncond).predict(x, t, cond)
    with pytest.raises(UserError, match=r"got \(2, 3\)"):
        guided(world, torch.ones(2, 3), uncond)


def test_guidance_of_the_callers_own_is_the_same() -> None:
    x_T, cond, uncond = torch.randn(2, 4, 4, 4), torch.ones(2, 1), torch.zeros(2, 1)
    given = sample(GaussianDenoiser(), x_T, cond, steps=5, guidance_scale=4.0, uncond=uncond)
    assert torch.equal(sample(guided(GaussianDenoiser(), 4.0, uncond), x_T, cond, steps=5), given)
    scales = torch.tensor([1.0, 4.0])
    a_row = sample(GaussianDenoiser(), x_T, cond, steps=5, guidance_scale=scales, uncond=uncond)
    assert torch.equal(a_row[1], given[1])
    torch.testing.assert_close(a_row[:1], sample(GaussianDenoiser(), x_T, cond, steps=5)[:1])


def test_rows_are_counted_by_tensors() -> None:
    many = {"c_concat": [torch.zeros(3, 5, 4, 4)], "c_crossattn": [torch.zeros(1, 7, 8)], "c_adm": torch.zeros(1, 3)}
    assert rows_of(many) == 3 and rows_of(torch.zeros(1, 7)) == 1 and rows_of([torch.zeros(2, 7), None]) == 2
    with pytest.raises(UserError, match="different numbers of images: 2 and 3"):
        rows_of({**many, "c_adm": torch.zeros(2, 3)})
    with pytest.raises(UserError, match="different numbers of images: 2 and 3"):  # also where no part serves all
        rows_of([torch.zeros(2, 3), torch.zeros(3, 3)])
    with pytest.raises(UserError, match="does not say"):
        rows_of({"c_crossattn": []})

    one = {"c_crossattn": [torch.zeros(1, 1)]}
    three = {"c_crossattn": [torch.arange(3.0)[:, None]]}

    class Parts(GaussianDenoiser):
        def predict(self, x: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
            return super().predict(x, t, cond["c_crossattn"][0])

    x_T = torch.randn(3, 4, 4, 4)
    for cond, uncond in ((one, three), (three, one)):
        world = Parts()
        both = sample(world, x_T, cond, steps=5, guidance_scale=2.0, uncond=uncond)
        assert set(world.calls) == {6}
        plain = [part["c_crossattn"][0].expand(3, 1) for part in (cond, uncond)]
        expected = sample(GaussianDenoiser(), x_T, plain[0], steps=5, guidance_scale=2.0, uncond=plain[1])
        assert torch.equal(both, expected)
