"""Additions for a while: several, nested, scaled, and a model that is afterwards what it was, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ldm.additions.base import Addition, Undo, applied, edit_weights
from ldm.additions.context_words import ContextEmbeddingManager
from ldm.additions.layered_words import LayeredEmbeddingManager
from ldm.additions.reading import read_additions
from ldm.additions.text_adapters import TextAdapters
from ldm.additions.timed_words import TimedEmbeddingManager
from ldm.additions.words import EmbeddingManager
from ldm.models.diffusion.sampling import sample
from ldm.modules.cpu.packed import pack_for_inference
from ldm.modules.encoders.post_BERT import AdapterBERTEmbedder
from ldm.util import UserError
from tests.additions.lora.files import write_lora
from tests.models.small_words import small_model

LAYERS = 4
PLAIN = (bool, int, float, str, tuple, type(None))  # attributes whose values can be compared
PROMPTS = ["a * on a @ circle", "a red square"]


@pytest.fixture
def model(tmp_path: Path) -> Any:
    return pack_for_inference(small_model(tmp_path).eval())


def words_file(path: Path, encoder: Any, word: str, kind: type[EmbeddingManager] = EmbeddingManager) -> str:
    """A file with one trained word of two vectors."""
    options: dict[str, Any] = {} if kind is EmbeddingManager else {"layers": LAYERS}
    manager = kind(
        encoder, placeholder_strings=[word], initializer_words=["red"], num_vectors_per_token=2, **options
    )
    torch.manual_seed(len(path.name))
    for parameter in manager.learned():
        nn.init.normal_(parameter)
    manager.save(path)
    return str(path)


def adapted_encoder(width: int, **options: Any) -> AdapterBERTEmbedder:
    return AdapterBERTEmbedder(n_embed=width, n_layer=0, vocab_size=1, max_seq_len=8, use_tokenizer=False, **options)


def adapters_file(path: Path, encoder: Any, seed: int = 0) -> str:
    torch.manual_seed(seed)
    adapted = adapted_encoder(encoder.width, adapter_dim=4)
    for parameter in adapted.text_adapters.parameters():
        nn.init.normal_(parameter, std=0.5)
    adapted.save_adapters(path)
    return str(path)


def files(folder: Path, model: Any) -> dict[str, dict[str, Any]]:
    """What ``read_additions`` is given, for each kind of addition."""
    encoder = model.cond_stage_model
    return {
        "words": {"embedding_path": words_file(folder / "plain.safetensors", encoder, "*")},
        "layered": {
            "embedding_path": words_file(folder / "layered.safetensors", encoder, "*", LayeredEmbeddingManager)
        },
        "timed": {"embedding_path": words_file(folder / "timed.safetensors", encoder, "*", TimedEmbeddingManager)},
        "context": {
            "embedding_path": words_file(folder / "context.safetensors", encoder, "*", ContextEmbeddingManager)
        },
        "adapters": {"adapter_path": adapters_file(folder / "adapters.safetensors", encoder)},
        "lora": {"lora": write_lora(folder / "lora.safetensors", model)},
    }


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that an addition could leave behind."""
    seen: dict[str, Any] = {"state": [(key, value.clone()) for key, value in model.state_dict().items()]}
    for name, module in model.named_modules():
        seen[name] = {
            "class": type(module),
            "mode": module.training,
            "hooks": [list(value) for key, value in vars(module).items() if key.endswith("_hooks")],
            "attributes": {key: value for key, value in vars(module).items() if type(value) in PLAIN},
            "children": [(key, id(child)) for key, child in module.named_children()],
            "gradients": [(key, parameter.requires_grad) for key, parameter in module.named_parameters()],
        }
    return seen


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert [key for key, _ in before["state"]] == [key for key, _ in after["state"]]
    for (key, one), (_, other) in zip(before["state"], after["state"], strict=True):
        assert torch.equal(one, other), key
    assert before.keys() == after.keys()
    for name in before.keys() - {"state"}:
        assert before[name] == after[name], name


@torch.no_grad()
def picture(model: Any, prompts: Sequence[str] = tuple(PROMPTS)) -> Tensor:
    noise = torch.randn(len(prompts), 4, 8, 8, generator=torch.Generator().manual_seed(1))
    cond = model.get_learned_conditioning(list(prompts))
    latents = sample(model, noise, cond, steps=4, guidance_scale=3.0, uncond=model.get_learned_conditioning([""]))
    return model.decode_first_stage(latents)


