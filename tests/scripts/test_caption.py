"""Captions by a model of transformers: what it sees, where the word goes, what is kept, folders that are none."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    GPT2Config,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

from ldm.data.personalized import PersonalizedBase
from ldm.util import UserError
from ldm.workflows.captioner import Captioner, about
from scripts import caption
from tests.workflows.small_language_model import write_language_model

WORDS = ["[PAD]", "[UNK]", "[START]", "[END]", "a", "red", "blue", "dog", "cat"]
SIDE = {"height": 32, "width": 32}


def write_words(folder: Path) -> None:
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", bos_token="[START]", eos_token="[END]"
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT with a GPT-2 that has learned to say "a red dog" and "a blue cat" of plain pictures."""
    place = tmp_path_factory.mktemp("models") / "vit-gpt2"
    special: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32,
                  patch_size=16),
        GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=64, **special),
    )  # fmt: skip
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    torch.manual_seed(0)
    model = VisionEncoderDecoderModel(config)
    processor = ViTImageProcessor(size=SIDE)
    pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    seen = processor(images=pictures, return_tensors="pt")["pixel_values"]
    labels = torch.tensor([[4, 5, 7, 3], [4, 6, 8, 3]])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        model(pixel_values=seen, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    for name, value in (("decoder_start_token_id", 2), ("eos_token_id", 3), ("pad_token_id", 0)):
        setattr(model.generation_config, name, value)
    model.save_pretrained(place)
    processor.save_pretrained(place)
    write_words(place)
    return place


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    place = tmp_path / "photos"
    place.mkdir()
    for name, colour in (("a.png", "red"), ("b.jpg", "blue"), ("a_mask.png", "white")):
        Image.new("RGB", (50, 40), colour).save(place / name)
    return place


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["caption", *map(str, arguments)])
    caption.main()


def test_captions_say_what_pictures_show_and_stay(
    photographs: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, photographs, "--captioner", folder)
    texts = {path.name: path.read_text() for path in photographs.glob("*.txt")}
    assert texts == {"a.txt": "a red dog\n", "b.txt": "a blue cat\n"}
    assert capsys.readouterr().out.endswith("b.txt: a blue cat\n2 captions were written, 0 were kept\n")
    (photographs / "a.txt").write_text("mine\n")
    (photographs / "b.txt").unlink()
    run(monkeypatch, photographs, "--captioner", folder, "--word", "sks")
    assert [(photographs / name).read_text() for name in ("a.txt", "b.txt")] == ["mine\n", "sks, a blue cat\n"]
    assert "a.txt: mine  (kept)" in capsys.readouterr().out
    (photographs / "a.txt").write_text("mine\x1b[2J\n")
    run(monkeypatch, photographs, "--captioner", folder)
    assert "a.txt: mine\\x1b[2J  (kept)" in capsys.readouterr().out
    run(monkeypatch, photographs, "--captioner", folder, "--word", "sks dog", "--noun", "Dog", "puppy", "--overwrite")
    said = [(photographs / f"{name}.txt").read_text().strip() for name in "ab"]
    assert said == ["a red sks dog", "sks dog, a blue cat"]
    data = PersonalizedBase(str(photographs), size=32, placeholder_token="sks dog", captions="auto")
    assert [example.captions for example in data.examples] == [(said[0],), (said[1],)]
    run(monkeypatch, photographs, "--captioner", folder, "--word", "*", "--overwrite")
    assert PersonalizedBase(str(photographs), size=32, captions="auto").examples[0].captions == ("*, a red dog",)


def test_of_what_the_folder_says_of_generating_only_token_ids_are_kept(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "said"
    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    for key in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
        config.pop(key, None)
    (place / "config.json").write_text(json.dumps(config))
    ids = {"decoder_start_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    said = {"return_dict_in_generate": True, "stop_strings": ["red"], "max_time": 1e-9, "max_length": 2}
    (place / "generation_config.json").write_text(json.dumps(ids | said))
    assert Captioner(str(place))(Image.new("RGB", (40, 30), "red")) == "a red dog"


def test_where_the_word_goes() -> None:
    assert about("a dog and a dog", "*", ["dog"]) == "a * and a dog"
    assert about("a puppy on a dog bed", "*", ["dog", "puppy"]) == "a * on a dog bed", "the first of the sentence"
    assert about("a hotdog", "*", ["dog"]) == "*, a hotdog"
    assert about("a dog", "") == "a dog"


def test_blip(tmp_path: Path) -> None:
    """Another kind of model; with random weights it says anything, the same each time."""
    size: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "projection_dim": 16,
    }  # fmt: skip
    text = {**size, "vocab_size": len(WORDS), "encoder_hidden_size": 16, "max_position_embeddings": 64,
            "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}  # fmt: skip
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config={**size, "image_size": 32, "patch_size": 16}, projection_dim=16)
    BlipForConditionalGeneration(config).save_pretrained(tmp_path)
    BlipImageProcessor(size=SIDE).save_pretrained(tmp_path)
    write_words(tmp_path)
    captioner, picture = Captioner(str(tmp_path)), Image.new("RGB", (50, 40), "red")
    said = captioner(picture)
    assert said == captioner(picture) and set(said.split()) <= set(WORDS)


def test_a_picture_of_which_the_model_says_nothing(
    photographs: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Captioner, "__call__", lambda self, image: "")
    run(monkeypatch, photographs, "--captioner", folder, "--word", "*")
    assert not list(photographs.glob("*.txt")) and "a.png' has no caption: the model says nothing" in caplog.text


def test_what_cannot_be_captioned(
    photographs: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(message: str, *arguments: object, pictures: Path = photographs) -> None:
        with pytest.raises(UserError, match=message):
            run(monkeypatch, pictures, *arguments)
        assert not list(pictures.glob("*.txt"))

    refused("there is no captioning model in '.*nowhere'", "--captioner", tmp_path / "nowhere")
    poet = write_language_model(tmp_path / "poet", ["a red dog"])
    refused("cannot read a captioning model in '.*poet'", "--captioner", poet)
    refused("a noun is replaced by a word, which --word says", "--captioner", folder, "--noun", "dog")
    (tmp_path / "empty").mkdir()
    refused("holds no pictures", "--captioner", folder, pictures=tmp_path / "empty")
    (tmp_path / "damaged").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "damaged" / name).write_bytes(b"no picture")
    refused("none of the 2 pictures in '.*damaged' can be read", "--captioner", folder, pictures=tmp_path / "damaged")
    Image.new("RGB", (8, 8)).save(photographs / "a.jpg")
    refused("would have one text between them", "--captioner", folder)
