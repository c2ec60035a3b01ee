"""Prompts that a language model goes on with: what is kept of them, what is put behind, files that are none."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ldm.checkpoint.transformers_folder import read_preparation
from ldm.modules.encoders.prompt_weights import read_weights
from ldm.pictures.images import read_parameters
from ldm.util import UserError
from ldm.workflows.expansion import Expander, joined
from ldm.workflows.lora_calls import calls_in
from ldm.workflows.request import Txt2ImgOptions, read_request
from ldm.workflows.txt2img import txt2img
from tests.workflows.small_language_model import write_language_model

TEXTS = ["in the rain, at night", "on a blue background, very detailed", "<lora:style:0.8> (word:1.3) * | __colour__\n"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp("models") / "poet", TEXTS * 4)


@pytest.fixture(scope="module")
def expander(folder: Path) -> Expander:
    return Expander(str(folder))


@pytest.mark.parametrize(
    ("prompt", "said", "whole"),
    [
        ("a cat", " in the rain", "a cat in the rain"), ("a cat", ", at  night\t,", "a cat, at night"),
        ("a photo of sks", "ing in the rain", "a photo of sks in the rain"), ("a *", "*bold* in red", "a * in red"),
        ("a cat", "s", "a cat"), ("a cat", " \n\n", "a cat"), ("a cat", "", "a cat"), ("a cat", "...", "a cat"),
        ("a cat", " in red.\nA dog", "a cat in red."), ("a cat", "\n a hat", "a cat a hat"),
        ("a cat", " (big:1.4) <lora:x:1> [red|blue] {a} __b__ \\", "a cat big:1.4 lora:x:1 redblue a b"),
        ("a cat <lora:x:1>", " in red", "a cat <lora:x:1> in red"), ("a cat ", " in red", "a cat in red"),
        ("빨간 별", "이 밤에, 비", "빨간 별 밤에, 비"), ("红色的星", "在夜里，", "红色的星在夜里"),
        ("星 *", "在夜里，雨", "星 *，雨"), ("a cat", " in red, BREAK a B*REAK hat", "a cat in red, a hat"),
        ("a cat BREAK a dog", " BREAK", "a cat BREAK a dog"), ("a cat", " at BREAKFAST", "a cat at BREAKFAST"),
    ],
)  # fmt: skip
def test_what_is_put_behind_a_prompt(prompt: str, said: str, whole: str) -> None:
    assert joined(prompt, said) == whole


def test_words_calls_and_weights_of_the_prompt_stay(expander: Expander) -> None:
    """Whatever the model says: this one says anything, signs and parts of words included."""
    prompt = "a photo of <cat> * sks, (red:1.3) <lora:style:0.8> *"
    state = torch.random.get_rng_state()
    made = [expander(prompt, seed) for seed in range(10)]
    assert torch.equal(torch.random.get_rng_state(), state), "a request leaves nothing behind"
    assert len(set(made)) > 5 and made[:3] == [expander(prompt, seed) for seed in range(3)], "a function of the seed"
    for whole in made:
        assert whole.startswith(prompt) and len(whole) < 400
        assert calls_in(whole) == calls_in(prompt)
        assert whole.count("*") == 2 and re.search(r"(?<!\w)\*(?!\w)", whole[len(prompt) - 1 :])
        assert [whole[s.start : s.end] for s in read_weights(whole).spans] == [
            prompt[s.start : s.end] for s in read_weights(prompt).spans
        ]
        assert not re.search(r"[\n|_{}\[\]]", whole)


def test_what_a_folder_says_of_generating_changes_nothing(folder: Path, expander: Expander, tmp_path: Path) -> None:
    place = copied(folder, tmp_path / "poet")
    said = {"return_dict_in_generate": True, "stop_strings": ["a"], "max_time": 1e-9, "token_healing": True}
    changed(place, "generation_config.json", repetition_penalty=5.0, num_return_sequences=3, **said)
    other = Expander(str(place))
    assert [other("a red circle", seed) for seed in range(3)] == [expander("a red circle", s) for s in range(3)]


def test_a_model_that_says_something_else_than_tokens(expander: Expander, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expander.model, "generate", lambda *_, **__: {"sequences": torch.zeros(1, 4)})
    with pytest.raises(UserError, match="the causal language model 'poet' cannot go on with 'a cat'"):
        expander("a cat", 1)


def test_the_generators_of_gpus_stay(expander: Expander, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("they were seeded"))
    assert expander("a red circle", 1) == expander("a red circle", 1)


def test_prompts_that_are_empty_or_longer_than_the_model_reads(expander: Expander) -> None:
    assert expander("", 1) == "" and expander("<lora:style:0.8>", 1) == "<lora:style:0.8>"
    long = "very " * 200 + "long"
    assert expander(long, 1).startswith(long)


def test_a_picture_says_both_prompts_and_is_made_again_by_the_longer(
    model: Any, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    options = Txt2ImgOptions(
        prompt="a red circle | a star", n_samples=2, steps=2, seed=7, skip_grid=True, outdir=str(tmp_path / "out"),
        progress=False, expand=str(folder),
    )  # fmt: skip
    made = txt2img(options, model)
    said: list[Any] = [read_parameters(path) for path in sorted((tmp_path / "out/samples").iterdir())]
    for about, prompt in zip(said, ["a red circle"] * 2 + ["a star"] * 2, strict=True):
        if about["prompt"] == prompt:
            assert "expanded_by" not in about
            assert f"not expanded: poet puts nothing behind '{prompt}'" in caplog.messages
        else:
            assert (about["prompt_given"], about["expanded_by"]) == (prompt, "poet")
            assert about["prompt"].startswith(prompt) and f"expanded by poet: {about['prompt']}" in caplog.messages
    assert len({about["prompt"] for about in said}) > 2
    alone = replace(options, skip_save=True, n_samples=1, seed=8, prompt="a star")
    (again,) = read_request(alone).batches
    assert again.prompts == [said[3]["prompt"]] != ["a star"], "whatever stands beside it in a batch"
    (same,) = txt2img(replace(alone, expand=None, prompt=said[3]["prompt"]), model)
    assert same.tobytes() == made[3].tobytes()


def test_a_prompt_that_the_model_adds_nothing_to(
    expander: Expander, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(expander, "_continued", lambda text, seed: "s")
    assert expander("a cat", 1) == "a cat"
    assert caplog.messages == ["not expanded: poet puts nothing behind 'a cat'"]


def test_weights_in_a_pickle_say_the_same(expander: Expander, tmp_path: Path) -> None:
    pickled = Expander(str(write_language_model(tmp_path / "pickled", TEXTS * 4, safe=False)))
    assert [pickled("a red circle", seed) for seed in range(3)] == [expander("a red circle", s) for s in range(3)]


def copied(folder: Path, place: Path) -> Path:
    place.mkdir()
    for path in folder.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    return place


def changed(folder: Path, name: str, **entries: Any) -> None:
    """Put entries into a JSON file of a folder."""
    path = folder / name
    about = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(about | entries))


def test_folders_that_are_no_language_model(folder: Path, tmp_path: Path) -> None:
    def refused(place: Path, message: str) -> None:
        with pytest.raises(UserError, match=message) as error:
            read_request(Txt2ImgOptions(expand=str(place), outdir=str(tmp_path / "out")))
        assert "\n" not in str(error.value)

    refused(tmp_path / "nowhere", "no causal language model in '.*nowhere': a folder of transformers is needed")
    no_words = copied(folder, tmp_path / "no_words")
    for path in no_words.glob("tokenizer*"):
        path.unlink()
    refused(no_words, "language model 'no_words' cannot go on .* its tokenizer, if there is one in the folder, finds")
    empty = copied(folder, tmp_path / "empty")
    (empty / "model.safetensors").unlink()
    refused(empty, "there are no weights in '.*empty'")
    other = copied(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"n_layer": 2}))
    refused(other, r"is not whole: it lacks 12 weights, such as transformer\.h\.1")
    (other / "config.json").write_text("{")
    refused(other, "other/config.json' is not JSON")
    (other / "config.json").write_text(json.dumps({"model_type": "vit"}))
    refused(other, "cannot read a causal language model in '.*other'")


def test_nothing_that_a_folder_names_is_run(folder: Path, tmp_path: Path) -> None:
    place, mark = copied(folder, tmp_path / "own"), tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w')\nclass Own: pass\n"
    (place / "own.py").write_text(code)
    named = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    (place / "config.json").write_text(json.dumps(named))
    with pytest.raises(UserError, match="names code of its own"):
        Expander(str(place))
    (place / "config.json").write_bytes((folder / "config.json").read_bytes())
    (place / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self) -> Any:
            return open, (str(mark), "w")

    (place / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(UserError):
        Expander(str(place))
    assert not mark.exists()


@pytest.mark.parametrize("named", ["AutoModelForObjectDetection", "AutoModelForObjectDetectionFastFast", "models"])
def test_what_a_folder_names_as_its_tokenizer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """transformers looks among all that it has, and a model asks whether to run the code that auto_map names."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked"))
    place = copied(folder, tmp_path / "own")
    changed(place, "tokenizer_config.json", tokenizer_class=named)
    with pytest.raises(UserError, match=f"tokenizer_config.json' names '{named}' as its tokenizer_class, and that is"):
        read_preparation(place, "AutoTokenizer", "causal language model")
    changed(place, "config.json", auto_map={"AutoModelForObjectDetection": "own.Own", "AutoConfig": "own.Own"})
    with pytest.raises(UserError, match=r"config.json' names code of its own"):
        read_preparation(place, "AutoTokenizer", "causal language model")