@pytest.mark.parametrize("kind", ["words", "layered", "timed", "context", "adapters", "lora"])
def test_a_model_is_afterwards_what_it_was(model: Any, tmp_path: Path, kind: str) -> None:
    given = files(tmp_path, model)[kind]
    plain = picture(model)
    before = snapshot(model)
    additions = read_additions(model, **given)
    assert_same(before, snapshot(model))
    with applied(model, additions):
        changed = picture(model)
    assert not torch.allclose(changed[0], plain[0], atol=1e-3)
    has_words = kind not in ("adapters", "lora")
    assert torch.allclose(changed[1], plain[1], atol=1e-5) == has_words, "a prompt without the word"
    assert_same(before, snapshot(model))
    assert torch.equal(picture(model), plain)
    with applied(model, additions):
        assert torch.equal(picture(model), changed)


def test_blocks_nest_in_any_mixture(model: Any, tmp_path: Path) -> None:
    """Each kind inside each other, taken off one by one; what is left is the picture of the outer one alone."""
    plain, before = picture(model), snapshot(model)
    given = files(tmp_path, model)
    other = {"embedding_path": words_file(tmp_path / "at.safetensors", model.cond_stage_model, "@")}
    additions = {kind: read_additions(model, **paths) for kind, paths in {**given, "other": other}.items()}
    for outer in given:
        with applied(model, additions[outer]):
            alone, within = picture(model), snapshot(model)
            for inner in {"other", "adapters"} - {outer}:
                with applied(model, additions[inner]):
                    both = picture(model)
                assert not torch.allclose(both[0], alone[0], atol=1e-3), (outer, inner)
                assert_same(within, snapshot(model))
                assert torch.equal(picture(model), alone)
        assert_same(before, snapshot(model))
    assert torch.equal(picture(model), plain)


def test_an_error_inside_takes_everything_off(model: Any, tmp_path: Path) -> None:
    plain, before = picture(model), snapshot(model)
    additions = [one for given in files(tmp_path, model).values() for one in read_additions(model, **given)]
    with pytest.raises(ZeroDivisionError), applied(model, additions):
        raise ZeroDivisionError
    with pytest.raises(UserError, match="6 additions, but 1 scales"), applied(model, additions, [1.0]):
        pass
    wrong = LayeredEmbeddingManager(model.cond_stage_model, LAYERS + 1, placeholder_strings=["*"])
    with pytest.raises(UserError, match="'layers' must be 4"), applied(model, [*additions[:1], wrong]):
        pass
    assert_same(before, snapshot(model))
    assert torch.equal(picture(model), plain)


@pytest.mark.parametrize("kind", ["layered", "timed", "context"])
def test_a_file_for_layers_beside_an_ordinary_one(model: Any, tmp_path: Path, kind: str) -> None:
    """Renamed or not, and in either order, each word means what it means alone."""
    special = files(tmp_path, model)[kind]["embedding_path"]
    plain = words_file(tmp_path / "at.safetensors", model.cond_stage_model, "@")
    with applied(model, read_additions(model, special)):
        expected_special = picture(model, ["a * circle"])
    with applied(model, read_additions(model, plain)):
        expected_plain = picture(model, ["a @ circle"])
    for sources in ([f"{special}=square", plain], [plain, f"{special}=*:square"]):
        with applied(model, read_additions(model, sources)):
            torch.testing.assert_close(picture(model, ["a square circle"]), expected_special, rtol=0, atol=1e-4)
            torch.testing.assert_close(picture(model, ["a @ circle"]), expected_plain, rtol=0, atol=1e-4)
    with applied(model, read_additions(model, plain)):
        assert torch.equal(picture(model, ["a @ circle"]), expected_plain), "after one for layers"


def test_all_kinds_of_files_for_layers_are_known_in_any_format(model: Any, tmp_path: Path) -> None:
    for suffix in (".pt", ".safetensors"):
        for kind in (LayeredEmbeddingManager, TimedEmbeddingManager, ContextEmbeddingManager):
            path = words_file(tmp_path / f"a{suffix}", model.cond_stage_model, "*", kind)
            (found,) = read_additions(model, path)
            assert isinstance(found, EmbeddingManager) and type(found) is kind and found.placeholders == ("*",)
            (renamed,) = read_additions(model, f"{path}=@")
            assert isinstance(renamed, EmbeddingManager)
            assert renamed.placeholders == ("@",) and renamed.files == {"@": tmp_path / f"a{suffix}"}
            with pytest.raises(UserError, match=r"no placeholder 'x'|say which to rename"):
                read_additions(model, f"{path}=x:@")
            with pytest.raises(UserError, match=r"both hold '\*'"):
                read_additions(model, [path, words_file(tmp_path / "b.safetensors", model.cond_stage_model, "*")])


