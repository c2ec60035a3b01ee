"""What picture files of other people hold: profiles, EXIF, text, many pixels, HEIC, damage, other formats' names."""

from __future__ import annotations

import builtins
import logging
import struct
import sys
import types
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, PngImagePlugin

from ldm.data.captioned import CaptionedFolder
from ldm.data.folder import ImageFolder
from ldm.data.personalized import PersonalizedBase
from ldm.pictures import images, opening
from ldm.pictures.images import list_images, load_folder, load_image, read_parameters, save_image
from ldm.util import UserError
from ldm.world.photos import load_photo, photo_path, photos
from tests.helpers import ROOT

CASES = Path(__file__).parent / "cases"


@pytest.fixture(autouse=True)
def said_anew() -> None:
    opening.say_once.cache_clear()


def test_colours_are_srgb_by_the_profile() -> None:
    found = np.asarray(load_image(CASES / "wide_gamut.png"), int)
    assert np.abs(found - (0, 201, 37)).max() <= 1


def wide_profile() -> bytes:
    return bytes(Image.open(CASES / "wide_gamut.png").info["icc_profile"])


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif", "avif"])
def test_profiles_of_every_format_count(suffix: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"subsampling": 0} if suffix == "jpg" else {}
    Image.new("RGB", (32, 32), (60, 200, 60)).save(tmp_path / f"a.{suffix}", icc_profile=wide_profile(), quality=100,
                                                   **options)  # fmt: skip
    assert np.abs(np.asarray(load_image(tmp_path / f"a.{suffix}"), int) - (0, 201, 37)).max() <= 4


def test_profiles_of_palettes_layers_and_grey(tmp_path: Path) -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 60, 200, 60])
    palette.save(tmp_path / "p.png", icc_profile=wide_profile())
    layer = Image.new("RGBA", (4, 4), (60, 200, 60, 255))
    layer.putpixel((0, 0), (60, 200, 60, 0))
    layer.save(tmp_path / "a.png", icc_profile=wide_profile())
    for name in ("p.png", "a.png"):
        assert np.abs(np.asarray(load_image(tmp_path / name), int)[3, 3] - (0, 201, 37)).max() <= 1
    assert load_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)
    Image.new("L", (4, 4), 128).save(tmp_path / "g.png", icc_profile=grey_profile(1.0))
    assert np.abs(np.asarray(load_image(tmp_path / "g.png"), int) - 188).max() <= 1  # linear 0.5 is sRGB 188


def grey_profile(gamma: float) -> bytes:
    """A version 2 profile for grey with a gamma: header, table of tags, their contents."""
    white = struct.pack(">4s4x3i", b"XYZ ", 63190, 65536, 54061)
    curve = struct.pack(">4s4xIH", b"curv", 1, round(gamma * 256)).ljust(16, b"\0")
    name = (struct.pack(">4s4xI", b"desc", 5) + b"grey\0").ljust(112, b"\0")
    bodies, table, at = (name, white, curve), b"", 128 + 4 + 3 * 12
    for tag, body in zip((b"desc", b"wtpt", b"kTRC"), bodies, strict=True):
        table += struct.pack(">4sII", tag, at, len(body))
        at += len(body)
    header = struct.pack(">I4sI4s4s4s", at, b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ").ljust(36, b"\0") + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", 3) + table + b"".join(bodies)


def test_the_photographs_of_the_shipped_models_keep_the_numbers_that_were_learned() -> None:
    with_profiles = 0
    for photo in photos():
        with Image.open(photo_path(photo)) as image:
            with_profiles += "icc_profile" in image.info
            assert np.array_equal(np.asarray(load_photo(photo)), np.asarray(image.convert("RGB"))), photo.file
    assert with_profiles >= 2


def test_pictures_in_srgb_keep_every_number(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=profile)
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png")), pixels)


