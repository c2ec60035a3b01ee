"""What learns when words are learned: the words alone, or the network beside them at a rate of its own."""

from __future__ import annotations

from typing import Any

from ldm.util import instantiate_from_config
from tests.models.test_variants import HERE, config

WORDS = {"target": f"{HERE}.Words", "params": {"placeholder_strings": ["*"]}}


def build(**more: Any) -> Any:
    return instantiate_from_config(config("LatentDiffusion", 4, "crossattn", personalization_config=WORDS, **more))


def test_only_the_words_learn() -> None:
    model = build()
    assert model.trained_parameters() == [{"params": [model.embedding_manager.vector]}]
    assert not any(p.requires_grad for p in model.model.parameters())


def test_the_network_learns_beside_them_at_its_own_rate() -> None:
    model = build(unfreeze_model=True, model_lr=1e-7)
    model.learning_rate = 5e-3
    words, network = model.configure_optimizers().param_groups
    assert words["params"] == [model.embedding_manager.vector] and words["lr"] == 5e-3
    assert list(map(id, network["params"])) == list(map(id, model.model.parameters())) and network["lr"] == 1e-7
