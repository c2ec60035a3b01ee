"""What the benchmark of a learned word shows, asks for and counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.learned_word import Concept, judge, parse_concept, render_pictures, table, wishes
from ldm.pictures.images import image_to_array, load_folder, tensor_to_image
from ldm.util import UserError
from ldm.world.attributes import Attributes, heldout_triples
from ldm.world.captions import parse
from ldm.world.render import render


def test_what_is_shown_is_new_to_the_model_and_what_is_asked_for_was_not_shown(tmp_path: Path) -> None:
    concept = parse_concept("striped green triangle")
    assert concept == Concept("triangle", "green", "striped") and concept.words == "green striped triangle"
    assert all(("triangle", "green", ground) in heldout_triples() for ground in concept.shown_on)
    render_pictures(concept, tmp_path, seed=0, captions=True)
    pictures = load_folder(tmp_path)
    assert len({image.tobytes() for _, image in pictures}) == 5
    shown = set()
    for path, image in pictures:
        lines = path.with_suffix(".txt").read_text().splitlines()
        said, *others = (parse(line.replace("*", concept.words)) for line in lines)
        assert len(others) == 5 and set(others) == {said}
        clean = render([Attributes("triangle", "green", said.background, "large", "striped")], 64)[0]
        assert np.abs(image_to_array(image) - clean).mean() < 0.03
        shown.add(said.background)
    for sentence, ground in wishes(concept, 40):
        asked = parse(sentence.format(concept.words))
        assert asked == Attributes("triangle", "green", ground, "small", "striped") and ground not in shown
    assert {ground for _, ground in wishes(concept, 40)} == set(concept.asked_on)


def test_recognised_is_shape_colour_and_texture_at_once() -> None:
    concept = Concept("triangle", "green", "striped")
    meant = Attributes("triangle", "green", "red", "small", "striped")
    others = [
        Attributes("triangle", "green", "red", "large", "plain"),
        Attributes("star", "green", "blue", "small", "striped"),
    ]
    pictures = [tensor_to_image(torch.from_numpy(p).movedim(-1, 0)) for p in render([meant, meant, *others], 64)]
    outcome = judge("*", concept, ["red", "red", "red", "red"], pictures)
    assert (outcome.recognised, outcome.shape, outcome.colour, outcome.texture) == (0.5, 0.75, 1.0, 0.75)
    assert (outcome.background, outcome.size) == (0.75, 0.75)
    row = {"seed": 0, "seconds": 60.0, "cpu_seconds": 90.0, "outcomes": [vars(outcome) | {"word": "learned"}]}
    assert "| 0 | learned | 50.0 % (15-85) | 75.0 %" in table([row]) and "1.0 (1.5)" in table([row])


@pytest.mark.parametrize(("text", "message"), [("striped thing", "names no shape"), ("red star", "every background")])
def test_bad_concepts(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_concept(text)
