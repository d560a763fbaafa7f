"""Pictures as PNG files, read back by OpenCV's decoder and by Pillow's."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from alignment.errors import PictureFormatError
from alignment.png import encode_png


@pytest.mark.parametrize(
    "picture",
    [
        skimage.data.astronaut(),
        skimage.data.camera(),
        np.random.default_rng(1).integers(0, 256, (41, 37, 3), np.uint8),
        np.zeros((64, 64), np.uint8),
        np.full((1, 1, 3), 7, np.uint8),
    ],
    ids=["colour", "grey", "noise", "black", "one pixel"],
)
def test_a_picture_comes_back_as_it_was(picture):
    data = encode_png(picture)

    with Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == ("L" if picture.ndim == 2 else "RGB")
        assert np.array_equal(np.asarray(opened), picture)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(decoded if picture.ndim == 2 else decoded[..., ::-1], picture)


def test_a_part_of_a_picture_is_written_as_its_copy():
    part = skimage.data.astronaut()[10:90, 20:101]

    assert encode_png(part) == encode_png(part.copy())


def test_a_photograph_takes_no_more_space_than_what_opencv_makes_of_it():
    photo = skimage.data.astronaut()

    usual = len(cv2.imencode(".png", photo)[1])

    assert len(encode_png(photo)) < usual


@pytest.mark.parametrize(
    "picture",
    [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.uint16), np.zeros(4, np.uint8)],
    ids=["four channels", "16 bits", "a row"],
)
def test_what_is_no_picture_of_8_bits_is_refused(picture):
    with pytest.raises(PictureFormatError, match="for a PNG of 8 bits"):
        encode_png(picture)
