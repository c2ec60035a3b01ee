"""``--expand FOLDER``: a causal language model on this disk goes on where a prompt ends.

The prompt itself stays as it was written, letter for letter: no learned word and no LoRA that it calls is lost. What is
put behind it has none of the signs that mean something in prompts, nor BREAK, and begins with a word of its own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ldm.checkpoint.transformers_folder import read_preparation, read_transformers
from ldm.modules.encoders.long_prompts import BREAK
from ldm.modules.encoders.prompt_weights import read_weights
from ldm.util import UserError, printable
from ldm.workflows.batches import Batch
from ldm.workflows.lora_calls import without_calls

log = logging.getLogger(__name__)

WHAT = "causal language model"
TOKENS = 40  # that are put behind a prompt, at most
SAMPLING = {"do_sample": True, "num_beams": 1, "top_k": 50, "top_p": 0.95, "temperature": 0.9}
_SIGNS = re.compile(r"[^\w\s,.;:!?'’&%/\-–，。、；：！？]|_")  # brackets, stars, bars, ...
_WORD_END = re.compile(r"[\s,.;:!?，。、；：！？]")
_PHRASE = re.compile(r".*[,.;，。；]", re.DOTALL)
_LOOSE_END = " \t,;:/&-–，、；："
_FIRST_UNSPACED, _HANGUL = "\u2e80", range(0xAC00, 0xD7A4)  # Chinese and Japanese letters go without blanks


class Expander:
    """A language model that goes on with prompts, on the CPU, so that it says the same whatever draws.

    Args:
        folder: of transformers: the model and its tokenizer.

    Raises:
        UserError: there is no such model.
        MissingPartError: it needs a package that is not installed.
    """

    def __init__(self, folder: str) -> None:
        self.name = Path(folder).resolve().name
        self.model = read_transformers(folder, ("AutoModelForCausalLM",), WHAT)
        self.tokenizer = read_preparation(folder, "AutoTokenizer", WHAT)

    def __call__(self, prompt: str, seed: int) -> str:
        """The prompt and what follows; the prompt as it is where nothing does. The same for the same seed.

        Raises:
            UserError: the model cannot go on, or weights in the prompt mean nothing.
        """
        said = read_weights(without_calls(prompt)).text.strip()
        whole = joined(prompt, self._continued(said, seed)) if said else prompt
        if whole == prompt:
            log.info("not expanded: %s puts nothing behind '%s'", self.name, printable(prompt))
        else:
            log.info("expanded by %s: %s", self.name, printable(whole))
        return whole

    def _continued(self, text: str, seed: int) -> str:
        """What the model says after a text: to its own end, else to that of a phrase."""
        from transformers import GenerationConfig

        ends = self.tokenizer.eos_token_id
        limit = getattr(self.model.config, "max_position_embeddings", None) or 1 << 20
        new = min(TOKENS, limit // 2)
        try:
            ids = self.tokenizer(text, return_tensors="pt")["input_ids"][:, new - limit :]
            if not ids.numel():
                raise ValueError("its tokenizer, if there is one in the folder, finds no words in it")
            asked = GenerationConfig(max_new_tokens=new, eos_token_id=ends, pad_token_id=ends or 0, **SAMPLING)
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed those of GPUs too
                made = self.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=asked)
            tokens = made[0, ids.shape[1] :].tolist()
            said = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"the {WHAT} '{self.name}' cannot go on with '{printable(text)}': {reason}") from error
        if ends in tokens or "\n" in said.strip():
            return said
        phrases = _PHRASE.match(said)
        return phrases[0] if phrases else said.rpartition(" ")[0]  # its last word may be half a word


def joined(prompt: str, continuation: str) -> str:
    """A prompt with the first line of a continuation behind it, as far as that has words of its own."""
    lines = continuation.strip("\n").split("\n")
    said = re.sub(r"\s+", " ", BREAK.sub("", _SIGNS.sub("", lines[0]))).rstrip(_LOOSE_END)
    if said and not _WORD_END.match(said) and not (_is_unspaced(said[0]) and _is_unspaced(prompt[-1:])):
        said = said[found.start() :] if (found := _WORD_END.search(said)) else ""  # the rest of the prompt's last word
    return prompt.rstrip() + said if said.strip(_LOOSE_END + ".!?。！？") else prompt


def _is_unspaced(letter: str) -> bool:
    return letter >= _FIRST_UNSPACED and ord(letter) not in _HANGUL


def with_expansions(batches: Sequence[Batch], folder: str | None) -> list[Batch]:
    """Batches whose prompts the language model in a folder has gone on with, each by its picture's seed.

    Raises:
        UserError: as ``Expander``.
    """
    if folder is None:
        return list(batches)
    expander = Expander(folder)
    made = []
    for batch in batches:
        prompts = [expander(prompt, seed) for prompt, seed in zip(batch.prompts, batch.seeds, strict=True)]
        made.append(replace(batch, prompts=prompts, given=tuple(batch.prompts), expander=expander.name))
    return made
