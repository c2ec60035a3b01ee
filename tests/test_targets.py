"""Names in public configurations that have moved, or that are not carried."""

from __future__ import annotations

import pytest

from ldm.targets import MOVED, NOT_CARRIED, current_name
from ldm.util import ConfigError, MissingPartError, get_obj_from_str, instantiate_from_config


@pytest.mark.parametrize(
    "target",
    [
        "ldm.data.imagenet.ImageNetTrain",
        "ldm.data.lsun.LSUNChurchesTrain",
        "ldm.data.laion.WebDataModuleFromConfig",
        "ldm.data.openimages.FullOpenImagesTrain",
        "taming.data.faceshq.FFHQTrain",
        "ldm.modules.encoders.modules.FrozenT5Embedder",
    ],
)
def test_what_is_not_carried_is_declined_with_one_sentence(target: str) -> None:
    with pytest.raises(MissingPartError) as raised:
        instantiate_from_config({"target": target, "params": {"size": 256}})
    message = str(raised.value)
    assert target in message and "\n" not in message
    assert not message.rstrip(".").count(". "), message


def test_what_the_sentences_recommend_exists() -> None:
    for sentence in NOT_CARRIED.values():
        for word in sentence.replace(",", " ").replace(";", " ").split():
            if word.startswith("ldm.") and word[word.rfind(".") + 1].isupper():
                get_obj_from_str(word)


@pytest.mark.parametrize("old", MOVED)
def test_what_has_moved_is_found(old: str) -> None:
    if old == "lightning.pytorch":
        old = "lightning.pytorch.strategies.DDPStrategy"
    assert get_obj_from_str(old) is get_obj_from_str(current_name(old))


def test_only_whole_names_are_prefixes() -> None:
    assert current_name("lightning.pytorch_other.X") == "lightning.pytorch_other.X"
    with pytest.raises(ConfigError, match=r"there is no module 'ldm\.data\.imagenets'"):
        get_obj_from_str("ldm.data.imagenets.Train")


def test_a_name_that_exists_is_not_declined() -> None:
    assert get_obj_from_str("collections.OrderedDict").__name__ == "OrderedDict"
