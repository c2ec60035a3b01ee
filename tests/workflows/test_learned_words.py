"""Learned words in txt2img: several files, clashes, renames, what prompts use, and what does not fit."""

from __future__ import annotations

import logging
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ldm.additions.base import applied
from ldm.additions.context_words import ContextEmbeddingManager
from ldm.additions.layered_words import LayeredEmbeddingManager
from ldm.additions.reading import read_additions
from ldm.checkpoint import EmbeddingFile, write_embedding
from ldm.modules.encoders.post_BERT import AdapterBERTEmbedder
from ldm.util import UserError
from ldm.workflows.learned_words import files_of, report_words
from ldm.workflows.models import open_model
from ldm.workflows.prompts import conditions
from ldm.workflows.studio import open_studio
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img
from tests import forked
from tests.checkpoint.pickles import attacks
from tests.workflows.small_model import write_small_model


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_small_model(tmp_path_factory.mktemp("small")))


@pytest.fixture
def model(ckpt: str) -> Any:
    return open_model(ckpt, device="cpu")[0]


def vectors(count: int, seed: int = 0, width: int = 16) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def write(path: Path, *names: str, count: int = 1, width: int = 16) -> str:
    write_embedding(path, EmbeddingFile({name: vectors(count, i, width) for i, name in enumerate(names)}))
    return str(path)


def test_a_word_with_the_vector_of_another_means_the_same(model: Any, tmp_path: Path) -> None:
    encoder = model.cond_stage_model
    red = encoder.vector_of(encoder.token_of("red")).float()[None]
    write_embedding(tmp_path / "a.safetensors", EmbeddingFile({"square": red}))
    expected = model.get_learned_conditioning(["a red circle on"])
    with applied(model, read_additions(model, str(tmp_path / "a.safetensors"))):
        assert torch.allclose(model.get_learned_conditioning(["a square circle on"]), expected, atol=1e-6)


def test_several_files_and_a_rename(model: Any, tmp_path: Path) -> None:
    first = write(tmp_path / "a.safetensors", "circle")
    second = write(tmp_path / "b.pt", "circle", count=2)
    third = write(tmp_path / "c.bin", "on", "blue")
    additions = read_additions(model, [first, f"{second}=square", f"{third}=blue:background"])
    words = files_of(additions)
    names = {name: path.name for name, path in words.items()}
    assert names == {"circle": "a.safetensors", "square": "b.pt", "on": "c.bin", "background": "c.bin"}
    with applied(model, additions):
        manager = model.embedding_manager
        assert torch.equal(manager.vectors("square"), vectors(2))
        assert torch.equal(manager.vectors("background"), vectors(1, 1))
    assert model.embedding_manager is None