def test_what_a_folder_names_as_its_image_processor(tmp_path: Path) -> None:
    about: dict[str, Any] = {"image_processor_type": "AutoModelForObjectDetection"}
    for name, entries in (("preprocessor_config.json", about), ("processor_config.json", {"image_processor": about})):
        changed(tmp_path, name, **entries)
        with pytest.raises(UserError, match=f"{name}' names 'AutoModelForObjectDetection' as its image_processor_type"):
            read_preparation(tmp_path, "AutoImageProcessor", "captioning model")
        (tmp_path / name).unlink()
    old = {"feature_extractor_type": "ViTFeatureExtractor"}  # of versions that have gone
    for about in (
        {"image_processor_type": "ViTImageProcessor"},
        {"image_processor_type": "ViTImageProcessorFast"},
        old,
    ):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(about))
        kind = type(read_preparation(tmp_path, "AutoImageProcessor", "captioning model"))
        assert kind.__name__.startswith("ViTImageProcessor")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_kernel_that_a_folder_names_is_not_fetched(
    folder: Path, expander: Expander, tmp_path: Path, key: str
) -> None:
    place = copied(folder, tmp_path / "kernel")
    changed(place, "config.json", **{key: "kernels-community/flash-attn2"})
    assert Expander(str(place)).model.config._attn_implementation == expander.model.config._attn_implementation


