"""What a picture tells about who took it, and where, never leaves with an export."""

from __future__ import annotations

import hashlib
import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from catalog.bare_png import bare_png, is_bare
from catalog.errors import DamagedDataError
from catalog.evidence import PairHashes
from catalog.export_list import ExportRequest
from catalog.manifest import read_manifest
from catalog.session_folder import write_pairs
from catalog.tile_pack import TilePack

SECRETS = (b"Jane of 5 Elm Street", b"\0\0\0\x33\0\0\0\x01")
"""A name, and 51 degrees as EXIF writes the first number of a latitude."""


def plain(seed: int) -> bytes:
    """A small PNG of noise."""
    written = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (4, 6, 3), np.uint8)).save(written, "PNG")
    return written.getvalue()


def telling(content: bytes) -> bytes:
    """The same picture with its photographer and a place in it."""
    told = io.BytesIO()
    exif, text = Image.Exif(), PngInfo()
    exif[0x013B] = "Jane of 5 Elm Street"
    exif.get_ifd(0x8825)[2] = (51.0, 30.0, 26.0)
    text.add_text("Author", "Jane of 5 Elm Street")
    with Image.open(io.BytesIO(content)) as image:
        image.save(told, "PNG", exif=exif, pnginfo=text)
    assert all(secret in told.getvalue() for secret in SECRETS)
    return told.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def filled(catalog, make_session):
    """Six pairs, of which rain-000001 carries secrets in all of its pictures."""
    record_pictures(make_session, [telling(plain(i)) for i in range(3)])
    catalog.add("s1")
    return catalog


def record_pictures(make_session, pictures):
    """Write a session of six pairs in which rain-000001 has these pictures, recorded with their own hashes."""
    writer = make_session("s1", counts={"iso6400": 3, "rain": 3})
    number = next(i for i, pair in enumerate(writer.pairs) if pair.pair == "rain-000001")
    contents = dict(zip(("gt", "lq", "mask"), pictures, strict=True))
    for side, content in contents.items():
        (writer.folder / "pairs" / side / "rain-000001.png").write_bytes(content)
    hashes = PairHashes(**{side: sha256(content) for side, content in contents.items()})
    writer.pairs[number] = writer.pairs[number].model_copy(update={"sha256": hashes})
    write_pairs(writer.folder, writer.pairs)


@pytest.mark.parametrize("kind", ["folder", "foundir", "webdataset", "parquet", "crops"])
def test_no_export_tells_who_took_a_picture_and_where(filled, kind):
    report = filled.export(ExportRequest("set-a", kind), workers=1)

    for path in report.folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not any(secret in content for secret in SECRETS), path
    assert {row.id for row in read_manifest(report.folder)} >= {"s1/rain-000001"}
    assert filled.verify().findings == ()


def test_the_copy_has_the_pixels_and_the_manifest_has_its_hash(filled):
    report = filled.export(ExportRequest("set-a", "folder"), check=True)

    row = next(row for row in read_manifest(report.folder) if row.id == "s1/rain-000001")
    written = (report.folder / row.lq).read_bytes()
    assert sha256(written) == row.sha256_lq != filled.show(row.id).files["lq"].sha256
    with Image.open(io.BytesIO(written)) as told, Image.open(io.BytesIO(plain(1))) as whole:
        assert np.array_equal(np.asarray(told), np.asarray(whole))
    sums = (report.folder / "SHA256SUMS").read_text()
    assert f"{row.sha256_lq}  {row.lq}\n" in sums


def test_all_the_other_pictures_are_links_still(filled):
    report = filled.export(ExportRequest("set-a", "folder"))

    linked = {
        row.id: (report.folder / row.gt).samefile(filled.show(row.id).files["gt"].path)
        for row in read_manifest(report.folder)
    }
    assert linked.pop("s1/rain-000001") is False
    assert len(linked) == 5
    assert all(linked.values())


def test_crops_of_a_picture_that_tells_are_its_pixels(filled):
    report = filled.export(ExportRequest("set-a", "crops"), workers=1)

    rows = list(read_manifest(report.folder))
    shards = sorted({row.gt for row in rows})
    pack = TilePack([report.folder / s for s in shards], [sum(r.gt == s for r in rows) for s in shards])
    crop = pack.crop([row.id for row in rows].index("s1/rain-000001"), 0, 0, 4, 6)
    assert np.array_equal(crop.lq, cv2.imdecode(np.frombuffer(plain(1), np.uint8), cv2.IMREAD_COLOR_RGB))


def broken_note(content: bytes) -> bytes:
    """The checksum of its text is wrong: readers of pictures do not mind, but it cannot be told what is what."""
    at = content.index(b"tEXt")
    return content[: at + 4] + b"X" + content[at + 5 :]


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
@pytest.mark.parametrize(
    "spoil", [broken_note, lambda _: b"\xff\xd8\xff" + SECRETS[0]], ids=["checksum", "no PNG"]
)
def test_a_picture_from_which_nothing_can_be_taken_is_not_exported(catalog, make_session, kind, spoil):
    record_pictures(make_session, [plain(0), plain(1), spoil(telling(plain(2)))])
    catalog.add("s1")

    with pytest.raises(DamagedDataError, match=r"rain-000001\.png: was recorded as it is, but"):
        catalog.export(ExportRequest("set-a", kind), workers=1)

    assert not (catalog.data / "exports" / "set-a").exists()


def test_the_same_bytes_every_time(filled):
    first = filled.export(ExportRequest("set-a", "webdataset"), workers=1)
    second = filled.export(ExportRequest("set-b", "webdataset"), workers=1)

    assert first.manifest_sha256 == second.manifest_sha256


def test_a_bare_picture_is_left_as_it_is(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(telling(plain(1)))

    told = is_bare(path)
    path.write_bytes(bare_png(path.read_bytes()))

    assert not told
    assert is_bare(path)


def test_large_pictures_are_looked_at_from_their_ends_or_from_chunk_to_chunk(tmp_path):
    """1.2 MB of noise: OpenCV writes pixel chunks of 8 KiB, Pillow of 64 KiB, more than the last look."""
    noise = np.random.default_rng(1).integers(0, 255, (640, 640, 3), np.uint8)
    for name, write in {
        "cv2": lambda p: cv2.imwrite(str(p), noise),
        "pillow": lambda p: Image.fromarray(noise).save(p),
    }.items():
        path = tmp_path / f"{name}.png"
        write(path)
        bare = bare_png(path.read_bytes())
        path.write_bytes(bare)
        assert is_bare(path), name
        for told in (bare + b"and my address", _with_text(bare, before_end=True), _with_text(bare)):
            path.write_bytes(told)
            assert not is_bare(path), name
            assert bare_png(told) == bare


def _with_text(content: bytes, *, before_end: bool = False) -> bytes:
    """Put 100,000 bytes of text behind the header or in front of the end."""
    text = PngInfo()
    text.add_text("Comment", "x" * 100_000)
    kind, body, *_ = text.chunks[0]
    chunk = len(body).to_bytes(4, "big") + kind + body
    chunk += zlib.crc32(kind + body).to_bytes(4, "big")
    at = len(content) - 12 if before_end else 33
    return content[:at] + chunk + content[at:]


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff jpeg", plain(1)[:40]])
def test_what_is_no_whole_png_is_said_to_be_none(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)

    with pytest.raises(ValueError, match="PNG"):
        is_bare(path)
