"""The small tools for learned words and checkpoints, as commands."""

from __future__ import annotations

import csv
import io
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ldm.checkpoint import EmbeddingFile, read_embedding, save_state_dict, write_embedding
from ldm.metrics.likeness import ScorerJudge, asked_around
from ldm.pictures.images import save_image
from ldm.util import UserError
from ldm.workflows.text_encoder import open_text_encoder
from ldm.world.paint import paint
from ldm.world.scene import Scene, Thing
from scripts import (
    check_word,
    convert_embedding,
    evaluate_concept,
    inspect_checkpoint,
    inspect_embedding,
    merge_embeddings,
    score,
)
from tests import forked
from tests.checkpoint.pickles import attacks
from tests.helpers import ROOT
from tests.modules.encoders.vocabularies import write_bpe
from tests.workflows.small_model import write_small_model

TINY = ROOT / "models" / "ldm" / "tiny"


def run(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    module.main()


def vectors(count: int, seed: int = 0, width: int = 192) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def write(path: Path, *names: str, count: int = 1, width: int = 192) -> Path:
    write_embedding(path, EmbeddingFile({name: vectors(count, i, width) for i, name in enumerate(names)}))
    return path


def test_merge_with_the_originals_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, c = write(tmp_path / "a.pt", "*"), write(tmp_path / "b.pt", "*", count=2), write(tmp_path / "c.bin", "x")
    out = tmp_path / "merged.pt"
    run(monkeypatch, merge_embeddings, "--manager_ckpts", a, f"{b}=@", c, "--output_path", out, "-sd")
    value = torch.load(out, weights_only=False)
    assert set(value["string_to_param"]) == {"*", "@", "x"}
    assert torch.equal(value["string_to_param"]["@"], vectors(2))
    assert "'*' (1), '@' (2), 'x' (1), width 192" in capsys.readouterr().out


def test_merge_asks_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    a, b = write(tmp_path / "a.pt", "*", "y"), write(tmp_path / "b.pt", "*", "z")
    answers = iter(["", "*", "z", "y", "new"])  # nothing, taken, its own, taken, free
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    monkeypatch.setattr(sys, "stdin", Terminal())
    run(monkeypatch, merge_embeddings, "--manager_ckpts", a, b, "--output_path", tmp_path / "m.safetensors")
    assert set(read_embedding(tmp_path / "m.safetensors").vectors) == {"*", "y", "new", "z"}


def test_merge_writes_the_ids_that_a_tokenizer_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = write(tmp_path / "a.pt", "*"), write(tmp_path / "b.pt", "star")
    vocabulary, out = TINY / "vocab.txt", tmp_path / "m.pt"
    run(monkeypatch, merge_embeddings, "--manager_ckpts", a, b, "--output_path", out, "--tokenizer", vocabulary)
    words = vocabulary.read_text().split("\n")
    assert read_embedding(out).tokens == {"*": words.index("*"), "star": words.index("star")}
    split = write(tmp_path / "c.pt", "unicorn")
    with pytest.raises(UserError, match="'unicorn' is 7 tokens"):
        run(monkeypatch, merge_embeddings, "--manager_ckpts", a, split, "--output_path", out, "--tokenizer", vocabulary)


def test_inspect_embedding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = open_text_encoder()
    star = encoder.vector_of(encoder.token_of("star")).float()[None]
    write_embedding(tmp_path / "a.pt", EmbeddingFile({"*": star}, {"steps": "12"}, {"*": star}))
    write_embedding(tmp_path / "b.pt", EmbeddingFile({"*": 2 * star}, {}, {"*": star}))
    run(monkeypatch, inspect_embedding, tmp_path / "a.pt", tmp_path / "b.pt", "--nearest", 2)
    out = capsys.readouterr().out
    assert "compvis, 1 placeholders, for the small model (width 192)" in out and "steps: 12" in out
    assert "has not moved from its start" in out
    assert f"moved by {float(star.norm()):.3f} from its start (100% of its length), cosine 1.000" in out
    assert out.count("nearest: star 1.00, ") == 2 and f"length {float(star.norm()):8.4f}" in out

    write_embedding(tmp_path / "c.pt", EmbeddingFile({"*": star}))
    run(monkeypatch, inspect_embedding, tmp_path / "c.pt")
    assert "where it began is not known" in capsys.readouterr().out
    run(monkeypatch, inspect_embedding, tmp_path / "c.pt", "--init_word", "star")
    assert "has not moved" in capsys.readouterr().out
    wide = write(tmp_path / "wide.pt", "*", width=768)
    run(monkeypatch, inspect_embedding, wide)
    assert "nearest words need the model itself: --ckpt and --config of Stable Diffusion v1" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"made for Stable Diffusion v1 .* loaded model is the small model"):
        run(monkeypatch, inspect_embedding, wide, "--ckpt", TINY / "model.safetensors")
    with pytest.raises(UserError, match="--init_word needs the model"):
        run(monkeypatch, inspect_embedding, wide, "--init_word", "star")


