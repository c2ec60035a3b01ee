"""The table of released weights, and the command that gets them: without a network, cut off, damaged, and whole."""

from __future__ import annotations

import hashlib
import io
import logging
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ldm.modules.encoders import hub
from ldm.modules.encoders.bpe import load_bpe
from ldm.released import RELEASED, File, Released, entry_of_file, how_to_get, markdown_table, released
from ldm.shipped import here_or_shipped
from ldm.util import UserError, run_command
from ldm.workflows import download as downloads
from ldm.workflows.download import download, fetch
from ldm.workflows.models import open_model
from scripts.download import main
from tests.helpers import ROOT
from tests.workflows.small_model import write_small_model

CONTENT = bytes(range(256)) * 40


class Server(BaseHTTPRequestHandler):
    """Gives CONTENT, from the byte that is asked for; the first answer breaks off where ``cut`` says."""

    cut = 0
    asked: list[str] = []  # noqa: RUF012 - one server a test

    def do_GET(self) -> None:
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        Server.asked.append(self.headers.get("Range", ""))
        body = CONTENT if not self.path.endswith(".zip") else zipped(CONTENT)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        until, Server.cut = Server.cut or len(body), 0
        self.wfile.write(body[start:until])

    def log_message(self, *_: object) -> None:
        pass


def zipped(content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("model.ckpt", content)
    return made.getvalue()


@pytest.fixture
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Server)
    Server.cut, Server.asked = 0, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (hub, downloads):
        monkeypatch.setattr(place, "reachable", lambda host: False)


def test_names_are_single_and_what_entries_name_exists() -> None:
    assert len({one.name for one in RELEASED}) == len(RELEASED)
    for one in RELEASED:
        assert not one.config or here_or_shipped(one.config).is_file(), one.name
        assert not one.tokenizer or released(one.tokenizer) is not None
        for file in one.files:
            assert file.url.startswith("https://") and (file.sha256 is None or len(file.sha256) == 64)


def test_every_checkpoint_that_configs_name_is_in_the_table() -> None:
    yamls = {one.config for one in RELEASED}
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    inference = {name for name in shipped if name.endswith(("inference.yaml", "inference-v.yaml", "eval.yaml"))}
    assert inference - yamls == set()
    assert {path.parent.name for path in (ROOT / "models/first_stage_models").glob("*/config.yaml")} <= {
        one.name for one in RELEASED
    }


def test_the_table_of_the_docs_is_the_one_in_the_code() -> None:
    assert (ROOT / "docs/models.md").read_text(encoding="utf-8").endswith(markdown_table())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("sd-v1-4.ckpt", "sd-v1-4"),
        ("elsewhere/v2-1_768-ema-pruned.ckpt", "sd-v2-1"),
        ("models/first_stage_models/kl-f8/model.ckpt", "kl-f8"),
        ("models/ldm/text2img-large/model.ckpt", "ldm-text2img-large"),
        ("model.ckpt", None),
    ],
)
def test_a_path_that_is_not_there_is_known_by_its_name(path: str, name: str | None) -> None:
    found = entry_of_file(path)
    assert (found and found.name) == name
    assert f"scripts.download{' ' + name if name else ''}'" in how_to_get(path)


def test_a_missing_checkpoint_names_the_command() -> None:
    with pytest.raises(UserError, match=r"no checkpoint 'sd-v1-4.ckpt'; 'python -m scripts.download sd-v1-4' puts it"):
        open_model("sd-v1-4.ckpt", "configs/stable-diffusion/v1-inference.yaml")
    with pytest.raises(UserError, match=r"'python -m scripts.download' lists released weights"):
        open_model("mine.safetensors")


def test_a_model_without_its_tokenizer_says_so_when_it_is_opened(tmp_path: Path, offline: None) -> None:
    weights = write_small_model(tmp_path / "model")
    text = (tmp_path / "model/config.yaml").read_text()
    (tmp_path / "model/config.yaml").write_text(text.replace("vocab.txt", "bert-base-uncased"))
    with pytest.raises(UserError, match=r"bert-base-uncased.*scripts.download bert-tokenizer' gets it"):
        open_model(weights)


