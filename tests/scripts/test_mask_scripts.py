"""The commands that make and draw masks."""

from __future__ import annotations

import asyncio
import builtins
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.pictures import painted as paint
from ldm.pictures.masks import find_masks, mask_path, read_mask
from ldm.util import MissingPartError, UserError
from ldm.web.rules import rules_for
from ldm.workflows.restyle import styleid as restyling
from scripts import draw_mask, make_mask


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """A red square on blue, 40 wide and 30 high."""
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[..., 2] = 200
    pixels[8:22, 10:30] = [220, 30, 20]
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["make_mask", *map(str, arguments)])
    make_mask.main()


def test_a_picture_becomes_a_mask(monkeypatch: pytest.MonkeyPatch, content: Path, tmp_path: Path) -> None:
    drawn = np.zeros((15, 20), np.uint8)
    drawn[:, 10:] = 128
    Image.fromarray(drawn).save(tmp_path / "drawn.png")
    run(monkeypatch, tmp_path / "drawn.png")
    assert read_mask(tmp_path / "drawn.npy").max() == pytest.approx(128 / 255)
    run(monkeypatch, tmp_path / "drawn.png", "--content", content, "--threshold", 0.4, "--invert")
    mask = read_mask(tmp_path / "photo_mask.npy")
    assert mask.shape == (30, 40) and mask[:, :20].min() == 1 and mask[:, 20:].max() == 0
    run(monkeypatch, tmp_path / "drawn.png", "--content", content, "--threshold", 0.4, "--feather", 2, "--number", 1)
    soft = read_mask(tmp_path / "photo_mask1.npy")
    assert 0 < soft[15, 19] < 0.5 < soft[15, 20] < 1
    assert [path.name for path in find_masks(content)] == ["photo_mask.npy", "photo_mask1.npy"]


def test_one_label_of_several_becomes_a_mask(monkeypatch: pytest.MonkeyPatch, content: Path, tmp_path: Path) -> None:
    labels = np.zeros((30, 40), np.uint8)
    labels[:10], labels[20:] = 1, 2
    Image.fromarray(labels).save(tmp_path / "labels.png")
    for number in (0, 1):
        run(monkeypatch, tmp_path / "labels.png", "--label", number + 1, "--content", content, "--number", number)
        assert torch.equal(
            read_mask(tmp_path / f"photo_mask{number}.npy"), torch.from_numpy(labels == number + 1).float()
        )
    colours = np.zeros((30, 40, 3), np.uint8)
    colours[:10, :, 0], colours[20:, :, 1] = 255, 255
    Image.fromarray(colours).save(tmp_path / "colours.png")
    run(monkeypatch, tmp_path / "colours.png", "--label", "0x00ff00", "--content", content)
    assert torch.equal(read_mask(tmp_path / "photo_mask.npy"), torch.from_numpy(labels == 2).float())


def test_what_is_transparent_in_strokes_is_open(monkeypatch: pytest.MonkeyPatch, content: Path, tmp_path: Path) -> None:
    strokes = np.zeros((30, 40, 4), np.uint8)  # transparent
    strokes[14:16, 12:28], strokes[1:3, 2:38] = 255, [0, 0, 0, 255]
    Image.fromarray(strokes).save(tmp_path / "strokes.png")
    run(monkeypatch, content, "--strokes", tmp_path / "strokes.png")
    mask = read_mask(tmp_path / "photo_mask.npy")
    assert mask[9:21, 11:29].min() == 1 and mask[:6].max() == 0 and mask.mean() < 0.4


def test_a_proposal_lies_beside_the_content(
    monkeypatch: pytest.MonkeyPatch, content: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, content, "--box", "6,4,36,26", "--preview", tmp_path / "seen.png")
    mask = read_mask(tmp_path / "photo_mask.npy")
    assert mask[9:21, 11:29].min() == 1 and mask[:4].max() == 0
    assert "photo_mask.npy: 40x30" in capsys.readouterr().out
    assert np.asarray(Image.open(tmp_path / "seen.png"))[0, 0, 2] == 50
    strokes = np.full((30, 40), 128, np.uint8)
    strokes[1:3, 2:38], strokes[14:16, 12:28] = 255, 0
    Image.fromarray(strokes).save(tmp_path / "strokes.png")
    run(monkeypatch, content, "--strokes", tmp_path / "strokes.png", "--number", 0)
    assert read_mask(tmp_path / "photo_mask0.npy")[10:20, 12:28].max() == 0
    run(monkeypatch, content, "--points", "20,15", "--not_points", "2,2", "38,28", "--out", tmp_path / "p.png")
    assert read_mask(tmp_path / "p.png")[10:20, 12:28].min() == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--box", "1,2,3"], "'1,2,3' should be left,top,right,bottom"),
        (["--points", "a,b"], "'a,b' should be x,y"),
        (["--points", "1,nan"], "should be x,y"),
        (["--threshold", "2"], "--threshold must lie between 0 and 1"),
        (["--threshold", "1"], "nothing is left of the mask"),
        (["--feather", "-1"], "feather"),
        (["--label", "two"], "--label should be a number such as 2"),
        (["--sam", "model"], "--sam needs marks"),
        (["--preview", "x.png"], "--preview needs the content"),
        (["--out", "mask.txt"], ".npy or .png"),
        (["--box", "1,1,9,9", "--sam", "nowhere"], "there is no SAM model"),
    ],
)
def test_bad_arguments_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, content: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(monkeypatch, content, *arguments)
    assert not list(content.parent.glob("*mask*"))