def test_check_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_bpe(tmp_path / "clip")
    run(monkeypatch, check_word, "star", "cat dog", "\u5fd9", "--clip", clip, "--bert", TINY / "vocab.txt")
    out = capsys.readouterr().out
    assert out.count("one token; an init word, or a placeholder") == 2  # star, for the small model and as BERT
    assert "  small model star(" in out and "  BERT        star(" in out
    assert "  CLIP        cat</w>(" in out and "2 tokens; an init word (spread over the vectors" in out
    assert "[UNK](1): not in the vocabulary" in out
    with pytest.raises(UserError, match="an empty word"):
        run(monkeypatch, check_word, " ")
    with pytest.raises(UserError, match=r"tokenizer '.*none.txt' does not exist"):
        run(monkeypatch, check_word, "cat", "--bert", tmp_path / "none.txt")


def test_convert_there_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_embedding(tmp_path / "a.pt", EmbeddingFile({"*": vectors(2), "@": vectors(1, 1)}, {"steps": "7"}))
    run(monkeypatch, convert_embedding, f"{tmp_path / 'a.pt'}=*:cat", tmp_path / "b.png", "--only", "cat")
    run(monkeypatch, convert_embedding, tmp_path / "b.png", tmp_path / "c.safetensors", "--base_model", "mine")
    found = read_embedding(tmp_path / "c.safetensors")
    assert list(found.vectors) == ["cat"] and torch.equal(found.vectors["cat"], vectors(2))
    assert found.metadata["steps"] == "7" and found.metadata["base_model"] == "mine"
    assert "for 'mine' (width 192); it was a a1111-png file" in capsys.readouterr().out
    with pytest.raises(UserError, match="no placeholder 'x'; there are"):
        run(monkeypatch, convert_embedding, tmp_path / "a.pt", tmp_path / "d.pt", "--only", "x")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("small"))


def test_inspect_checkpoint(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "right.yaml").write_text((small.parent / "config.yaml").read_text())
    wider = (small.parent / "config.yaml").read_text().replace("context_dim: 16", "context_dim: 24")
    (configs / "wider.yaml").write_text(wider)
    (configs / "other.yaml").write_text("data:\n  target: x\n")
    run(monkeypatch, inspect_checkpoint, small, "--configs", configs)
    out = capsys.readouterr().out
    assert "UNet" in out and "autoencoder" in out and "text encoder" in out and "float32" in out
    assert "right.yaml" in out and "wider.yaml" not in out

    (configs / "right.yaml").unlink()
    run(monkeypatch, inspect_checkpoint, small, "--configs", configs)
    out = capsys.readouterr().out
    assert "fits no configuration; the nearest:" in out and "wider.yaml" in out
    assert "(0 missing, 8 of another shape, 0 unexpected of" in out

    save_state_dict({"some.weight": torch.zeros(2)}, tmp_path / "odd.safetensors")
    run(monkeypatch, inspect_checkpoint, tmp_path / "odd.safetensors", "--configs", configs)
    assert "resembles none" in capsys.readouterr().out
    run(monkeypatch, inspect_checkpoint, write(tmp_path / "e.pt", "*", count=3))
    assert "learned words '*' (3) for the small model" in capsys.readouterr().out
    with pytest.raises(UserError, match="no YAML"):
        run(monkeypatch, inspect_checkpoint, small, "--configs", tmp_path / "none")


