"""Mixing against the formula written out: one softmax over all keys, with a bias for each source."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ldm.control import FeatureStore, Inject, Mix, MixReport, Rows
from ldm.control.shares import resized
from ldm.util import UserError
from tests.control.test_inject import call_at, store_of

HEIGHT, WIDTH, HEADS, D = 2, 3, 3, 8
N = HEIGHT * WIDTH


def qkv(seed: int, keys: int = N, rows: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Features whose logits are large enough for sources to differ."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(rows, HEADS, n, D, generator=generator) for n in (N, keys, keys))
    return 2 * q, 2 * k, v


def case(styles: int = 2, rows: int = 1) -> dict[str, Any]:
    """The batch's own features, a content and styles with other numbers of keys, and overlapping soft masks."""
    sources = [qkv(10 + j, keys=N + 2 * j) for j in range(styles)]
    masks = torch.rand(styles, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(9))
    masks[:, 0, 0] = 0  # a place outside of all of them
    masks[0, 1, 1], masks[1:, 1, 1] = 1, 0  # and one of the first only
    return {"own": qkv(1, rows=rows), "content": qkv(2), "styles": sources, "masks": masks}


def run(case: dict[str, Any], **options: Any) -> tuple[Tensor, MixReport]:
    reports: list[MixReport] = []
    q, k, v = case["content"]
    styles = [store_of(k=style[1], v=style[2]) for style in case["styles"]]
    options = {"masks": case["masks"], **options}
    mode = Mix(store_of(q=q, k=k, v=v), styles, report=reports.append, **options)
    call = call_at()
    call.clock.size = (HEIGHT, WIDTH)
    out = mode(*case["own"], call=call)
    assert len(reports) == 1
    return out, reports[0]


def written_out(
    case: dict[str, Any], pi: float = 0.9, by: str = "mass", gamma: float = 0.2, T: float = 2.0, sharpen: bool = False
) -> tuple[Tensor, Tensor]:
    """(output, true shares [b h sources n]), straight from the formulas, in float64."""
    own = case["own"][0].double()
    q_c, k_c, v_c = (t.double() for t in case["content"])
    masks = case["masks"].double().flatten(1)
    total = masks.sum(0)
    w = torch.where(total > 0, masks / total.clamp(min=1e-300), 0.0)
    pi_j = pi * total.clamp(max=1) * w
    pi_c = 1 - pi_j.sum(0)
    blend = gamma * q_c + (1 - gamma) * own
    l_c = (q_c @ k_c.transpose(-1, -2) / D**0.5).expand(len(own), -1, -1, -1)
    all_logits, all_values = [l_c], [v_c]
    for j, (_, k, v) in enumerate(case["styles"]):
        l_j = T * blend @ k.double().transpose(-1, -2) / D**0.5
        bias = w[j].log() if by == "competition" else l_c.logsumexp(-1) + (pi_j[j] / pi_c).log() - l_j.logsumexp(-1)
        all_logits.append(l_j + bias[..., None])
        all_values.append(v.double())
    mixed, sizes = torch.cat(all_logits, -1), [t.shape[-1] for t in all_logits]
    if sharpen:
        finite = mixed.isfinite()
        m = torch.where(finite, mixed, 0.0).sum(-1, keepdim=True) / finite.sum(-1, keepdim=True)
        distance = (l_c.softmax(-1).amax(-1).log() - mixed.softmax(-1).amax(-1).log()).mean(-1)
        tau = (0.08395199 * distance**2 + 0.43704639 * distance + 1.00998177).clamp(1, 5)[..., None, None]
        mixed = torch.where(finite, m + tau * (mixed - m), mixed)
    parts = mixed.softmax(-1).split(sizes, -1)
    out = sum(part @ v for part, v in zip(parts, all_values, strict=True))
    return out, torch.stack([part.sum(-1) for part in parts], 2)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("styles", [1, 2, 3])
@pytest.mark.parametrize("sharpen", [False, True])
@pytest.mark.parametrize("by", ["mass", "competition"])
def test_the_formula(by: str, sharpen: bool, styles: int, rows: int) -> None:
    given = case(styles, rows)
    out, report = run(given, by=by, sharpen=sharpen)
    expected, shares = written_out(given, by=by, sharpen=sharpen)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(report.shares.double().expand_as(shares), shares, rtol=1e-4, atol=1e-6)
    assert report.site == "a" and report.timestep == 5


def test_mass_is_exactly_what_was_asked_for() -> None:
    given = case(3)
    _, shares = written_out(given, pi=0.6)
    _, report = run(given, pi=0.6)
    raw = given["masks"].flatten(1)
    asked = 0.6 * raw / raw.sum(0).clamp(min=1)  # pi coverage w
    torch.testing.assert_close(report.shares[0, 0, 1:], asked)
    torch.testing.assert_close(shares[0, :, 1:].float(), asked.expand(HEADS, -1, -1))  # of one softmax over all keys
    assert torch.equal(report.shares[0, 0, :, 0], torch.tensor([1.0, 0, 0, 0]))  # outside of all masks: the content


def test_sharpening_takes_from_some_and_says_so() -> None:
    given = case(2)
    _, plain = run(given)
    _, sharp = run(given, sharpen=True)
    assert bool((sharp.tau > 1).all()) and bool((sharp.tau <= 5).all()) and bool((plain.tau == 1).all())
    assert sharp.shares.shape == (1, HEADS, 3, N)
    torch.testing.assert_close(sharp.shares.sum(2), torch.ones(1, HEADS, N))
    assert float((sharp.shares - plain.shares).abs().max()) > 0.02