def test_another_aspect_or_the_same_file(monkeypatch: pytest.MonkeyPatch, content: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.ones((30, 30), np.float32))
    with pytest.raises(UserError, match="another aspect"):
        run(monkeypatch, tmp_path / "m.npy", "--content", content)
    with pytest.raises(UserError, match="written over itself"):
        run(monkeypatch, tmp_path / "m.npy")


def layer(rows: slice, opacity: int = 255, size: tuple[int, int] = (30, 40)) -> np.ndarray:
    painted = np.zeros((*size, 4), np.uint8)
    painted[rows] = [200, 10, 10, opacity]
    return painted


def test_painted_layers_become_masks() -> None:
    masks = paint.layers_to_masks([layer(slice(0, 10)), layer(slice(0, 0)), layer(slice(20, 30), 51)], (30, 40))
    assert len(masks) == 2
    assert masks[0][:10].min() == 1 and masks[0][10:].max() == 0
    assert masks[1][25, 5] == pytest.approx(51 / 127)
    (large,) = paint.layers_to_masks([layer(slice(0, 30), size=(60, 80))], (30, 40))
    assert large.shape == (30, 40) and large[:14].min() == 1 and large[16:].max() == 0
    (soft,) = paint.layers_to_masks([layer(slice(0, 10))], (30, 40), radius=2)
    assert 0.5 < soft[9, 5] < 1
    with pytest.raises(UserError, match="nothing is painted"):
        paint.layers_to_masks([layer(slice(0, 0))], (30, 40))
    with pytest.raises(UserError, match=r"layer 1 has the shape \[30, 40, 3\]"):
        paint.layers_to_masks([np.zeros((30, 40, 3), np.uint8)], (30, 40))


def test_masks_are_saved_under_the_names_that_are_found(content: Path) -> None:
    three = [torch.full((30, 40), value) for value in (0.25, 0.5, 1.0)]
    draw_mask.save_masks(content, three)
    assert [path.name for path in find_masks(content)] == [f"photo_mask{i}.npy" for i in range(3)]
    Image.new("L", (40, 30), 255).save(content.with_name("photo_mask7.png"))
    draw_mask.save_masks(content, three[:1])
    assert [path.name for path in find_masks(content)] == ["photo_mask.npy"]
    (again,) = paint.layers_to_masks(paint.masks_to_layers(three[:1]), (30, 40))
    assert (again - 0.25).abs().max() <= 0.5 / 127 + 1e-6


def test_masks_of_another_picture_stay(content: Path) -> None:
    """photo.v2.png has masks of its own, and those of photo.png are neither found for it nor removed."""
    draw_mask.save_masks(content, [torch.ones(30, 40), torch.ones(30, 40)])
    other = content.with_name("photo.v2.png")
    other.write_bytes(content.read_bytes())
    assert find_masks(other) == []
    draw_mask.save_masks(other, [torch.full((30, 40), 0.5)])
    assert [path.name for path in find_masks(other)] == ["photo.v2_mask.npy"]
    assert [path.name for path in find_masks(content)] == ["photo_mask0.npy", "photo_mask1.npy"]


def test_the_preview_shows_the_picture_and_the_masks(content: Path) -> None:
    image = Image.open(content).convert("RGB")
    mask = torch.zeros(30, 40)
    mask[:, :20] = 1
    seen = np.asarray(paint.preview(image, [mask]), int)
    plain = np.asarray(image, int)
    assert np.abs(seen[:, 20:] - 0.45 * plain[:, 20:]).max() <= 1  # dimmed outside
    tinted = 0.7 * plain[:, :20] + 0.3 * np.array(paint.colours(1)[0])
    assert np.abs(seen[:, :20] - tinted).max() <= 1