def test_yamls_that_learn_fit_their_base_and_others_are_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A LoRA or a word is learned beside the model, whose keys stay; of a YAML with another width nothing is built."""
    built: list[str] = []
    plain = inspect_checkpoint.shapes_of

    def noted(config: Path) -> dict[str, torch.Tensor] | None:
        built.append(config.name)
        return plain(config)

    monkeypatch.setattr(inspect_checkpoint, "shapes_of", noted)
    learning = ["dreambooth.yaml", "lora.yaml", "pivotal.yaml", "textual-inversion.yaml"]
    for name in [*(f"tiny/{one}" for one in learning), "sdxl/lora.yaml", "stable-diffusion/v1-inference.yaml"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "configs" / name, tmp_path / name)
    run(monkeypatch, inspect_checkpoint, TINY / "model.safetensors", "--configs", tmp_path)
    out = capsys.readouterr().out
    assert built == learning and all(f"tiny/{name}\n" in out for name in learning) and "missing" not in out

    part = {"encoder.conv_in.weight": torch.zeros(32, 3, 3, 3)}  # of an autoencoder, which has no network
    assert not inspect_checkpoint.may_fit(tmp_path / "tiny/lora.yaml", part, inspect_checkpoint.network_sizes(part))
    assert inspect_checkpoint.may_fit(ROOT / "configs/tiny/autoencoder.yaml", part, {})


def picture(name: str, ground: str, size: str) -> Image.Image:
    """A plain red shape in the middle."""
    scene = Scene(ground, (Thing(name, size, "middle", "red", "plain"),))
    return Image.fromarray(((paint([scene], 128)[0] + 1) * 127.5).round().astype(np.uint8))


def test_scorer_as_a_judge() -> None:
    judge = ScorerJudge(score.load_scorer())
    stars = [picture("star", ground, "large") for ground in ("white", "yellow", "black")]
    good, wrong = picture("star", "blue", "small"), picture("circle", "green", "large")
    truth = evaluate_concept.stacked(stars)
    assert judge.concept(truth) == {"thing": "star", "colour": "red", "texture": "plain"}
    prompts = ["a small * on a blue background", "a * on a blue background"]
    found = judge.measures(truth, evaluate_concept.stacked([good, wrong]), prompts, "*")
    shown = {name: values.tolist() for name, values in found.items() if name not in ("image to image", "size")}
    assert shown == {
        "thing": [1.0, 0.0], "colour": [1.0, 1.0], "texture": [1.0, 1.0], "concept": [1.0, 0.0],
        "background": [1.0, 0.0],
    }  # fmt: skip
    assert found["size"][0] == 1 and found["size"][1].isnan()  # the second prompt asks for no size
    assert found["image to image"][0] > found["image to image"][1]


def test_what_prompts_ask_around_the_word() -> None:
    assert asked_around("a large <s> on a red background", "<s>") == {"background": "red", "size": "large"}
    assert asked_around("a blue * on a white background", "*") == {"background": "white"}
    assert asked_around("a * on a beach", "*") == {"background": "beach"}
    assert asked_around("a photo of a *", "*") == {}


def test_clip_as_a_judge(tmp_path: Path) -> None:
    """The embeddings are those of transformers' own methods for the same numbers."""
    from transformers import CLIPConfig, CLIPModel

    from ldm.metrics.likeness import ClipJudge
    from tests.modules.encoders.vocabularies import bpe_size

    folder = write_bpe(tmp_path / "clip")
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    size = bpe_size(folder)
    text = {**small, "vocab_size": size, "max_position_embeddings": 12, "eos_token_id": size - 1}
    config = CLIPConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 8}, projection_dim=8)
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    model.save_pretrained(folder)
    judge = ClipJudge(str(folder))
    pictures = torch.rand(2, 3, 32, 48) * 2 - 1
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = ((pictures[..., 8:40] + 1) / 2 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    ids = judge.tokenizer(["a red cat"])
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=pixels)
    found = judge.measures(pictures[:1], pictures, ["a red * cat"] * 2, "*")
    assert torch.allclose(found["text to image"], out.image_embeds @ out.text_embeds[0], atol=1e-5)
    assert torch.allclose(found["image to image"], out.image_embeds @ out.image_embeds[0], atol=1e-5)
    with pytest.raises(UserError, match="no CLIP model"):
        ClipJudge(str(tmp_path))


def test_evaluate_concept(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    references = tmp_path / "references"
    for number, ground in enumerate(("white", "black")):
        save_image(picture("star", ground, "large"), references / f"{number}.png")
    words = write(tmp_path / "a.pt", "circle", width=16)
    common = ("--references", references, "--ckpt", small, "--device", "cpu", "--outdir", tmp_path / "out")
    learned = (*common, "--embedding_path", words, "--prompt", "a red {}", "--n_samples", 2, "--steps", 2)
    run(monkeypatch, evaluate_concept, *learned, "--init_word", "square")
    said = capsys.readouterr()
    assert "making 4 pictures: 1 prompts with 'circle' and 'square', --n_samples 2 of each" in said.out
    assert "pictures of 'circle': 100%" in said.err and "2/2" in said.err  # a bar while they are made
    with (tmp_path / "out" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["pictures"] for row in rows} == {"references", "learned 'circle'", "word 'square'"}
    assert {row["count"] for row in rows} == {"2"}
    assert Image.open(tmp_path / "out" / "sheet.png").width > 8 * 64

    run(monkeypatch, evaluate_concept, *common, "--generated", references, "--prompts", prompts_file(tmp_path))
    with pytest.raises(UserError, match="either --embedding_path"):
        run(monkeypatch, evaluate_concept, *common)
    with pytest.raises(UserError, match="has no place for the word"):
        run(monkeypatch, evaluate_concept, *common, "--embedding_path", words, "--prompt", "a red star")
    with pytest.raises(UserError, match="say which with --placeholder_string"):
        run(monkeypatch, evaluate_concept, *common, "--embedding_path", write(tmp_path / "b.pt", "a", "b", width=16))
    with pytest.raises(UserError, match="no folder"):
        run(monkeypatch, evaluate_concept, "--references", tmp_path / "none", "--embedding_path", words)


def prompts_file(folder: Path) -> Path:
    (folder / "prompts.txt").write_text("a * on a white background\na * on a black background\n")
    return folder / "prompts.txt"


def test_commands_end_with_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    evil, out = tmp_path / "evil.pt", tmp_path / "out.pt"
    evil.write_bytes(attacks(f"touch {tmp_path / 'trace'}")["REDUCE"])
    commands = [
        ["merge_embeddings", "--manager_ckpts", str(evil), "--output_path", str(out)],
        ["inspect_embedding", str(tmp_path / "none.pt")],
    ]
    for (name, *arguments), message in zip(commands, ["asks to call os.system", "there is no file"], strict=True):
        done = forked.run(f"scripts/{name}.py", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and message in done.stderr
    assert not out.exists() and not (tmp_path / "trace").exists()