def test_a_scale_of_words_leads_from_their_start_to_what_was_learned(model: Any, tmp_path: Path) -> None:
    given = files(tmp_path, model)
    starts = {1: picture(model, ["a red circle"]), 2: picture(model, ["a red red circle"])}
    for kind, places in {"words": 2, "layered": 2, "timed": 2, "context": 1}.items():
        start = starts[places]
        additions = read_additions(model, **given[kind])
        with applied(model, additions, [0.0]):
            torch.testing.assert_close(picture(model, ["a * circle"]), start, rtol=0, atol=1e-4)
        with applied(model, additions):
            whole = picture(model, ["a * circle"])
        with applied(model, additions, [0.5]):
            half = picture(model, ["a * circle"])
        assert not torch.allclose(half, whole, atol=1e-3) and not torch.allclose(half, start, atol=1e-3)
    unknown = EmbeddingManager(model.cond_stage_model, ["*"])
    said = r"training of '\*' began, so a scale of 0\.5 means nothing"
    with pytest.raises(UserError, match=said), applied(model, [unknown], [0.5]):
        pass


def test_adapters_stack_and_scale(model: Any, tmp_path: Path) -> None:
    first, second = (
        read_additions(model, adapter_path=adapters_file(tmp_path / f"{i}.safetensors", model.cond_stage_model, i))
        for i in (1, 2)
    )
    plain = picture(model)
    with applied(model, [*first, *second], [0.0, 0.0]):
        assert torch.equal(picture(model), plain)
    with applied(model, first):
        alone = picture(model)
    with applied(model, [*first, *second]):
        both = picture(model)
    with applied(model, [*first, *second], [1.0, 0.0]):
        assert torch.equal(picture(model), alone)
    assert not torch.allclose(both, alone, atol=1e-3) and not torch.allclose(alone, plain, atol=1e-3)
    with applied(model, first), applied(model, second):
        assert torch.equal(picture(model), both)


class Shift(Addition):
    """An addition that changes weights of the network, as a LoRA will."""

    file_name = "shift"

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.amount = nn.Parameter(torch.tensor(0.3))

    def learned(self) -> Sequence[nn.Parameter]:
        return [self.amount]

    def save(self, path: Any, metadata: Mapping[str, str] | None = None) -> None:
        raise NotImplementedError

    def attach(self, model: Any, scale: float = 1.0) -> Undo:
        edit: Callable[[Tensor], Tensor] = lambda weight: weight + scale * self.amount.detach()  # noqa: E731
        return edit_weights(model.model.diffusion_model, dict.fromkeys(self.names, edit))


def test_weights_are_edited_and_given_back(model: Any) -> None:
    plain, before = picture(model), snapshot(model)
    names = [name for name, parameter in model.model.diffusion_model.named_parameters() if parameter.dim() > 1]
    one, other = Shift(names[:9]), Shift(names)
    with applied(model, [one]):
        alone = picture(model)
        with applied(model, [other], [0.5]):
            assert not torch.allclose(picture(model), alone, atol=1e-3)
        assert torch.equal(picture(model), alone)
    assert not torch.allclose(alone, plain, atol=1e-3)
    assert_same(before, snapshot(model))
    assert torch.equal(picture(model), plain)
    with pytest.raises(UserError, match="no weight 'x'"), applied(model, [Shift(["x"])]):
        pass
    with pytest.raises(UserError, match="what is to replace it"):
        edit_weights(model, {"model.diffusion_model." + names[0]: lambda weight: weight[:1]})


def test_additions_are_for_a_model_that_they_fit(model: Any, tmp_path: Path) -> None:
    wide = adapted_encoder(2 * model.cond_stage_model.width)
    with pytest.raises(UserError, match="adapters were made for a text encoder of width"):
        TextAdapters(wide).attach(model)
    manager = EmbeddingManager(model.cond_stage_model, ["*"])
    other = copy.copy(model)
    other._modules = dict(model._modules) | {"cond_stage_model": wide}
    with pytest.raises(UserError, match=r"the words '\*' have width"):
        manager.attach(other)
    other._modules["cond_stage_model"] = nn.Identity()
    for addition in (manager, TextAdapters(wide)):
        with pytest.raises(UserError, match=r"takes no text|for a BERT text encoder"):
            addition.attach(other)