@pytest.mark.parametrize("options", [{}, {"by": "competition"}, {"sharpen": True}])
def test_the_report_has_the_weights_of_single_keys(options: dict[str, Any]) -> None:
    given = case(2)
    out, report = run(given, **options)
    weights = [part.exp() for part in report.log_probs([0, 4])]
    torch.testing.assert_close(sum(part.sum(-1) for part in weights), torch.ones(1, HEADS, 2))
    values = [given["content"][2], *(style[2] for style in given["styles"])]
    torch.testing.assert_close(sum(w @ v for w, v in zip(weights, values, strict=True)), out[:, :, [0, 4]])


@pytest.mark.parametrize("by", ["mass", "competition"])
def test_one_full_mask_is_injection(by: str) -> None:
    given = case(1)
    given["masks"] = torch.ones(1, 16, 24)
    _, k, v = given["styles"][0]
    call = call_at()
    call.clock.size = (HEIGHT, WIDTH)
    expected = Inject(store_of(q=given["content"][0]), store_of(k=k, v=v), 0.75, 1.5)(*given["own"], call=call)
    out, _ = run(given, by=by, pi=1.0, gamma=0.75, T=1.5, prior="shares")
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("by", ["mass", "competition"])
@pytest.mark.parametrize("sharpen", [False, True])
def test_equal_sources_are_the_plain_one(by: str, sharpen: bool) -> None:
    """The content's own attention comes out when every style is the content itself."""
    given = case(3)
    given["own"] = given["content"]
    given["styles"] = [given["content"]] * 3
    q, k, v = given["content"]
    plain = (q @ k.transpose(-1, -2) / D**0.5).softmax(-1) @ v
    if sharpen:  # splitting a key in four makes the largest weight smaller, so that sharpening has work to do
        assert not torch.allclose(run(given, by=by, T=1.0, sharpen=True)[0], plain, atol=1e-3)
        return
    torch.testing.assert_close(run(given, by=by, T=1.0)[0], plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run(given, by=by, T=1.0, masks=None)[0], plain, rtol=1e-4, atol=1e-5)


def test_the_prior_of_competition() -> None:
    given = case(2)
    _, masks = run(given, by="competition")
    _, shares = run(given, by="competition", prior="shares", pi=0.3)
    odds = shares.shares[0, :, 1, 4] / shares.shares[0, :, 0, 4]
    other = masks.shares[0, :, 1, 4] / masks.shares[0, :, 0, 4]
    torch.testing.assert_close(odds / other, torch.full((HEADS,), 0.3 / 0.7))  # where the first mask alone is 1


def test_rows_and_masks_of_their_own() -> None:
    given = case(2, rows=2)
    both = torch.stack([given["masks"], given["masks"].flip(-1)])
    out, _ = run(given, masks=both)
    for row in range(2):
        alone, _ = run({**given, "own": [t[row : row + 1] for t in given["own"]], "masks": both[row]})
        torch.testing.assert_close(out[row : row + 1], alone)
    with pytest.raises(UserError, match="masks of 3 pictures were given for a batch of 2"):
        run(given, masks=both[:1].expand(3, -1, -1, -1))


def test_sources_in_the_same_batch() -> None:
    given = case(2)
    sources = [given["own"], given["content"], given["styles"][0]]
    batch = [torch.cat(parts) for parts in zip(*sources, strict=True)]
    mask = given["masks"][:1]
    expected, _ = run({**given, "styles": given["styles"][:1], "masks": mask})
    call = call_at()
    call.clock.size = (HEIGHT, WIDTH)
    out = Mix(Rows(1, 2), [Rows(2, 3)], mask, rows=Rows(0, 1))(*batch, call=call)
    torch.testing.assert_close(out[:1], expected)
    q, k, v = batch
    torch.testing.assert_close(out[1:], (q @ k.transpose(-1, -2) / D**0.5).softmax(-1)[1:] @ v[1:])


def test_half_precision() -> None:
    given = case(2)
    expected, report = run(given, sharpen=True)
    halves: dict[str, Any] = {
        "own": [t.bfloat16() for t in given["own"]],
        "content": [t.bfloat16() for t in given["content"]],
        "styles": [[t.bfloat16() for t in style] for style in given["styles"]],
        "masks": given["masks"],
    }
    out, half = run(halves, sharpen=True)
    assert out.dtype is torch.bfloat16 and half.shares.dtype is torch.float32
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.1)
    torch.testing.assert_close(half.shares, report.shares, rtol=0.1, atol=0.05)


def test_masks_at_the_size_of_a_site() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :1] = 1
    assert torch.equal(resized(mask, (2, 2))[0, 0], torch.tensor([[0.5, 0], [0, 0]]))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"masks": torch.zeros(2, 4, 4)}, "masks are empty"),
        ({"masks": torch.full((2, 4, 4), float("nan"))}, "between 0 and 1, without NaN"),
        ({"masks": torch.full((2, 4, 4), 2.0)}, "between 0 and 1"),
        ({"masks": torch.ones(3, 4, 4)}, r"2 style\(s\) need masks of the shape \(2, H, W\), got \(3, 4, 4\)"),
        ({"masks": torch.ones(4, 4)}, "got \\(4, 4\\)"),
        ({"pi": 1.5}, "pi, .*got 1.5"),
        ({"by": "force"}, "mass or competition"),
        ({"prior": "none"}, "masks or shares"),
        ({"gamma": -1}, "gamma"),
        ({"T": 0}, "T, "),
    ],
)
def test_values_that_do_not_fit(options: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        Mix(FeatureStore(), [FeatureStore(), FeatureStore()], **options)
    with pytest.raises(UserError, match="at least one style"):
        Mix(FeatureStore(), [])