def test_weights_that_an_index_names(folder: Path, expander: Expander, tmp_path: Path) -> None:
    place = copied(folder, tmp_path / "parts")
    weights = load_file(place / "model.safetensors")
    (place / "model.safetensors").unlink()
    keys = sorted(weights)
    parts = {"one.safetensors": keys[:4], "two.safetensors": keys[4:]}
    for name, held in parts.items():
        save_file({key: weights[key] for key in held}, place / name)
    named = {key: name for name, held in parts.items() for key in held}
    changed(place, "model.safetensors.index.json", weight_map=named)
    assert Expander(str(place))("a red circle", 1) == expander("a red circle", 1)
    torch.save(weights, place / "evil.bin")
    for wrong in ("evil.bin", "../parts/one.safetensors"):
        changed(place, "model.safetensors.index.json", weight_map=dict.fromkeys(keys, wrong))
        with pytest.raises(UserError, match=f"index.json' names '{wrong}', which is no safetensors file beside it"):
            Expander(str(place))


def test_folders_with_an_adapter_or_of_quantized_weights(folder: Path, tmp_path: Path) -> None:
    place = copied(folder, tmp_path / "changed")
    changed(place, "config.json", quantization_config={"quant_method": "mxfp4"})
    with pytest.raises(UserError, match=r"config.json' describes quantized weights"):
        Expander(str(place))
    changed(place, "config.json", quantization_config=None)
    Expander(str(place))
    changed(place, "adapter_config.json", peft_type="LORA")
    with pytest.raises(UserError, match=r"there is an adapter of PEFT in '.*changed'"):
        Expander(str(place))


def test_an_edit_is_not_expanded(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--edit goes word by word along the prompt"):
        read_request(Txt2ImgOptions(edit="a blue circle", expand=str(folder), outdir=str(tmp_path)))
