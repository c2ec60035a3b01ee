"""Files and folders of all kinds that are damaged or odd end with one sentence that names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ldm.additions.timed_words import TimedEmbeddingManager
from ldm.checkpoint import diffusers_config, save_state_dict
from ldm.data.captioned import CaptionedFolder
from ldm.data.sentence_pairs import SentencePairs
from ldm.modules.encoders.aligner import Aligner, load_aligner, save_aligner
from ldm.modules.encoders.post_BERT import sizes_in
from ldm.training.options import parse
from ldm.training.run_folder import choose_run_folder
from ldm.util import UserError, instantiate_from_config
from ldm.workflows.request import Txt2ImgOptions, read_request
from ldm.workflows.restyle.checks import checked
from ldm.workflows.restyle.plan import StyleIDOptions

DEEP = "[" * 100_000
DIGITS = "9" * 12_000


def one_sentence(call: Any, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert message.isprintable() and len(message) < 900 and all(word in message for word in words), message


@pytest.mark.parametrize(
    "line",
    [DEEP, DIGITS, f'{{"file": "a.png", "caption": {DEEP}}}', '{"file": "a.png"}', "3", "\x00",
     '{"file": "a.png", "caption": ' + DIGITS + "}", '{"file": "' + "a" * 5000 + '", "caption": "x"}'],
)  # fmt: skip
def test_odd_lines_of_captions(line: str, tmp_path: Path) -> None:
    (tmp_path / "captions.jsonl").write_text(line + "\n")
    one_sentence(lambda: CaptionedFolder(str(tmp_path), 64), "captions.jsonl")


def test_cells_of_more_than_128_kilobytes(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("ko,en\n별," + "a " * 100_000 + "\n")
    one_sentence(lambda: SentencePairs(str(path)), "line 2", "not CSV")
    path.write_text('ko,en\n별,"a star\n' + "달,a moon\n" * 20_000)
    one_sentence(lambda: SentencePairs(str(path)), "not CSV")


def test_only_line_ends_end_a_row(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text('ko,en\n"별 하나",a\u2028star\r\n달,"a\x0bmoon"\n')
    assert [pair["target"] for pair in SentencePairs(str(path)).pairs] == ["a star", "a moon"]


SIZES = {"source_width": 8, "target_width": 8, "length": 4, "dim": 8, "depth": 1, "heads": 2}


@pytest.mark.parametrize(
    "sizes",
    [DEEP, DIGITS, "{", "3", "{}", json.dumps({**SIZES, "depth": 10**9}), json.dumps({**SIZES, "heads": 0}),
     json.dumps({**SIZES, "dim": "8"}), json.dumps({**SIZES, "dim": 2.5}), json.dumps({**SIZES, "fim": 8}),
     json.dumps({**SIZES, "length": True}), json.dumps({**SIZES, "length": -4}), json.dumps({**SIZES, "length": 5}),
     None],
)  # fmt: skip
def test_headers_of_aligners_and_adapters(sizes: str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_aligner(Aligner(**SIZES), path, "nowhere", {})
    assert load_aligner(path)[0].sizes.length == 4
    text = {} if sizes is None else {"sizes": sizes}
    weights = dict(Aligner(**SIZES).state_dict())
    save_state_dict(weights, path, {"kind": "aligner", "encoder": "x", **text})
    one_sentence(lambda: load_aligner(path), "a.safetensors")
    save_state_dict(weights, path, {"kind": "text adapters", "width": "8", **text})
    one_sentence(lambda: sizes_in(path), "a.safetensors")


def test_fields_of_timed_words(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for about in ({"layers": "x"}, {"words": DEEP}, {"words": "3"}, {"words": "[]"}, {"hidden": "1" * 30}, {}):
        save_state_dict({"x": torch.ones(1)}, path, {"kind": "words per timestep", "trigger": "*", **about})
        one_sentence(lambda: TimedEmbeddingManager.read(path, None))  # type: ignore[arg-type]


UNET = {
    "_class_name": "UNet2DConditionModel", "block_out_channels": [32, 64], "layers_per_block": 1, "in_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "cross_attention_dim": 16, "attention_head_dim": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [{"block_out_channels": 3}, {"block_out_channels": []}, {"block_out_channels": ["a"]}, {"block_out_channels": [0]},
     {"down_block_types": 5}, {"down_block_types": [3]}, {"attention_head_dim": "x"}, {"attention_head_dim": [8]},
     {"layers_per_block": "x"}, {"layers_per_block": 10**9}, {"_class_name": None, "architectures": 5},
     {"cross_attention_dim": "x"}, {"in_channels": [4]}, {"block_out_channels": [10**9, 10**9]}],
)  # fmt: skip
def test_damaged_configurations_of_diffusers(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(UNET))
    with torch.device("meta"):
        instantiate_from_config(diffusers_config(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({**UNET, **change}))

    def build() -> None:
        with torch.device("meta"):
            instantiate_from_config(diffusers_config(tmp_path))

    one_sentence(build)


@pytest.mark.parametrize("text", [DEEP, DIGITS, "[]", "{", "\x00", '{"a": ' + DIGITS + "}"])
def test_config_json_that_is_no_object(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    one_sentence(lambda: diffusers_config(tmp_path), "config.json")


def test_results_cannot_go_into_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (str(file), str(file / "below"), str(tmp_path / ("n" * 5000))):
        one_sentence(lambda place=place: read_request(Txt2ImgOptions(outdir=place)), "--outdir")
        one_sentence(lambda place=place: checked(StyleIDOptions(output_path=place)), "--outdir")
        one_sentence(lambda place=place: choose_run_folder(parse(["-l", place])[0]), "--logdir")
    one_sentence(lambda: choose_run_folder(parse(["-n", "n" * 5000, "-l", str(tmp_path)])[0]), "--name")


@pytest.mark.parametrize(
    ("name", "value"),
    [("model_channels", 10**9), ("num_res_blocks", 10**6), ("channel_mult", [1] * 10_000), ("context_dim", 10**8)],
)
def test_sizes_that_no_model_has(name: str, value: Any) -> None:
    params = {"image_size": 8, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": 1,
              "attention_resolutions": [1], "channel_mult": [1], "num_heads": 2, name: value}  # fmt: skip
    target = "ldm.modules.diffusionmodules.openaimodel.UNetModel"
    one_sentence(lambda: instantiate_from_config({"target": target, "params": params}), name, "at most")
