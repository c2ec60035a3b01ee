"""Where textual inversion will act: trained vectors in the place of placeholders, against the original's numbers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from tests.helpers import golden_case, golden_embedder


class OneVectorPerWord:
    """The smallest manager: each placeholder's vectors are replaced by its trained one."""

    def __init__(self, vectors: Mapping[int, Tensor]) -> None:
        self.vectors = vectors

    def __call__(self, tokens: Tensor, embedded: Tensor) -> Tensor:
        for token, vector in self.vectors.items():
            embedded[tokens == token] = vector
        return embedded


@pytest.mark.parametrize("name", ["ti_bert", "ti_clip"])
def test_golden(name: str) -> None:
    case = golden_case(name)
    model, tokens, vocabulary = golden_embedder(case), case.inputs["tokens"], case.args["vocabulary"]
    trained = "managers.v1.string_to_param_dict."
    manager = OneVectorPerWord(
        {vocabulary[word]: case.weights[trained + word][0] for word in case.args["placeholders"]}
    )
    with torch.no_grad():
        case.assert_close("encoded_plain", model.encode(tokens))
        case.assert_close("v1.encoded", model.encode(tokens, embedding_manager=manager))
    assert torch.equal(tokens, case.inputs["tokens"])


@pytest.mark.parametrize("name", ["ti_bert", "ti_clip"])
def test_initial_vectors(name: str) -> None:
    case = golden_case(name)
    model = golden_embedder(case)
    for word in case.args["initializer_words"]:
        vector = model.initial_vector(case.args["vocabulary"][word])
        case.assert_close(f"initial.{word}", vector.expand(case.args["num_vectors_N"], -1))
