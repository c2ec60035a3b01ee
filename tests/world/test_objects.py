"""The atlas of objects: what is in it, what its things are called."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ldm.util import UserError
from ldm.world.objects import ATLAS, drawing, object_called, objects
from ldm.world.scene import COLOURS
from ldm.world.sentences import chinese_words as chinese
from ldm.world.sentences import english
from ldm.world.sentences import korean_words as korean


def test_every_object_has_a_drawing_names_and_a_measure_word() -> None:
    assert len(objects()) == 125
    for name, thing in objects().items():
        assert all(form.strip() == form and form for forms in thing.forms.values() for form in forms), name
        assert thing.colour is None or thing.colour in COLOURS, name
        assert all(word.strip() and len(word) <= 3 for words in thing.counters.values() for word in words), name
        assert thing.pose in korean.POSES and thing.pose in chinese.POSES, name
        sprite = drawing(name, 64)
        assert sprite.shape == (64, 64, 4) and 0.1 < sprite[..., 3].mean() < 0.85, name
        assert (sprite[..., :3] <= sprite[..., 3:] + 0.02).all(), name  # colours times coverage
        assert sprite[0].max() == sprite[:, -1].max() == 0  # room for an outline


@pytest.mark.parametrize(("language", "shapes"), [("en", english), ("ko", korean), ("zh", chinese)])
def test_no_two_things_have_the_same_name(language: str, shapes: object) -> None:
    forms = [form for thing in objects().values() for form in thing.forms[language]]
    forms += [form for words in shapes.SHAPES.values() for form in words]  # type: ignore[attr-defined]
    assert [form for form, count in Counter(forms).items() if count > 1] == []


def test_drawings_differ_even_when_small() -> None:
    small = {name: drawing(name, 32) for name in objects()}
    names = list(small)
    flat = np.stack([small[name].ravel() for name in names])
    for i, name in enumerate(names):
        distance = np.abs(flat - flat[i]).mean(1)
        distance[i] = 1
        assert distance.min() > 0.03, (name, names[int(distance.argmin())])


def test_the_atlas_is_small_and_says_whose_it_is() -> None:
    assert sum(path.stat().st_size for path in Path(ATLAS).iterdir()) < 500_000
    notice = (ATLAS / "NOTICE.md").read_text(encoding="utf-8")
    assert "Apache License 2.0" in notice and "Unicode License" in notice and "Noto" in notice


def test_an_unknown_object_is_named() -> None:
    with pytest.raises(UserError, match="no object 'dragon'; it has: apple, banana"):
        object_called("dragon")
