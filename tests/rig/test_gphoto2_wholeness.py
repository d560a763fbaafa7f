"""Whole, cut and garbled camera files, told apart by their own structure; no camera."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_camera import grey_jpeg, write_movie

from rig.devices.gphoto2_wholeness import damage_of, jpeg_damage


def box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


WHOLE = box(b"ftyp", b"qt  ") + box(b"mdat", b"\0" * 100) + box(b"moov", b"\0" * 50)


def damage(tmp_path: Path, content: bytes, suffix: str) -> str:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    return damage_of(path, suffix)


def test_a_real_movie_is_whole(tmp_path: Path):
    write_movie(tmp_path / "a.mov", frames=5)

    assert damage_of(tmp_path / "a.mov", ".MOV") == ""


def test_a_movie_with_large_boxes_and_one_to_its_end_is_whole(tmp_path: Path):
    """Length 1 announces a 64-bit length, length 0 a box that goes on to the end of the file."""
    large = struct.pack(">I4sQ", 1, b"mdat", 16 + 100) + b"\0" * 100
    open_ended = struct.pack(">I4s", 0, b"mdat") + b"\0" * 10

    assert damage(tmp_path, box(b"moov", b"") + large, ".mov") == ""
    assert damage(tmp_path, box(b"moov", b"") + open_ended, ".mp4") == ""


@given(cut=st.integers(min_value=1, max_value=len(WHOLE) - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_movie_cut_anywhere_is_damaged(tmp_path: Path, cut: int):
    """Also where a box ends, since the index comes last."""
    assert damage(tmp_path, WHOLE[:cut], ".mov")


def test_a_movie_without_an_index_is_damaged(tmp_path: Path):
    assert (
        damage(tmp_path, box(b"ftyp", b"qt  ") + box(b"mdat", b"\0"), ".mov")
        == "the movie has no index (moov)"
    )


@pytest.mark.parametrize("content", [b"", b"\0", b"\0" * 64, b"not a movie at all, but text"])
def test_what_is_no_movie_is_damaged_and_ends_the_search(tmp_path: Path, content: bytes):
    """Eight zeros are a box that would go on to the end; there is no index in it."""
    assert damage(tmp_path, content, ".mov")


def test_a_jpeg_is_whole_with_the_padding_that_some_bodies_add():
    assert jpeg_damage(grey_jpeg(320, 240)) == ""
    assert jpeg_damage(grey_jpeg(320, 240) + b"\0" * 30_000) == ""


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_cut_jpeg_is_damaged(share: float):
    picture = grey_jpeg(320, 240)

    assert jpeg_damage(picture[: int(len(picture) * share)]) == "the JPEG picture is cut off"


def test_what_is_no_jpeg_is_told():
    assert jpeg_damage(b"") == "it is no JPEG picture"
    assert jpeg_damage(b"II*\0raw") == "it is no JPEG picture"


def test_kinds_that_are_not_known_are_not_judged(tmp_path: Path):
    assert damage(tmp_path, b"anything", ".NEF") == ""
