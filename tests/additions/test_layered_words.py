"""Words with vectors for each layer, and for each timestep: what a layer gets, gradients, files, training's start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ldm.additions.base import applied
from ldm.additions.layered_words import LayeredEmbeddingManager
from ldm.additions.reading import read_words
from ldm.additions.timed_words import TimedEmbeddingManager
from ldm.additions.words import EmbeddingManager
from ldm.modules.attention import BasicTransformerBlock
from ldm.modules.encoders.modules import BERTEmbedder
from ldm.util import ConfigError, UserError
from tests.models.small_words import small_model

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "*", "cat", "dog", "a", "of", "photo"]
LAYERS = 3


@pytest.fixture
def bert(tmp_path: Path) -> BERTEmbedder:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    torch.manual_seed(0)
    return BERTEmbedder(16, 1, len(WORDS), 10, tokenizer=str(tmp_path / "vocab.txt")).requires_grad_(False)


class Network(nn.Module):
    """Transformer blocks that keep the context they were given."""

    def __init__(self, count: int = LAYERS) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(BasicTransformerBlock(8, 1, 8, context_dim=16) for _ in range(count))
        self.contexts: list[Tensor] = []
        for block in self.blocks:
            block.get_submodule("attn2").register_forward_pre_hook(lambda _, args: self.contexts.append(args[1]))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, context)
        return x


def test_each_layer_gets_the_context_of_its_own_vectors(bert: BERTEmbedder) -> None:
    manager = LayeredEmbeddingManager(
        bert, LAYERS, placeholder_strings=["*"], initializer_words=["cat"], num_vectors_per_token=2
    )
    manager.vectors("*").data.normal_()
    network = Network()
    manager.install(network)
    network(torch.randn(2, 4, 8), manager.condition(bert.encode, ["a photo of *", "a *"]))
    for layer in range(LAYERS):
        plain = EmbeddingManager(bert, ["*"], num_vectors_per_token=2)
        plain.set_vectors({"*": manager.vectors("*")[2 * layer : 2 * layer + 2]})
        expected = bert.encode(["a photo of *", "a *"], embedding_manager=plain)
        torch.testing.assert_close(network.contexts[layer], expected)
    manager.remove()
    context = torch.randn(2, 10, 16)
    network(torch.randn(2, 4, 8), context)
    assert network.contexts[-1] is context


@pytest.mark.parametrize("kind", [LayeredEmbeddingManager, TimedEmbeddingManager])
def test_before_training_they_are_plain_words(bert: BERTEmbedder, kind: Any) -> None:
    manager = kind(bert, LAYERS, placeholder_strings=["*"], initializer_words=["cat"])
    plain = EmbeddingManager(bert, ["*"], ["cat"])
    text = ["a photo of *", "dog"]
    condition = manager.at_timestep(bert.encode, manager.condition(bert.encode, text), torch.tensor([3, 900]))
    expected = bert.encode(text, embedding_manager=plain)
    torch.testing.assert_close(condition, torch.cat([expected] * LAYERS, dim=1))


def test_a_mapper_tells_timesteps_and_layers_apart_row_by_row(bert: BERTEmbedder) -> None:
    manager = TimedEmbeddingManager(bert, LAYERS, placeholder_strings=["*"], initializer_words=["cat"])
    last: Any = manager.mappers[0].net
    nn.init.normal_(last[-1].weight)
    tokens = manager.condition(bert.encode, ["a *", "a *", "dog", "dog"])
    assert tokens.dtype is torch.long
    both = manager.at_timestep(bert.encode, tokens, torch.tensor([3, 900, 3, 900]))
    alone = manager.at_timestep(bert.encode, tokens[1:2], torch.tensor([900]))
    torch.testing.assert_close(both[1:2], alone)
    assert not torch.allclose(both[0], both[1], atol=1e-3) and torch.equal(both[2], both[3])
    first, second, _ = both[0].chunk(LAYERS)
    assert not torch.allclose(first, second, atol=1e-3)
    both.square().mean().backward()
    assert all(p.grad is not None for p in manager.embedding_parameters())


@pytest.mark.parametrize("kind", [LayeredEmbeddingManager, TimedEmbeddingManager])
def test_files(bert: BERTEmbedder, tmp_path: Path, kind: Any) -> None:
    manager = kind(bert, LAYERS, placeholder_strings=["*"], initializer_words=["cat"])
    for parameter in manager.embedding_parameters():
        parameter.data.normal_()
    manager.save(tmp_path / "words.safetensors", {"steps": "5"})
    manager.save(tmp_path / "words.pt")
    again = kind(bert, LAYERS, placeholder_strings=["*"], embedding_manager_ckpt=str(tmp_path / "words.safetensors"))
    text, t = ["a photo of *"], torch.tensor([500])
    contexts = [m.at_timestep(bert.encode, m.condition(bert.encode, text), t) for m in (manager, again)]
    torch.testing.assert_close(contexts[0], contexts[1])


def test_a_file_says_what_it_needs(tmp_path: Path) -> None:
    model = small_model(tmp_path)
    encoder = model.cond_stage_model
    for kind in (LayeredEmbeddingManager, TimedEmbeddingManager):
        manager = kind(encoder, 4, placeholder_strings=["*"], initializer_words=["red"], num_vectors_per_token=2)
        for parameter in manager.embedding_parameters():
            parameter.data.normal_()
        manager.save(tmp_path / "words.safetensors")
        (found,) = read_words([str(tmp_path / "words.safetensors")], encoder)
        assert type(found) is kind and found.files == {"*": tmp_path / "words.safetensors"}
        with applied(model, [found]):
            contexts = [m.at_timestep(encoder.encode, m.condition(encoder.encode, ["a *"]), torch.tensor([7]))
                        for m in (manager, model.embedding_manager)]  # fmt: skip
        torch.testing.assert_close(*contexts)
    EmbeddingManager(encoder, ["*"]).save(tmp_path / "plain.safetensors")
    (plain,) = read_words([str(tmp_path / "plain.safetensors")], encoder)
    assert type(plain) is EmbeddingManager


def test_a_model_trains_and_samples_with_them(tmp_path: Path) -> None:
    for target, params in (("layered_words.Layered", {}), ("timed_words.Timed", {"hidden": 16})):
        node = {
            "target": f"ldm.modules.{target}EmbeddingManager",
            "params": {"layers": 4, "placeholder_strings": ["*"], "initializer_words": ["red"], **params},
        }
        model = small_model(tmp_path, personalization_config=node).train()
        loss, _ = model.p_losses(torch.randn(2, 4, 8, 8), model.get_learned_conditioning(["a *", "a red *"]),
                                 torch.tensor([5, 700]))  # fmt: skip
        loss.backward()
        assert all(p.grad is not None for p in model.embedding_manager.embedding_parameters())
        images = model.eval().log_images({"caption": ["a *"], "moments": torch.zeros(1, 8, 8, 8)}, ddim_steps=2,
                                         unconditional_guidance_scale=3.0)  # fmt: skip
        assert torch.isfinite(images["samples_cfg_scale_3.00"]).all()


def test_bad_input(bert: BERTEmbedder, tmp_path: Path) -> None:
    manager = LayeredEmbeddingManager(bert, 5, placeholder_strings=["*"])
    with pytest.raises(ConfigError, match="'layers' must be 3 for this network, got 5"):
        manager.install(Network())
    with pytest.raises(ConfigError, match="progressive_words"):
        LayeredEmbeddingManager(bert, 5, progressive_words=True)
    EmbeddingManager(bert, ["*"]).save(tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="holds no words for timesteps with 3 layers"):
        TimedEmbeddingManager(bert, 3, placeholder_strings=["*"]).load(tmp_path / "plain.safetensors")
