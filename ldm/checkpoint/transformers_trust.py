"""What a folder of transformers may name: classes of the library that prepare inputs, and nothing that is run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ldm.util import UserError, parse_json_object

# transformers looks up the name that stands there among everything that it has, models that ask for code included
_CLASSES = {
    "tokenizer_class": ("PreTrainedTokenizerBase",),
    "image_processor_type": ("ImageProcessingMixin",),
    "feature_extractor_type": ("FeatureExtractionMixin", "ImageProcessingMixin"),
    "video_processor_type": ("BaseVideoProcessor",),
    "processor_class": ("ProcessorMixin",),
}
_REFUSED = {
    "auto_map": "names code of its own (auto_map), and nothing that a folder names is run",
    "configuration_files": "names other configurations (configuration_files), which are not read",
    "quantization_config": "describes quantized weights (quantization_config), which are not read",
}


def check_named(folder: Path) -> None:
    """Look through the configurations of a folder before transformers reads them.

    Raises:
        UserError: one is no JSON object, names code or another kind of class, or is of quantized weights or an adapter.
    """
    for path in sorted(folder.glob("*config*.json")):
        if path.name == "adapter_config.json":
            raise UserError(f"there is an adapter of PEFT in '{folder}': merge it into the weights, or take it out")
        for key, value in _entries(parse_json_object(path.read_bytes(), f"'{path}'")):
            if key in _REFUSED and value:
                raise UserError(f"'{path}' {_REFUSED[key]}")
            if key in _CLASSES and isinstance(value, str) and not _is_class(value, _CLASSES[key]):
                raise UserError(f"'{path}' names '{value}' as its {key}, and that is none of transformers")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """The keys and values of an object and of those within it."""
    if isinstance(value, dict):
        yield from value.items()
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _entries(inner)


def _is_class(name: str, kinds: tuple[str, ...]) -> bool:
    """Whether whatever transformers finds under a name, or under what it makes of it, is of a kind.

    A name of none, of older versions say, is of every kind: transformers takes what belongs to the model instead.
    """
    import transformers
    from transformers.utils.import_utils import DummyObject

    bases = tuple(getattr(transformers, kind) for kind in kinds)
    names = {name, name.replace("FeatureExtractor", "ImageProcessor")}
    bare = {re.sub("(Fast)+$", "", one) for one in names}
    for one in names | {f"{one}{end}" for one in bare for end in ("", "Fast", "Pil")}:
        found = getattr(transformers, one, None)
        if found is None or isinstance(found, DummyObject):  # the latter says which package it needs
            continue
        if not (isinstance(found, type) and issubclass(found, bases)):
            return False
    return True