def painted(shown: tuple[int, int], rows: slice) -> dict[str, Any]:
    return {"layers": [layer(rows, 127, shown)]}


def test_what_the_buttons_do(content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def made(options: Any) -> list[Any]:
        asked.append((options, Path(options.pairs).read_text()))
        return [SimpleNamespace(path=Path(options.output_path) / "r.png")]

    monkeypatch.setattr(restyling, "styleid", made)
    page = draw_mask.Page(draw_mask.parse([str(content), "--outdir", str(tmp_path / "out")]))
    assert page.shown == (768, 1024) and page.start()["background"].shape == (768, 1024, 3)
    top = painted(page.shown, slice(0, 384))
    assert page.save({"layers": []}, 0) == "Not saved: nothing is painted yet"
    assert page.save(top, 0) == "Saved: photo_mask.npy"
    assert np.load(mask_path(content))[:14].min() == 1 and not np.load(mask_path(content))[16:].any()
    assert np.asarray(page.see({"layers": []}, 0)).tolist() == np.asarray(page.image).tolist()
    results, told = page.restyle(top, 0, ["style.png"])
    assert results == [str(tmp_path / "out/r.png")] and told == f"Made: {results[0]}"
    options, pairs = asked[0]
    assert options.masks == [str(mask_path(content))] and pairs.split(",")[0] == f'"{content}"'
    assert page.restyle({"layers": top["layers"] * 2}, 0, ["style.png"])[1] == (
        "Not restyled: 2 layers need 2 styles, got 1"
    )
    assert not list((tmp_path / "out").glob("*.txt"))


def test_too_many_layers_are_refused() -> None:
    with pytest.raises(UserError, match="17 layers are too many"):
        paint.layers_to_masks([layer(slice(0, 1))] * 17, (30, 40))


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match=r"cannot listen at 127\.0\.0\.1, port"):
            draw_mask.free_port("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("missing", "words"),
    [("gradio", "which is not installed"), ("certifi", r"which cannot be loaded \(No module named 'certifi'\)")],
)
def test_without_gradio_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, content: Path, missing: str, words: str
) -> None:
    plain = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == "gradio":
            raise ImportError(f"No module named '{missing}'", name=missing)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPartError, match=words + r": pip install -e \'\.\[web\]\'"):
        draw_mask.page(draw_mask.parse([str(content)]))


def beside_each_other(app: Any) -> list[list[Any]]:
    """What stands in the columns of a page's first row that has any."""
    row = next(one for one in app.children if any(hasattr(part, "children") for part in getattr(one, "children", [])))
    return [[part for form in column.children for part in getattr(form, "children", [form])] for column in row.children]


def test_the_page_with_gradio(content: Path) -> None:
    pytest.importorskip("gradio")
    from starlette.testclient import TestClient

    draw_mask.save_masks(content, [torch.ones(30, 40)])
    options = draw_mask.parse([str(content)])
    app = draw_mask.page(options)
    assert app.title == "Masks for photo.png"
    (editor, *_), (_, _, *pressed, _) = beside_each_other(app)
    assert [one.value for one in pressed] == ["Save", "Restyle"] and "100vh" in editor.height  # seen without scrolling
    web = TestClient(draw_mask.server(app, rules_for("127.0.0.1", None), options.outdir), base_url="http://127.0.0.1:7860")
    assert web.get("/").status_code == 200
    assert web.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_a_page_that_is_closed_during_an_upload_is_no_error(content: Path) -> None:
    pytest.importorskip("gradio")
    options = draw_mask.parse([str(content)])
    web = draw_mask.server(draw_mask.page(options), rules_for("127.0.0.1", None), options.outdir)
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nhalf'
    for messages in ([], [{"type": "http.request", "body": part, "more_body": True}]):
        assert asyncio.run(answers(web, [*messages, {"type": "http.disconnect"}])) in ([], [500])  # that nobody reads


async def answers(app: Any, messages: list[dict[str, Any]]) -> list[int]:
    """The codes with which an app answers an upload that brings these messages."""
    coming, codes = iter(messages), []

    async def receive() -> dict[str, Any]:
        return next(coming)

    async def send(message: dict[str, Any]) -> None:
        codes.extend([message["status"]] if "status" in message else [])

    headers = [(b"host", b"127.0.0.1:7860"), (b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "raw_path": b"/gradio_api/upload",
             "root_path": "", "scheme": "http", "query_string": b"", "headers": headers, "http_version": "1.1",
             "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 7860)}  # fmt: skip
    await app(scope, receive, send)
    return codes
