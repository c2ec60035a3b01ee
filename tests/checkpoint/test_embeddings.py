"""Files of learned words: each format is read as its own tool writes it, and written so that a round trip is exact."""

from __future__ import annotations

import base64
import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from ldm.checkpoint import EmbeddingFile, merge_embeddings, read_embedding, save_state_dict, write_embedding
from ldm.checkpoint.embedding_picture import _noise
from ldm.checkpoint.embeddings import FORMATS, PER_LAYER
from ldm.util import UserError
from tests.checkpoint.pickles import as_old_torch, as_torch_zip, attacks
from tests.helpers import golden_case


def random_vectors(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


WORD = random_vectors(3, 768)
CASES = Path(__file__).parent / "cases"
WAYS = [(name, suffix) for name, (_, suffixes) in FORMATS.items() for suffix in suffixes]


@pytest.mark.parametrize(("format", "suffix"), WAYS)
def test_what_was_written_is_read_whatever_the_file_is_called(format: str, suffix: str, tmp_path: Path) -> None:
    file = EmbeddingFile({"<cat>": WORD}, {"steps": "400"}, {"<cat>": WORD + 1}, {"<cat>": 40})
    write_embedding(tmp_path / f"a{suffix}", file, format)
    renamed = (tmp_path / f"a{suffix}").rename(tmp_path / "b.something")
    found = read_embedding(renamed)
    assert list(found.vectors) == ["<cat>"]
    assert torch.equal(found.vectors["<cat>"], WORD)
    if format not in ("diffusers", "kohya"):
        assert found.metadata["steps"] == "400"
    if format in ("safetensors", "compvis"):
        assert torch.equal(found.initial["<cat>"], WORD + 1)
        assert found.metadata["trigger"] == "<cat>"
        assert found.metadata["dimension"] == "768"
    if format == "compvis":
        assert found.tokens == {"<cat>": 40}


@pytest.mark.parametrize("name", ["ti_bert", "ti_clip"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_compvis_file_as_the_original_saves_it(name: str, wrapped: bool, tmp_path: Path) -> None:
    weights = golden_case(name).weights
    start = "managers.vN.string_to_param_dict."
    words = {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}
    parameters: Any = nn.ParameterDict({key: nn.Parameter(value) for key, value in words.items()})
    value = {"string_to_token": {key: torch.tensor(40 + i) for i, key in enumerate(words)},
             "string_to_param": parameters if wrapped else dict(parameters)}  # fmt: skip
    torch.save(value, tmp_path / "embeddings_gs-99.pt")
    found = read_embedding(tmp_path / "embeddings_gs-99.pt")
    assert found.format == "compvis"
    assert found.tokens == {key: 40 + i for i, key in enumerate(words)}
    for key, expected in words.items():
        assert torch.equal(found.vectors[key], expected)
    assert not any(vector.requires_grad for vector in found.vectors.values())


def test_parameter_dict_of_an_older_torch(tmp_path: Path) -> None:
    """Up to 1.11 the parameters lay in the module's own dictionary only, without the list of keys that came later."""
    parameters = nn.ParameterDict()
    for name in list(vars(parameters)):
        if name not in ("_parameters", "_modules", "_buffers", "training"):
            del parameters.__dict__[name]
    parameters.__dict__["_parameters"] = OrderedDict({"*": nn.Parameter(WORD)})
    torch.save(
        {"string_to_token": {"*": torch.tensor([265])}, "string_to_param": parameters},
        tmp_path / "a.pt", _use_new_zipfile_serialization=False,
    )  # fmt: skip
    found = read_embedding(tmp_path / "a.pt")
    assert torch.equal(found.vectors["*"], WORD)
    assert found.tokens == {"*": 265}


def test_our_compvis_file_is_what_the_original_expects(tmp_path: Path) -> None:
    write_embedding(tmp_path / "a.pt", EmbeddingFile({"*": WORD}, tokens={"*": 265}))
    value = torch.load(tmp_path / "a.pt", weights_only=False)
    assert isinstance(value["string_to_param"], nn.ParameterDict)
    assert isinstance(value["string_to_param"]["*"], nn.Parameter)
    assert torch.equal(value["string_to_param"]["*"], WORD)
    assert torch.equal(value["string_to_token"]["*"], torch.tensor(265))


@pytest.mark.parametrize(("said", "expected"), [("my-style", "my-style"), (None, "monet")])
def test_web_ui_file(said: str | None, expected: str, tmp_path: Path) -> None:
    value = {"string_to_token": {"*": 265}, "string_to_param": {"*": WORD.half()}, "name": said, "step": 1500,
             "sd_checkpoint": "81761151", "sd_checkpoint_name": "v1-5-pruned"}  # fmt: skip
    torch.save(value, tmp_path / "monet.pt")
    found = read_embedding(tmp_path / "monet.pt")
    assert list(found.vectors) == [expected]
    assert found.vectors[expected].dtype == torch.float32
    assert found.metadata["steps"] == "1500"
    assert found.metadata["base_model"] == "v1-5-pruned"
    assert found.metadata["base_model_hash"] == "81761151"
    assert "v1-5-pruned" in found.made_for


def test_diffusers_files_of_one_vector_and_of_several(tmp_path: Path) -> None:
    torch.save({"<cat>": WORD[0]}, tmp_path / "learned_embeds.bin")
    assert torch.equal(read_embedding(tmp_path / "learned_embeds.bin").vectors["<cat>"], WORD[:1])
    safetensors.torch.save_file({"<cat>": WORD}, tmp_path / "a.safetensors")
    assert torch.equal(read_embedding(tmp_path / "a.safetensors").vectors["<cat>"], WORD)


def test_kohya_file_is_called_by_its_own_name(tmp_path: Path) -> None:
    safetensors.torch.save_file({"emb_params": WORD}, tmp_path / "painter.safetensors", {"ss_steps": "7"})
    found = read_embedding(tmp_path / "painter.safetensors")
    assert list(found.vectors) == ["painter"]
    assert found.metadata["steps"] == "7"


def test_ours_is_read_by_safetensors_and_by_diffusers(tmp_path: Path) -> None:
    from diffusers.loaders.textual_inversion import load_textual_inversion_state_dicts

    write_embedding(tmp_path / "a.safetensors", EmbeddingFile({"<cat>": WORD}, {}, {"<cat>": WORD + 1}))
    tensors = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert list(tensors) == ["<cat>"]
    states = load_textual_inversion_state_dicts([str(tmp_path / "a.safetensors")], local_files_only=True)
    assert torch.equal(states[0]["<cat>"], WORD)


def test_the_pseudo_random_sequence_of_the_web_ui() -> None:
    """Its own published check values, reduced to the half bytes that are used."""
    published = [253, 242, 127, 44, 157, 27, 239, 133, 38, 79, 167, 4, 177, 95, 130, 79, 78, 14, 52, 215, 220, 194]
    assert _noise(len(published)).tolist() == [number & 15 for number in published]


def test_picture_without_its_text_fields_and_with_black_around(tmp_path: Path) -> None:
    write_embedding(tmp_path / "a.png", EmbeddingFile({"cat": WORD}, {"steps": "5"}))
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.pad(np.asarray(image), ((3, 5), (7, 2), (0, 0)))
    Image.fromarray(pixels).save(tmp_path / "b.webp", lossless=True)
    found = read_embedding(tmp_path / "b.webp")
    assert torch.equal(found.vectors["cat"], WORD)
    assert found.metadata["steps"] == "5"


def test_text_field_alone_is_enough(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    fields = {"string_to_param": {"*": {"TORCHTENSOR": WORD.tolist()}}, "name": "cat"}
    info = PngInfo()
    info.add_text("sd-ti-embedding", base64.b64encode(json.dumps(fields).encode()).decode())
    Image.new("RGB", (8, 8), "white").save(tmp_path / "a.png", pnginfo=info)
    assert torch.equal(read_embedding(tmp_path / "a.png").vectors["cat"], WORD)


@pytest.mark.parametrize("attack", ["REDUCE", "STACK_GLOBAL", "eval", "NEWOBJ_EX", "only named"])
@pytest.mark.parametrize("container", ["plain", "zip", "old"])
def test_a_pickle_that_names_a_callable_runs_nothing(attack: str, container: str, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "embeddings.pt"
    data = attacks(f"touch {trace}")[attack]
    {"plain": lambda d, p: p.write_bytes(d), "zip": as_torch_zip, "old": as_old_torch}[container](data, path)
    with pytest.raises(UserError, match="asks to call") as caught:
        read_embedding(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


def test_a_callable_beside_good_vectors(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'trace'}",)

    torch.save({"string_to_param": {"*": WORD}, "x": Evil()}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="asks to call"):
        read_embedding(tmp_path / "a.pt")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"clip_l": WORD, "clip_g": WORD[:1]}, r"different numbers of vectors"),
        ({"clip_g": WORD}, r"the encoders clip_g \(SDXL\)"),
        ({"clip_l": random_vectors(2, 768), "t5xxl": random_vectors(2, 4096)}, r"clip_l and t5xxl \(Flux or SD 3\)"),
        ({"a": random_vectors(2, 8), "b": random_vectors(2, 9)}, r"different widths \(8, 9\)"),
        ({"conv": random_vectors(2, 3, 4, 4)}, r"shape \[2, 3, 4, 4\]"),
        ({"layer.weight": random_vectors(4, 4), "layer.bias": random_vectors(4)}, "weights of a network"),
        ({"string_to_param": {}}, "no placeholder"),
        ({"string_to_param": {"*": "text"}}, "no tensor"),
        ({"string_to_param": [WORD]}, "no dictionary"),
        ({"*": torch.full((1, 4), float("nan"))}, "diverged"),
        ({"*": torch.ones(2, 4, dtype=torch.int64)}, "shape"),
        ([WORD], "nothing by name"),
        ({}, "nothing by name"),
    ],
)
def test_what_is_no_embedding_is_said_in_one_sentence(value: Any, message: str, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(UserError, match=message) as caught:
        read_embedding(tmp_path / "a.pt")
    assert "a.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pictures_without_an_embedding(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="picture without an embedding"):
        read_embedding(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(UserError, match="damaged picture"):
        read_embedding(tmp_path / "b.png")
    Image.fromarray(pixels).save(tmp_path / "c.jpg")
    with pytest.raises(UserError, match="a JPEG image"):
        read_embedding(tmp_path / "c.jpg")
    with pytest.raises(UserError, match="there is no file"):
        read_embedding(tmp_path / "d.png")


def test_wrong_width_names_both_models(tmp_path: Path) -> None:
    file = EmbeddingFile({"*": random_vectors(1, 1280)})
    with pytest.raises(UserError, match=r"'x.pt' was made for LDM text-to-image .*1280.* is Stable Diffusion v1 .*768"):
        file.check_width(768, origin="x.pt")
    file.metadata["base_model"] = "my-model"
    with pytest.raises(UserError, match=r"made for 'my-model' .*1280.* is 'tiny' .*192"):
        file.check_width(192, "tiny")
    file.check_width(1280)


def test_renaming() -> None:
    file = EmbeddingFile({"a": WORD, "b": WORD + 1}, {"trigger": "a, b"}, {"a": WORD}, {"a": 4, "b": 5})
    found = file.renamed({"a": "c"})
    assert list(found.vectors) == ["c", "b"]
    assert list(found.initial) == ["c"]
    assert found.tokens == {"b": 5}  # the id of another word
    assert found.metadata["trigger"] == "c, b"
    assert list(file.vectors) == ["a", "b"]
    with pytest.raises(UserError, match="two placeholders would be called 'b'"):
        file.renamed({"a": "b"})
    with pytest.raises(UserError, match="no placeholder 'x'"):
        file.renamed({"x": "b"})


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("a.txt", None, "format should be one of"),
        ("a.png", "kohya", "goes into .safetensors"),
        ("a.pt", "a1111", "holds one placeholder"),
        ("a.png", None, "holds one placeholder"),
        ("a.pt", None, "no placeholder with a dot"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(name: str, format: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        write_embedding(tmp_path / name, EmbeddingFile({"a.b": WORD, "c": WORD}), format)
    assert not list(tmp_path.iterdir())


def test_a_damaged_start_does_not_stop_the_reading(tmp_path: Path) -> None:
    save_state_dict({"*": WORD}, tmp_path / "a.safetensors", {"initial_vectors.*": "768:!!!"})
    assert not read_embedding(tmp_path / "a.safetensors").initial


def test_written_over_the_file_it_was_read_from(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_embedding(path, EmbeddingFile({"a": WORD}))
    file = read_embedding(path)
    write_embedding(path, file.renamed({"a": "b"}))
    assert torch.equal(read_embedding(path).vectors["b"], WORD)


def test_a_file_for_clip_l_alone_serves_a_model_with_that_encoder(tmp_path: Path) -> None:
    safetensors.torch.save_file({"clip_l": random_vectors(3, 192)}, tmp_path / "only_clip_l.safetensors")
    found = read_embedding(tmp_path / "only_clip_l.safetensors")
    assert found.format == "clip_l" and {name: len(v) for name, v in found.vectors.items()} == {"only_clip_l": 3}


def test_files_that_other_programs_wrote() -> None:
    """For clip_l alone, for Flux, and with a placeholder of diffusers."""
    alone = read_embedding(CASES / "only_clip_l.safetensors")
    assert {name: v.shape[1] for name, v in alone.vectors.items()} == {"only_clip_l": 192}
    with pytest.raises(UserError, match=r"'.*flux\.safetensors' is .* clip_l and t5xxl \(Flux or SD 3\)"):
        read_embedding(CASES / "flux.safetensors")
    toy = read_embedding(CASES / "learned_embeds.bin")
    assert (toy.format, list(toy.vectors)) == ("diffusers", ["<cat-toy>"])


def test_words_for_layers_are_not_made_ordinary_on_the_way(tmp_path: Path) -> None:
    layered = EmbeddingFile({"*": random_vectors(8, 4)}, {"kind": PER_LAYER, "layers": "4"})
    for name in ("a.pt", "a.safetensors"):
        write_embedding(tmp_path / name, layered)
        assert read_embedding(tmp_path / name).metadata["kind"] == PER_LAYER
    for name, format in (("a.bin", None), ("b.pt", "a1111"), ("c.pt", "kohya")):
        with pytest.raises(UserError, match="cannot say that these are words for layers"):
            write_embedding(tmp_path / name, layered, format)
    with pytest.raises(UserError, match="cannot be in one file with others"):
        merge_embeddings([layered, EmbeddingFile({"@": random_vectors(2, 4)})])
    assert merge_embeddings([layered, layered.renamed({"*": "@"})]).metadata["kind"] == PER_LAYER
