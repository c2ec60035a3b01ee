"""From YAML files and command-line changes to one resolved configuration."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ldm.building.interpolation import check_interpolations, hide_environment, show_environment
from ldm.runs import WORDS, given_or_latest
from ldm.util import ConfigError, nearest, read_yaml

log = logging.getLogger(__name__)

PERSONALIZATION = "model.params.personalization_config.params"
CLASS_PICTURES = "data.params.reg"  # DreamBooth's second data set
SECTIONS = ("model", "data", "lightning", "stages", "inference")
START = "start_of_run"  # in a saved YAML: at which start of its run it was written, from 1
PERSONAL_PICTURES = "ldm.data.personalized"  # data sets whose sentences have a placeholder
AROUND = "ldm.world.around"  # what is around it, beside them


def read_config(paths: Sequence[str], changes: Sequence[str], found: Sequence[str] = ()) -> DictConfig:
    """Merge YAMLs left to right, then ``a.b=c`` changes; those that runs have saved in the order of their starts.

    References to other values are resolved; ``${oc.env:NAME}`` stays as it is until a value is used, so that nothing of
    the environment is in what is saved.

    Args:
        paths: YAMLs that the user named.
        changes: as on the command line.
        found: YAMLs of the run that goes on, which come first and may not name foreign classes.

    Raises:
        ConfigError: a file that is missing or is no YAML mapping, or a change that cannot be read.
    """
    parts = in_order([*map(read_yaml, found), *(read_yaml(path, named=True) for path in paths)])
    if parts:
        check_sections(changes, {*SECTIONS, *(str(name) for part in parts for name in part)})
    try:
        written = OmegaConf.to_container(OmegaConf.merge(*parts, OmegaConf.from_dotlist(list(changes))))
        check_interpolations(written, "the configuration")
        merged = OmegaConf.create(hide_environment(written))
        OmegaConf.resolve(merged)
        shown = OmegaConf.create(show_environment(OmegaConf.to_container(merged)))
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"the configurations do not fit together: {_first_line(error)}") from error
    assert isinstance(shown, DictConfig)
    shown.pop(START, None)
    return shown


def check_sections(changes: Sequence[str], known: Collection[str]) -> None:
    """Refuse changes of a section that no YAML has, which nothing would read.

    Raises:
        ConfigError: names the section and the nearest one.
    """
    for change in changes:
        section = change.partition("=")[0].partition(".")[0]
        if section not in known:
            others = nearest(section, sorted(known))
            raise ConfigError(f"'{change}': the configuration has no section '{section}'; {others}")


def in_order(documents: Sequence[DictConfig]) -> list[DictConfig]:
    """Documents as they come, but those that say at which start they were written by that, in the places they have."""
    places = [place for place, document in enumerate(documents) if start_of(document)]
    ordered = list(documents)
    for place, document in zip(places, sorted((documents[p] for p in places), key=start_of), strict=True):
        ordered[place] = document
    return ordered


def start_of(document: DictConfig) -> int:
    """At which start of its run a YAML was saved; 0 for any other."""
    start = document.get(START)
    return start if isinstance(start, int) else 0


def saved_at(path: Path) -> tuple[int, str]:
    """What YAMLs of a run are ordered by: the start that they were saved at, and, where they do not say, their names.

    Raises:
        ConfigError: it is no YAML.
    """
    return start_of(read_yaml(path, named=True)), path.name  # nothing is built from it


def last_start(folder: Path) -> int:
    """The latest start that has saved its YAMLs in a run's folder of configurations; 0 for none.

    Raises:
        ConfigError: one of them is no YAML.
    """
    return max((saved_at(path)[0] for path in folder.glob("*.yaml")), default=0)


def require(config: DictConfig, section: str) -> Any:
    """A section that must be there.

    Raises:
        ConfigError: it is not.
    """
    node = OmegaConf.select(config, section)
    if node is None:
        raise ConfigError(f"the configuration has no section '{section}'")
    return node


def apply_personalization(config: DictConfig, options: argparse.Namespace) -> None:
    """Write --data_root, --init_word, --placeholder_string and --embedding_manager_ckpt into the configuration.

    Raises:
        ConfigError: the configuration has no place for one of them.
    """
    if options.data_root:
        for name in ("train", "validation"):
            if OmegaConf.select(config, f"data.params.{name}") is not None:
                OmegaConf.update(config, f"data.params.{name}.params.data_root", options.data_root, force_add=True)
    words = options.embedding_manager_ckpt or None
    values = {
        "initializer_words": [options.init_word] if options.init_word else None,
        "placeholder_strings": [options.placeholder_string] if options.placeholder_string else None,
        "embedding_manager_ckpt": words and str(given_or_latest(words, WORDS, options.logdir)),
    }
    for name, value in values.items():
        if value is None:
            continue
        if OmegaConf.select(config, PERSONALIZATION) is None:
            if name == "placeholder_strings" and personal_pictures(config):
                continue  # a LoRA learns what its sentences call by a word that is there
            raise ConfigError(f"the configuration has no section '{PERSONALIZATION}' to put {name} into")
        OmegaConf.update(config, f"{PERSONALIZATION}.{name}", value, merge=False, force_add=True)
    apply_class(config, options)
    if options.placeholder_string:
        for place in personal_pictures(config):
            OmegaConf.update(config, f"{place}.params.placeholder_token", options.placeholder_string, force_add=True)
    apply_around(config)


def apply_around(config: DictConfig) -> None:
    """Have scenes in which a word stands for a thing say the words that learn, unless they are told another."""
    words = OmegaConf.select(config, f"{PERSONALIZATION}.placeholder_strings")
    around = str(OmegaConf.select(config, f"{CLASS_PICTURES}.target")).startswith(AROUND)
    token = f"{CLASS_PICTURES}.params.placeholder_token"
    if words and around and OmegaConf.select(config, token) is None:
        OmegaConf.update(config, token, words, force_add=True)


def apply_class(config: DictConfig, options: argparse.Namespace) -> None:
    """Write --reg_data_root and --class_word into the configuration: sentences about the subject and about its class.

    Raises:
        ConfigError: the configuration has no data set of class pictures, or nobody says what they show.
    """
    has_class = OmegaConf.select(config, CLASS_PICTURES) is not None
    if options.reg_data_root:
        if not has_class:
            raise ConfigError(f"the configuration has no section '{CLASS_PICTURES}' to put --reg_data_root into")
        OmegaConf.update(config, f"{CLASS_PICTURES}.params.data_root", options.reg_data_root, force_add=True)
    by_word = has_class and is_personal(config, CLASS_PICTURES)  # others bring their own sentences
    if not options.class_word:
        if by_word and OmegaConf.select(config, f"{CLASS_PICTURES}.params.placeholder_token") is None:
            raise ConfigError("say what the subject is one of, as in --class_word dog")
        return
    for place in personal_pictures(config):
        OmegaConf.update(config, f"{place}.params.placeholder_token", options.class_word, force_add=True)
        if OmegaConf.select(config, f"{place}.params.templates") is None:
            sentence = f"photo of a {options.subject_word} {{}}"
            OmegaConf.update(config, f"{place}.params.templates", [sentence], force_add=True)
    if by_word:
        OmegaConf.update(config, f"{CLASS_PICTURES}.params.placeholder_token", options.class_word, force_add=True)


def personal_pictures(config: DictConfig) -> list[str]:
    """Where the configuration has data sets whose sentences have a placeholder."""
    return [p for p in ("data.params.train", "data.params.validation") if is_personal(config, p)]


def is_personal(config: DictConfig, place: str) -> bool:
    """Whether the data set at a place has sentences with a placeholder."""
    return str(OmegaConf.select(config, f"{place}.target")).startswith(PERSONAL_PICTURES)


def warn_of_nothing_to_hold(config: DictConfig) -> None:
    """Say it where a LoRA is to be held to its base model and there are no other pictures to hold it by."""
    wants = OmegaConf.select(config, "model.params.reg_target") == "base"
    if wants and OmegaConf.select(config, CLASS_PICTURES) is None:
        log.warning("reg_target: base holds a LoRA by other pictures, and there is no '%s': it learns as without",
                    CLASS_PICTURES)  # fmt: skip


def check_placeholders(config: DictConfig) -> None:
    """Refuse sentences that never say the word which is to be learned.

    Raises:
        ConfigError: a data set's placeholder is not among those that learn.
    """
    known = OmegaConf.select(config, f"{PERSONALIZATION}.placeholder_strings")
    if OmegaConf.select(config, "model.params.reg_weight") is not None:
        return  # DreamBooth learns no words
    if known is None or OmegaConf.select(config, f"{PERSONALIZATION}.embedding_manager_ckpt"):
        return
    for place in personal_pictures(config):
        params = OmegaConf.select(config, f"{place}.params") or {}
        roots = params.get("data_root")
        said = list(roots) if isinstance(roots, DictConfig) else [params.get("placeholder_token", "*")]
        missing = [word for word in said if word not in known]
        if missing:
            raise ConfigError(
                f"the sentences of {place} say '{missing[0]}', but what learns is {', '.join(map(repr, known))}: "
                "give both the same with --placeholder_string"
            )


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