@pytest.mark.parametrize("profile", [b"nonsense", grey_profile(1.0)])
def test_a_profile_that_cannot_be_used_is_said_once(
    profile: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (4, 4), (60, 200, 60)).save(tmp_path / "a.png", icc_profile=profile)
    for _ in range(2):
        assert load_image(tmp_path / "a.png").getpixel((0, 0)) == (60, 200, 60)
    assert caplog.text.count("the colour profile of") == 1 and "a.png" in caplog.text


def test_broken_exif_is_said_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with Image.open(CASES / "bad_exif.png") as image:
        pixels = np.asarray(image)
    for _ in range(2):
        assert np.array_equal(np.asarray(load_image(CASES / "bad_exif.png")), pixels)
    assert caplog.text.count("the EXIF data of") == 1 and "bad_exif.png" in caplog.text


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*extra: bytes, width: int = 4, height: int = 4) -> bytes:
    """A grey PNG of zeros with more chunks before its pixels."""
    rows = zlib.compress(b"\0" * (height * (width + 1)), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join((chunk(b"IHDR", header), *extra, chunk(b"IDAT", rows), chunk(b"IEND", b"")))


def test_more_than_a_megabyte_of_text_or_profile_is_read(tmp_path: Path) -> None:
    text = "a" * 3_000_000
    for name, extra in {
        "z": chunk(b"zTXt", b"parameters\0\0" + zlib.compress(text.encode())),
        "i": chunk(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(text.encode())),
        "t": chunk(b"tEXt", b"parameters\0" + text.encode()),
    }.items():
        (tmp_path / f"{name}.png").write_bytes(png(extra))
        assert load_image(tmp_path / f"{name}.png").size == (4, 4)
        assert read_parameters(tmp_path / f"{name}.png") == text
    assert load_image(CASES / "icc_2mb.png").mode == "RGB"
    assert [load_image(CASES / f"{kind}.png").size for kind in ("ztxt", "itxt")] == [(8, 8), (8, 8)]


def test_text_that_would_fill_the_memory_is_one_sentence(tmp_path: Path) -> None:
    bomb = zlib.compress(b"a" * (opening.MOST_TEXT + 1))
    (tmp_path / "z.png").write_bytes(png(chunk(b"zTXt", b"parameters\0\0" + bomb)))
    with pytest.raises(UserError, match=r"z\.png'"):
        load_image(tmp_path / "z.png")


def test_whole_numbers_of_a_tiff_keep_their_range(tmp_path: Path) -> None:
    with Image.open(CASES / "int32_0_255.tif") as image:
        numbers = np.asarray(image)
    assert np.array_equal(np.asarray(load_image(CASES / "int32_0_255.tif"))[..., 0], numbers)
    Image.fromarray(numbers * 257).save(tmp_path / "wide.tif")
    assert np.array_equal(np.asarray(load_image(tmp_path / "wide.tif"))[..., 0], numbers)
    values = np.full((4, 4), 200, ">u2").tobytes()
    (tmp_path / "dim.pgm").write_bytes(b"P5 4 4 65535\n" + values)  # 16 bits by its header: dark it is
    assert np.asarray(load_image(tmp_path / "dim.pgm")).max() <= 1


def test_large_pictures_are_converted_in_strips_to_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 20, 4), np.uint8)
    picture = Image.fromarray(pixels)
    keyed = picture.convert("P")
    keyed.info["transparency"] = 3
    made = [picture, keyed, *(picture.convert(mode) for mode in ("LA", "RGB", "CMYK", "1"))]
    made += [Image.fromarray(pixels[..., 0].astype(dtype)) for dtype in (np.uint16, np.float32)]
    for image in made:
        for profile in (None, wide_profile()):
            image.info["icc_profile"] = profile
            monkeypatch.setattr(images, "STRIP", 1024)
            whole = np.asarray(images.to_rgb(image))
            monkeypatch.setattr(images, "STRIP", 5)
            assert np.array_equal(np.asarray(images.to_rgb(image)), whole), image.mode


