from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from catalog.errors import ExitCode
from models.errors import DamagedImageError
from models.images import encode_png, image_kind, plain_picture, read_picture, read_pixels, write_png

RNG = np.random.default_rng(1)
COLOURS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def _encoded(kind: str, pixels: np.ndarray = COLOURS) -> bytes:
    return cv2.imencode(kind, pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()


@pytest.mark.parametrize("kind", [".png", ".tiff", ".bmp"])
def test_the_content_decides_what_a_file_is_not_its_name(tmp_path, kind):
    misnamed = tmp_path / "picture.jpg"
    misnamed.write_bytes(_encoded(kind))

    assert np.array_equal(read_pixels(misnamed), COLOURS)


def test_kinds_are_told_by_their_first_bytes():
    found = [image_kind(_encoded(kind)) for kind in (".png", ".jpg", ".tiff", ".webp", ".bmp")]

    assert found == ["PNG", "JPEG", "TIFF", "WebP", "BMP"]
    assert image_kind(b"%PDF-1.7") is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a PNG, JPEG, TIFF, WebP or BMP picture"),
        (b"<html>404</html>", "not a PNG"),
        (_encoded(".png")[:-20], "the PNG data end early"),
        (_encoded(".jpg")[:-20], "the JPEG data end early"),
        (_encoded(".png")[:60] + b"\0" * 9 + _encoded(".png")[-16:], "PNG data cannot be decoded"),
    ],
)
def test_what_is_not_a_whole_picture_is_refused(tmp_path, data, message):
    path = tmp_path / "picture.png"
    path.write_bytes(data)

    with pytest.raises(DamagedImageError, match=message) as caught:
        read_pixels(path)
    assert caught.value.exit_code == ExitCode.DAMAGED
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((8, 9, 5), np.uint8), np.full((8, 9, 3), np.nan, np.float32)],
    ids=["five channels", "not a number"],
)
def test_pictures_of_another_kind_of_number_are_refused(tmp_path, pixels):
    path = tmp_path / "picture.tif"
    tifffile.imwrite(path, pixels, photometric="rgb")

    with pytest.raises(DamagedImageError, match="cannot be decoded as grey or RGB of 8 or 16 bit"):
        read_pixels(path)


def test_sixteen_bits_survive_reading_and_writing(tmp_path):
    deep = RNG.integers(0, 65536, (4, 6, 3), dtype=np.uint16)
    write_png(tmp_path / "deep.png", plain_picture(deep))

    again = read_pixels(tmp_path / "deep.png")

    assert again.dtype == np.uint16
    assert np.array_equal(again, deep)


def test_grey_and_alpha_keep_their_channels(tmp_path):
    grey, clear = tmp_path / "grey.png", tmp_path / "clear.png"
    grey.write_bytes(_encoded(".png", COLOURS[..., 0]))
    Image.fromarray(np.dstack([COLOURS, COLOURS[..., 1]]), "RGBA").save(clear)

    copies = [Image.open(io.BytesIO(encode_png(read_picture(path)))) for path in (grey, clear)]

    assert [copy.mode for copy in copies] == ["L", "RGBA"]
    assert np.array_equal(np.asarray(copies[0]), COLOURS[..., 0])
    assert np.array_equal(np.asarray(copies[1])[..., 3], COLOURS[..., 1])


def test_profile_and_orientation_are_carried_over(tmp_path):
    """A JPEG taken upright with the camera turned: the pixels stay as stored, tag 274 says how to turn them."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[274] = 6
    source, copy = tmp_path / "in.jpg", tmp_path / "out.png"
    Image.fromarray(COLOURS).save(source, exif=exif, icc_profile=profile, quality=95)

    write_png(copy, read_picture(source))

    with Image.open(copy) as written:
        assert written.size == (7, 5)
        assert written.getexif()[274] == 6
        assert written.info["icc_profile"] == profile


@pytest.mark.parametrize("cut", [0, 8, 14, 25, 40])
def test_a_damaged_exif_block_costs_itself_alone(tmp_path, cut):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[274], exif[315] = 6, "somebody with a long name"
    block, path = exif.tobytes().removeprefix(b"Exif\0\0")[:cut] or b"no TIFF at all", tmp_path / "in.png"
    Image.fromarray(COLOURS).save(path, exif=block, icc_profile=profile)

    picture = read_picture(path)

    assert np.array_equal(picture.pixels, COLOURS)
    assert picture.icc == profile