def test_a_downloaded_tokenizer_is_found(tmp_path: Path, offline: None) -> None:
    folder = tmp_path / "models/tokenizers/clip-vit-large-patch14"
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "a": 3}')
    (folder / "merges.txt").write_text("#version: 0.2\n")
    assert load_bpe("openai/clip-vit-large-patch14").get_vocab()["a</w>"] == 2


def test_without_a_network_it_says_what_to_do_and_leaves_nothing(
    tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, words in (
        ("sd-v1-5", "huggingface.co cannot be reached; get v1-5-pruned-emaonly.safetensors from https://huggingface.co/"),
        ("kl-f8", "cannot be reached; get model.ckpt out of kl-f8.zip"),
        ("sd15", "no released weights are called 'sd15'; the nearest"),
    ):
        monkeypatch.setattr(sys, "argv", ["download", name])
        with pytest.raises(SystemExit) as ended:
            run_command(main)
        said = capsys.readouterr().err
        assert ended.value.code == 2 and words in said and said.count("\n") == 1, said
    assert list(tmp_path.iterdir()) == []


def entry(address: str, **changes: object) -> File:
    file = File(f"{address}/weights.pth", size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
    return replace(file, **changes)  # type: ignore[arg-type]


def test_what_was_cut_off_goes_on(tmp_path: Path, address: str) -> None:
    path = tmp_path / "weights.pth"
    Server.cut = 1000
    with pytest.raises(UserError, match="broke off"):
        fetch(entry(address), path)
    assert not path.exists() and (tmp_path / "weights.pth.part").stat().st_size == 1000
    fetch(entry(address), path)
    assert Server.asked == ["", "bytes=1000-"]
    assert path.read_bytes() == CONTENT and [one.name for one in tmp_path.iterdir()] == ["weights.pth"]


def test_a_member_of_a_zip_is_taken_out(tmp_path: Path, address: str) -> None:
    path = tmp_path / "model.ckpt"
    fetch(File(f"{address}/kl-f8.zip", member="model.ckpt"), path)
    assert path.read_bytes() == CONTENT and [one.name for one in tmp_path.iterdir()] == ["model.ckpt"]
    with pytest.raises(UserError, match=r"is no zip with 'other\.ckpt'"):
        fetch(File(f"{address}/kl-f8.zip", member="other.ckpt"), tmp_path / "other.ckpt")


def test_a_wrong_file_is_refused(tmp_path: Path, address: str) -> None:
    path = tmp_path / "weights.pth"
    for change, words in (({"size": 5}, "has 10240 bytes"), ({"sha256": "0" * 64}, "its SHA-256 differs")):
        with pytest.raises(UserError, match=words):
            fetch(entry(address, **change), path)
        assert not path.exists()


def test_an_entry_comes_with_its_yaml_and_is_not_fetched_twice(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = Released("mine", "", "", tmp_path / "mine", (entry(address),), "configs/tiny/ldm.yaml")
    monkeypatch.setattr(downloads, "released", lambda name: one)
    (path,) = download("mine")
    assert path.read_bytes() == CONTENT
    assert (path.parent / "config.yaml").read_bytes() == (ROOT / "configs/tiny/ldm.yaml").read_bytes()
    with caplog.at_level(logging.INFO):
        download("mine")
    assert "is there already" in caplog.text and len(Server.asked) == 1
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="remove it and get it again"):
        download("mine")


def test_the_hub_is_asked_by_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def give(repo: str, name: str, local_dir: Path) -> str:
        assert (repo, name) == ("owner/model", "a/weights.bin")
        (local_dir / "a").mkdir(parents=True)
        (local_dir / "a/weights.bin").write_bytes(CONTENT)
        return str(local_dir / "a/weights.bin")

    def break_off(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(downloads, "reachable", lambda host: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", give)
    fetch(File("a/weights.bin", "owner/model", len(CONTENT)), tmp_path / "x" / "weights.bin")
    assert (tmp_path / "x/weights.bin").read_bytes() == CONTENT
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", break_off)
    with pytest.raises(UserError, match="on a machine with a network"):
        fetch(File("b.bin", "owner/model"), tmp_path / "b.bin")


def test_the_list_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["download"])
    main()
    assert all(one.name in capsys.readouterr().out for one in RELEASED[:1])