def test_heic_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    forbid(monkeypatch, "pillow_heif")
    with pytest.raises(UserError, match=r"a\.heic': HEIC needs the package 'pillow-heif'"):
        load_image(CASES / "heic" / "a.heic")
    folder = str(CASES / "heic")
    for read in (
        lambda: [path.name for path, _ in load_folder(folder)],
        lambda: [example.path.name for example in PersonalizedBase(folder, size=8).examples],
        lambda: [path.name for path in ImageFolder(folder, size=8).files.paths],
    ):
        caplog.clear()
        assert read() == ["c.png"]
        assert "a.heic" in caplog.text and "b.HEIC" in caplog.text and "pillow-heif" in caplog.text
    with pytest.raises(UserError, match=r"a\.heic"):
        CaptionedFolder(folder)


def forbid(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    real = builtins.__import__

    def guarded(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named '{package}'", name=package)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", guarded)


def test_heic_is_read_where_the_package_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reader(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._size, self._mode, self.tile = (2, 3), "RGB", []

        def load(self) -> Any:
            self.im = Image.new("RGB", (2, 3), (1, 2, 3)).im
            return None

    def register() -> None:
        Image.register_open("HEIF", Reader, lambda head: head[4:12] == b"ftypheic")

    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    assert [path.name for path, _ in load_folder(CASES / "heic")] == ["a.heic", "b.HEIC", "c.png"]
    assert load_image(CASES / "heic" / "a.heic").getpixel((0, 0)) == (1, 2, 3)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n"
PLAIN_TGA = struct.pack("<BBB5xHHHHBB", 0, 0, 2, 0, 0, 1, 1, 24, 0) + b"abc"


@pytest.mark.parametrize(
    "data", [EPS, PLAIN_TGA, b"%PDF-1.4\n", b"8BPS\0\1".ljust(40), b"\0\0\1\0\1\0".ljust(40, b"\1")]
)
@pytest.mark.parametrize("name", ["photo.png", "photo.jpg"])
def test_other_formats_are_refused_under_any_name(
    data: bytes, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.check_call", lambda *a, **k: pytest.fail("a program was started"))
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("a program was started"))
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match="not a picture in a known format"):
        load_image(tmp_path / name)
    with pytest.raises(UserError, match="not a picture in a known format"):
        read_parameters(tmp_path / name)
    with pytest.raises(UserError, match="none of the 1 pictures"):
        ImageFolder(str(tmp_path), size=8)


def test_pictures_are_opened_in_one_place_and_only_in_listed_formats() -> None:
    opens = [
        (path.relative_to(ROOT).as_posix(), line.strip())
        for folder in ("ldm", "scripts", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        for line in path.read_text().splitlines()
        if "Image.open(" in line or "imread(" in line
    ]
    # pictures that the project itself has made, and those of others
    own = {"ldm/workflows/look/questions.py", "scripts/screenshots.py", "benchmarks/server_load.py",
           "benchmarks/personalise.py"}  # fmt: skip
    strangers = {"ldm/pictures/opening.py", "ldm/pictures/film.py", "ldm/checkpoint/embedding_picture.py"}
    assert {name for name, _ in opens} == strangers | own
    assert all("formats=" in line for _, line in opens)
    assert not {"EPS", "PDF", "WMF", "PSD", "MPEG", "HDF5", "GRIB"} & set(opening.FORMATS)


def test_a_telephones_jpeg_with_several_pictures(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    assert np.asarray(load_image(tmp_path / "a.jpg"))[4, 4, 0] > 240


def test_a_bomb_is_one_sentence_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(opening.LIMIT_NAME, raising=False)
    side = 13000
    (tmp_path / "a.png").write_bytes(png(width=side, height=side))
    assert (tmp_path / "a.png").stat().st_size < 400_000
    with pytest.raises(UserError, match=r"a\.png' would unpack to 169,000,000 pixels .* LDM_MAX_PIXELS=169000000"):
        load_image(tmp_path / "a.png")
    with pytest.raises(UserError, match="none of the 1 pictures"):
        ImageFolder(str(tmp_path), size=8)


def header_only(path: Path, side: int, size: int) -> None:
    """A PNG that says how large it is, and weighs what a photograph of that size does."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"\0" * size))


def test_photographs_beyond_179_megapixels_are_read_up_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(opening.LIMIT_NAME, raising=False)
    header_only(tmp_path / "a.png", 14000, 4_000_000)  # 196 million
    opening.check_image(tmp_path / "a.png")
    header_only(tmp_path / "b.png", 16000, 4_000_000)  # 256 million
    with pytest.raises(UserError, match=r"has 256,000,000 pixels, and the limit is 250,000,000; .* LDM_MAX_PIXELS"):
        opening.check_image(tmp_path / "b.png")
    header_only(tmp_path / "c.png", 40000, 4_000_000)
    with pytest.raises(UserError, match=r"over 500,000,000 pixels, and the limit is 250,000,000"):
        opening.check_image(tmp_path / "c.png")
    monkeypatch.setenv(opening.LIMIT_NAME, "2000000000")
    for name in ("a", "b", "c"):
        opening.check_image(tmp_path / f"{name}.png")
    monkeypatch.setenv(opening.LIMIT_NAME, "100")
    with pytest.raises(UserError, match="the limit is 100;"):
        load_image(CASES / "wide_gamut.png")
    for wrong in ("many", "-1", "1e9", "0"):
        monkeypatch.setenv(opening.LIMIT_NAME, wrong)
        with pytest.raises(UserError, match="LDM_MAX_PIXELS should be a whole number"):
            load_image(CASES / "wide_gamut.png")


@pytest.mark.slow
def test_a_picture_of_182_megapixels_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(opening.LIMIT_NAME, raising=False)
    Image.new("L", (14000, 13000), 7).save(tmp_path / "a.jpg")
    found = load_image(tmp_path / "a.jpg")
    assert found.size == (14000, 13000) and found.getpixel((13999, 12999)) == (7, 7, 7)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "gif", "ppm", "avif"])
def test_damage_is_one_sentence(suffix: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (24, 24, 3), np.uint8)
    save_image(Image.fromarray(pixels), tmp_path / f"whole.{suffix}")
    whole = (tmp_path / f"whole.{suffix}").read_bytes()
    path = tmp_path / f"a.{suffix}"
    refused = 0
    for number in range(60):
        data = bytearray(whole[: int(generator.integers(1, len(whole)))] if number % 2 else whole)
        for _ in range(int(generator.integers(1, 6))):
            data[int(generator.integers(min(len(data), 200 if number % 3 else len(data))))] = generator.integers(256)
        path.write_bytes(data)
        try:
            load_image(path)
        except UserError as error:
            refused += 1
            assert str(error).isprintable() and len(str(error)) < 400 and path.name in str(error)
    assert refused


def test_what_decoders_raise_becomes_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(Image.new("RGB", (4, 4)), tmp_path / "a.png")
    for error in (struct.error("unpack"), IndexError("x\n\x1b[31my" * 99), RuntimeError(), MemoryError(), KeyError(3)):

        def load(self: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
        with pytest.raises(UserError, match=r"cannot read the image '.*a\.png'") as caught:
            load_image(tmp_path / "a.png")
        assert str(caught.value).isprintable()


def test_heic_and_pictures_of_a_folder_are_listed(tmp_path: Path) -> None:
    for name in ("b.HEIC", "a.png", "c.heif", "d.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.HEIC", "c.heif"]


def test_writing_keeps_to_known_formats(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(UserError, match="no picture format"):
        save_image(Image.new("RGB", (4, 4)), tmp_path / "a.heic")
    assert not list(tmp_path.iterdir())
