"""Measures against numbers of the packages that papers use."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.metrics import clip_scores, sets
from ldm.metrics.histogram import Kernel, hellinger, rgb_uv_histogram
from ldm.metrics.inception import Inception, enter_2015
from ldm.metrics.perceptual import (
    cfsd,
    cfsd_through,
    feature_distance,
    log_self_similarity,
    lpips,
    lpips_heads,
    lpips_input,
    lpips_layers,
)
from ldm.metrics.towers import alexnet, vgg16, vgg19
from tests.helpers import GoldenCase, golden_case
from tests.metrics.drawn import drawn


def test_sets_of_features() -> None:
    case = golden_case("eval_features")
    a, b, c, d = (case.inputs[name] for name in "abcd")
    rows = case.args["kid_rows"]
    fid = sets.frechet_distance(a, b)
    found = {
        "fid": fid,
        "fid_singular": sets.frechet_distance(c, d),
        "kid": sets.kernel_distance(a[:rows], b[:rows]),
        "artfid": sets.art_fid(case.args["lpips_for_artfid"], fid),
    }
    for k, suffix in ((3, ""), (5, "_k5")):
        found[f"precision{suffix}"], found[f"recall{suffix}"] = sets.precision_recall(a, b, k)
    for name, value in found.items():
        case.assert_close(name, torch.tensor(value, dtype=torch.float64))
    assert found.keys() == case.expected.keys()


@pytest.mark.parametrize("block", [7, 1024])
def test_cfsd_of_features(block: int) -> None:
    case = golden_case("eval_cfsd")
    stylised, content = case.inputs["stylised"], case.inputs["content"]
    case.assert_close("cfsd", cfsd(stylised, content, block))
    case.assert_close("cfsd_identity", cfsd(content, content, block))
    by_columns = [image.transpose(2, 3)[0].flatten(1) for image in (stylised, content)]
    case.assert_close("log_similarity", log_self_similarity(by_columns[0])[None])
    case.assert_close("similarity", log_self_similarity(by_columns[1]).exp()[None])


def test_colour_histograms() -> None:
    case = golden_case("eval_histogram")
    a, b, wide = (case.inputs[name] for name in ("image_a", "image_b", "image_wide"))
    case.assert_close("hist_a", rgb_uv_histogram(a))
    case.assert_close("hist_b_sums", rgb_uv_histogram(b).sum(dim=(2, 3)))
    kernels: dict[str, Kernel] = {"ab": "inverse-quadratic", "rbf": "RBF", "threshold": "thresholding"}
    for name, kernel in kernels.items():
        case.assert_close(f"distance_{name}", hellinger(rgb_uv_histogram(a, kernel), rgb_uv_histogram(b, kernel))[0])
    case.assert_close("distance_a_wide", hellinger(rgb_uv_histogram(a), rgb_uv_histogram(wide))[0])
    case.assert_close("distance_identity", hellinger(rgb_uv_histogram(a), rgb_uv_histogram(a))[0])


def test_lpips_of_features() -> None:
    case = golden_case("eval_lpips")
    x, y, heads = ([case.inputs[f"{name}{layer}"] for layer in range(5)] for name in ("x", "y", "lin"))
    layers = lpips_layers(x, y, heads)
    for number, layer in enumerate(layers):
        case.assert_close(f"layer{number}", layer)
    case.assert_close("lpips", torch.stack(layers).sum(dim=0))
    case.assert_close("scaled", lpips_input(case.inputs["image"]))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(lpips_heads("alex"), heads, strict=True))


def test_scores_of_clip() -> None:
    case = golden_case("eval_clip_score")
    images, texts = case.inputs["image_features"], case.inputs["text_features"]
    edited, edited_texts = case.inputs["edited_image_features"], case.inputs["edited_text_features"]
    case.assert_close("cosine", clip_scores.cosine(images, texts))
    case.assert_close("clip_score", clip_scores.clip_score(images, texts))
    case.assert_close("clip_score_mean", clip_scores.mean_clip_score(images, texts))
    case.assert_close("clip_s", clip_scores.clip_s(images, texts))
    case.assert_close("directional", clip_scores.directional(images, edited, texts, edited_texts))


@pytest.fixture(scope="module")
def networks() -> GoldenCase:
    return golden_case("eval_networks")


@torch.no_grad()
def test_distances_through_whole_networks(networks: GoldenCase) -> None:
    a, b = (networks.inputs[name][None] / 255 for name in "ab")
    for name, tower in (("alex", alexnet()), ("vgg", vgg16())):
        tower.load_state_dict(drawn(tower))
        networks.assert_close(f"lpips_{name}", torch.tensor([lpips(tower, lpips_heads(name))(a, b)]))
        if name == "alex":
            networks.assert_close("alexnet", torch.tensor([feature_distance(tower)(a, b)]))
    tower = vgg19()
    tower.load_state_dict(drawn(tower))
    found = cfsd_through(tower)(a, b)
    exact = cfsd_through(tower.double())(a.double(), b.double())
    assert found == pytest.approx(exact, rel=2e-3)
    # the reference's sum in float32 is 2.4 % off the same sum in float64, as ours would be without its correction
    assert found == pytest.approx(float(networks.expected["cfsd"]), rel=0.03)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return drawn(Inception())  # both have the same names and shapes


@torch.no_grad()
def test_features_of_the_art_network(networks: GoldenCase, weights: dict[str, Tensor]) -> None:
    network = Inception()
    network.load_state_dict(weights)
    picture = F.interpolate(networks.inputs["a"][None] / 255, (107, 121), mode="nearest")
    networks.assert_close("art_inception", network.eval()(picture)[0])


@torch.no_grad()
def test_features_of_the_network_of_2015(networks: GoldenCase, weights: dict[str, Tensor]) -> None:
    network = Inception(of_2015=True)
    network.load_state_dict(weights)
    networks.assert_close("inception_2015", network.eval()(enter_2015(networks.inputs["a"][None] / 255))[0])


def test_fid_of_more_pictures_than_features_and_fewer() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(40, 6, dtype=torch.float64), 1 + 2 * torch.randn(30, 6, dtype=torch.float64)
    product = a.T.cov() @ b.T.cov()
    root = torch.linalg.eigvals(product).sqrt().real.sum()
    by_definition = (a.mean(0) - b.mean(0)).square().sum() + a.T.cov().trace() + b.T.cov().trace() - 2 * root
    assert sets.frechet_distance(a, b) == pytest.approx(float(by_definition), rel=1e-9)
    assert sets.frechet_distance(a, a[torch.randperm(40)]) == pytest.approx(0, abs=1e-9)
    twice = torch.cat([a, a])  # styles that several pairs share
    assert sets.frechet_distance(twice, twice) == pytest.approx(0, abs=1e-9)


def test_fid_of_infinitely_many_is_the_fid_of_a_few_and_less_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(1500, 24), torch.randn(1500, 24)  # of one distribution: 0 for infinitely many
    assert sets.frechet_infinity(a, b) == sets.frechet_distance(a, b)
    monkeypatch.setattr(sets, "FIRST_POINT", 100)
    assert abs(sets.frechet_infinity(a, b)) < sets.frechet_distance(a, b) / 2
    assert sets.frechet_infinity(a, b) == sets.frechet_infinity(a, b)