def test_what_prompts_use_is_said(model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    additions = read_additions(model, write(tmp_path / "a.safetensors", "circle", "square"))
    with caplog.at_level(logging.INFO), applied(model, additions):
        used = report_words(model, additions, ["a red circle", "a red circle", "a blue background"])
    assert used == {"a red circle": ["circle"], "a blue background": []}
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert lines[:2] == [
        ("INFO", "'a red circle' uses 'circle'"),
        ("INFO", "'a blue background' uses no learned word"),
    ]
    assert len(lines) == 3 and lines[2][0] == "WARNING"
    assert "no prompt uses 'square' of '" in lines[2][1] and "a.safetensors" in lines[2][1]


def test_a_word_beyond_the_last_token_is_not_used(model: Any, tmp_path: Path) -> None:
    additions = read_additions(model, write(tmp_path / "a.safetensors", "circle"))
    with applied(model, additions):
        assert list(report_words(model, additions, ["a a a a a a a a circle"]).values()) == [[]]


def test_the_vectors_change_the_picture(ckpt: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", "circle", count=3)
    options = Txt2ImgOptions(
        prompt="a red circle", ckpt=ckpt, steps=4, n_samples=1, height=32, width=32, device="cpu", progress=False,
        skip_save=True, skip_grid=True,
    )  # fmt: skip
    plain, learned = txt2img(options)[0], txt2img(replace(options, embedding_path=path))[0]
    assert np.abs(np.asarray(plain, int) - np.asarray(learned, int)).max() > 1
    elsewhere = txt2img(replace(options, prompt="a red square", embedding_path=[path]))[0]
    assert np.array_equal(np.asarray(elsewhere), np.asarray(txt2img(replace(options, prompt="a red square"))[0]))


def requests(folder: Path, encoder: Any) -> list[dict[str, Any]]:
    """What ten requests put on the model, each another thing."""
    first, second = write(folder / "a.safetensors", "circle"), write(folder / "b.pt", "circle", count=2)
    layered = LayeredEmbeddingManager(encoder, layers=4, placeholder_strings=["red"], initializer_words=["blue"])
    sizes: dict[str, Any] = {"n_embed": 16, "n_layer": 0, "vocab_size": 1, "max_seq_len": 8, "use_tokenizer": False}
    adapted = AdapterBERTEmbedder(adapter_dim=4, **sizes)
    torch.manual_seed(0)
    for parameter in [*layered.learned(), *adapted.text_adapters.parameters()]:
        torch.nn.init.normal_(parameter)
    layers, adapters = str(folder / "layered.safetensors"), str(folder / "adapters.safetensors")
    layered.save(layers)
    adapted.save_adapters(adapters)
    return [
        {}, {"embedding_path": first}, {"embedding_path": second}, {"adapter_path": adapters},
        {"embedding_path": layers}, {}, {"embedding_path": [first, layers]},
        {"embedding_path": [f"{second}=red"], "adapter_path": adapters}, {"embedding_path": f"{layers}=circle"}, {},
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["gradient", "regions"])
def test_what_goes_together_with_a_word_beside_the_context(ckpt: str, model: Any, tmp_path: Path, mode: str) -> None:
    words = ContextEmbeddingManager(model.cond_stage_model, 4, placeholder_strings=["circle"],
                                    initializer_words=["blue"], num_vectors_per_token=3)  # fmt: skip
    torch.nn.init.normal_(words.vectors("circle"))
    words.save(tmp_path / "words.pt")
    options = Txt2ImgOptions(
        prompt="a red circle", ckpt=ckpt, steps=2, n_samples=1, device="cpu", progress=False, skip_save=True,
        skip_grid=True, height=32, width=32, embedding_path=str(tmp_path / "words.pt"),
    )  # fmt: skip
    plain = txt2img(options)[0]
    boxed = txt2img(replace(options, boxes="circle: 0 0 .5 .5", layout=mode, excite="red"))[0]
    assert not np.array_equal(np.asarray(plain), np.asarray(boxed))
    with pytest.raises(UserError, match="edits of a prompt do not go together with words beside the context"):
        txt2img(replace(options, edit="a blue circle"))


def test_weights_reach_a_words_part_beside_the_context(model: Any, tmp_path: Path) -> None:
    words = ContextEmbeddingManager(model.cond_stage_model, 4, placeholder_strings=["circle"],
                                    initializer_words=["blue"], num_vectors_per_token=3)  # fmt: skip
    torch.nn.init.normal_(words.vectors("circle"))
    words.save(tmp_path / "words.pt")
    length = model.cond_stage_model.max_length
    with applied(model, read_additions(model, str(tmp_path / "words.pt"))):
        parts = {}
        for prompt in ("a red circle", "a red (circle:1.5)", "a (red:1.5) circle", "a (red:1.5) square"):
            (context,) = conditions(model, [prompt], "", (4, 4), False)[0]["c_crossattn"]
            parts[prompt] = context[0].unflatten(0, (4, 2, length))  # layers, the text and the word's part
    plain, word, other, without = parts.values()
    torch.testing.assert_close(word[:, 1], 1.5 * plain[:, 1])
    assert torch.equal(other[:, 1], plain[:, 1]) and torch.equal(without[:, 0], without[:, 1])
    for changed, place in ((word, 3), (other, 2)):  # behind the marker and 'a'
        expected = plain[:, 0].clone()
        expected[:, place] *= 1.5
        torch.testing.assert_close(changed[:, 0], expected)


def test_what_a_request_puts_on_a_studio_is_gone_after_it(ckpt: str, tmp_path: Path) -> None:
    """Ten requests on one Studio give what ten Studios give that nobody has used before."""
    studio = open_studio(ckpt, device="cpu")
    before = {name: value.clone() for name, value in studio.model.state_dict().items()}
    options = Txt2ImgOptions(
        prompt="a red circle", steps=2, n_samples=1, device="cpu", progress=False, skip_save=True, skip_grid=True
    )
    seen = set()
    for number, additions in enumerate(requests(tmp_path, studio.model.cond_stage_model)):
        one = replace(options, **additions)
        picture = np.asarray(txt2img(one, studio)[0])
        assert np.array_equal(picture, np.asarray(txt2img(one, open_studio(ckpt, device="cpu"))[0])), number
        seen.add(picture.tobytes())
        after = studio.model.state_dict()
        assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert len(seen) == 8  # each of the seven changes the picture, and the three plain ones are the same


def refusals(folder: Path) -> list[tuple[list[str], str]]:
    one, two = write(folder / "a.safetensors", "circle"), write(folder / "b.pt", "circle")
    both = write(folder / "c.pt", "circle", "square")
    wide = write(folder / "wide.pt", "circle", width=768)
    evil = folder / "evil.pt"
    evil.write_bytes(attacks(f"touch {folder / 'trace'}")["REDUCE"])
    return [
        ([one, two], f"'{two}' and '{one}' both hold 'circle'; give it another name in one of them: '{two}=<new>'"),
        ([one, one], "is given twice"),
        ([f"{both}=blue"], "holds 'circle', 'square'; say which to rename"),
        ([f"{both}=x:y"], "there is no placeholder 'x' to rename"),
        ([f"{one}="], "should be a file, 'file=<new name>'"),
        ([wide], "was made for Stable Diffusion v1 (width 768), but the loaded model is one of width 16"),
        ([one, wide + "=red"], "they do not go together"),
        ([str(evil)], "asks to call os.system"),
        ([str(folder / "none.pt")], "there is no file"),
    ]


def test_what_does_not_fit_is_one_sentence(model: Any, tmp_path: Path) -> None:
    for sources, message in refusals(tmp_path):
        with pytest.raises(UserError) as caught:
            read_additions(model, sources)
        assert message in str(caught.value), (sources, str(caught.value))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "trace").exists()


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return forked.run("txt2img.py", *arguments, cwd=cwd)


def test_command(ckpt: str, tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.safetensors", "circle"), write(tmp_path / "b.pt", "circle")
    done = command(
        "--prompt", "a red circle", "--ckpt", ckpt, "--embedding_path", first, f"{second}=square", "--steps", "2",
        "--n_samples", "1", "--device", "cpu", "--skip_grid", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "'a red circle' uses 'circle'" in done.stderr
    assert "no prompt uses 'square'" in done.stderr
    clash = command("--ckpt", ckpt, "--device", "cpu", "--embedding_path", first, second, cwd=tmp_path)
    assert clash.returncode == 2
    assert clash.stderr.splitlines()[-1].startswith("error: ") and "both hold 'circle'" in clash.stderr
