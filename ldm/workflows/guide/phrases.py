"""What each region of a picture is told: the prompt with one of its boxed phrases, without the others."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ldm.util import UserError
from ldm.workflows.guide.places import numbered

ARTICLES = r"(?:an?|the)"
JOINING = re.compile(rf"[\s,;]*(?:\b(?:{ARTICLES}|and|or|of|with)\b[\s,;]*)*$", re.IGNORECASE)
PLACING = frozenset({"on", "in", "at", "before", "behind", "under", "over", "above", "below", "near", "with"})


@dataclass(frozen=True)
class Parted:
    """A prompt parted at its boxed phrases.

    Attributes:
        phrases: each as it stands there, with its article and weight; as it was given where the prompt lacks it.
        head, tail: what is before the first and after the last of them.
    """

    phrases: tuple[str, ...]
    head: str
    tail: str

    @property
    def rest(self) -> str:
        """The prompt without its phrases and what joins them."""
        return f"{JOINING.sub('', self.head)} {self.tail.lstrip(' ,;.')}".strip()

    def prompt(self, phrase: str) -> str:
        """The prompt of one region: a phrase with what the prompt says of the whole picture."""
        if self.head or self.tail:
            return f"{self.head}{phrase}{self.tail}"
        return phrase


def part(prompt: str, phrases: Sequence[str]) -> Parted:
    """Part a prompt at phrases; of those with a number, such as ``star#2``, at that time that they stand there.

    Raises:
        UserError: it does not stand there so often.
    """
    found = [_stands(prompt, phrase) for phrase in phrases]
    own = tuple(
        numbered(phrase)[0] if one is None else prompt[one[0][0] : one[0][1]]
        for phrase, one in zip(phrases, found, strict=True)
    )
    spans = [span for one in found if one is not None for span in one]
    if spans:
        return Parted(own, prompt[: min(start for start, _ in spans)], prompt[max(end for _, end in spans) :])
    whole = prompt.strip()
    if not whole:
        return Parted(own, "", "")
    return Parted(own, "", f" {whole}" if whole.split()[0].lower() in PLACING else f", {whole}")


def sized(phrase: str, size: str, sizes: Collection[str]) -> str:
    """A phrase with a word for its size, unless it has one."""
    if set(re.findall(r"\w+", phrase.lower())) & set(sizes):
        return phrase
    return f"a {size} {re.sub(rf'^{ARTICLES} ', '', phrase, flags=re.IGNORECASE)}"


def _stands(prompt: str, phrase: str) -> list[tuple[int, int]] | None:
    """Where a phrase stands in a prompt, with its article and brackets of weights; None if it does not."""
    words, number = numbered(phrase)
    plain = r"\s+".join(map(re.escape, words.split()))
    weight = r"(?:\s*:\s*[\d.]+\s*(?=\)))?[)\]]*"
    pattern = rf"(?<!\w)[(\[]*(?:{ARTICLES}\s+)?[(\[]*{plain}(?!\w){weight}"
    spans = [match.span() for match in re.finditer(pattern, prompt, re.IGNORECASE)]
    if not spans:
        return None
    if number is None:
        return spans
    if not 1 <= number <= len(spans):
        raise UserError(f"the prompt '{prompt}' has '{words}' {len(spans)} times, so there is no '{phrase}'")
    return [spans[number - 1]]
