"""The LoRAs of a request, on the model for as long as its pictures need them: named ones, and those of prompts."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ldm.additions.base import applied
from ldm.additions.lora.lora import Lora
from ldm.additions.lora.scales import parse_lora
from ldm.additions.reading import as_list, read_loras, read_others
from ldm.workflows.batches import Batch
from ldm.workflows.lora_calls import FOLDER, calls_in, find_lora, without_calls
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.studio import Studio


@dataclass(frozen=True)
class Loras:
    """What was read: ``named`` are on for every picture, ``called`` for the prompts that call them."""

    named: tuple[Lora, ...]
    called: Mapping[str, tuple[Lora, ...]]

    @property
    def everything(self) -> list[Lora]:
        return [*self.named, *itertools.chain.from_iterable(self.called.values())]

    def of(self, prompt: str) -> tuple[Lora, ...]:
        """Those that are on the model for a prompt."""
        return (*self.named, *self.called[prompt])

    def about(self, *prompts: str) -> dict[str, list[str]]:
        """What a picture's parameters say of them; nothing where there are none."""
        labels = dict.fromkeys(lora.label for prompt in prompts for lora in self.of(prompt))
        return {"loras": list(labels)} if labels else {}


def read_all(options: Txt2ImgOptions, studio: Studio, prompts: Sequence[str]) -> Loras:
    """The LoRAs that options (or the YAML's ``inference:``) name, and those that prompts call; each file is read once.

    Raises:
        UserError: a file is missing, none, or for another model.
    """
    texts = as_list(studio.inference.get("lora") if options.lora is None else options.lora)
    folder = Path(options.lora_dir or studio.inference.get("lora_dir") or FOLDER)
    calls = {prompt: [(find_lora(c.name, folder), c.scales) for c in calls_in(prompt)] for prompt in prompts}
    named = read_loras(studio.model, [parse_lora(text) for text in texts], options.lora_dora)
    called = iter(read_loras(
        studio.model, [source for sources in calls.values() for source in sources], options.lora_dora, strict=False
    ))  # fmt: skip
    return Loras(tuple(named), {p: tuple(itertools.islice(called, len(sources))) for p, sources in calls.items()})


def worn(model: Any, loras: Loras, batches: Sequence[Batch]) -> Generator[tuple[Batch, Batch], None, None]:
    """Batches in order, cut where prompts call different LoRAs: as written, and as it is read.

    The LoRAs of a batch are on the model while the caller works on it, who closes this whatever happens.
    """
    parts: list[Batch] = []
    for batch in batches:
        called = [_labels(loras, prompt) for prompt in batch.prompts]
        alike = itertools.groupby(range(len(called)), key=called.__getitem__)
        parts += [batch.part(list(rows)) for _, rows in alike]
    for _, group in itertools.groupby(parts, key=lambda part: _labels(loras, part.prompts[0])):
        same = list(group)
        with applied(model, loras.of(same[0].prompts[0])):
            for written in same:
                yield written, replace(written, prompts=[without_calls(prompt) for prompt in written.prompts])


def _labels(loras: Loras, prompt: str) -> list[tuple[Path, str]]:
    return [(lora.file.path, str(lora.scales)) for lora in loras.of(prompt)]


class NamesLoras(Protocol):
    """Options that name LoRAs."""

    lora: Sequence[str] | None
    lora_dora: str


@contextlib.contextmanager
def wearing(options: NamesLoras, studio: Studio) -> Iterator[list[str]]:
    """Within the block the LoRAs that options (or the YAML's ``inference:``) name are on the model, and their words.

    Yields:
        what records call them.

    Raises:
        UserError: a file is missing, none, or for another model.
    """
    texts = as_list(studio.inference.get("lora") if options.lora is None else options.lora)
    loras = read_loras(studio.model, [parse_lora(text) for text in texts], options.lora_dora)
    with applied(studio.model, [*loras, *read_others(studio.model, None, None, loras)]):
        yield [lora.label for lora in loras]
