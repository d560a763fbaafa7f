"""Write the shards of a packed export: tar for WebDataset, Parquet for `datasets`, tiles for our own loader.

A shard is one job that depends on nothing but the pictures of its pairs: any number of workers, on any machine
that sees the files, writes the same bytes. Every picture's hash is compared with the recorded one on the way.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from catalog.bare_png import bare_png
from catalog.errors import DamagedDataError, MissingExtraError
from catalog.executors import ordered
from catalog.export_formats import ShardKind
from catalog.manifest import ManifestRow
from catalog.records import degradation_key
from catalog.session_folder import file_sha256, replacing
from catalog.stored_files import open_no_follow
from catalog.tile_format import Codec, Samples
from catalog.tile_pack import TileShard
from catalog.tile_pack_writer import PackPair, write_shard

ROW_GROUP_BYTES = 64 << 20
"""Parquet readers take a row group at a time."""
_READERS_OF_A_TAR, _PAIRS_AHEAD = 2, 4
_HANDED_OVER_BYTES = 32 << 20
"""What the disk gets at a time; Linux begins to write pages back that are said not to be needed again."""
Sums = dict[str, str]
"""Hashes by file name that a writer knows already; the other files are read again."""


@dataclass(frozen=True)
class ShardPicture:
    """One picture of a pair and where it is."""

    side: str
    """``gt``, ``lq`` or ``mask``."""
    path: Path
    sha256: str
    bare_sha256: str | None = None
    """Of the file without private metadata, where it carries any."""


@dataclass(frozen=True)
class ShardPair:
    """A pair as a shard's writer needs it."""

    ordinal: int
    row: ManifestRow
    pictures: tuple[ShardPicture, ...]


@dataclass(frozen=True)
class ShardJob:
    """One shard of an export."""

    kind: ShardKind
    target: Path
    pairs: tuple[ShardPair, ...]
    codec: Codec
    tile_px: int

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of the shard's files, without their folder."""
        beside = (self.target.with_suffix(".index").name,) if self.kind == "crops" else ()
        return (self.target.name, *beside)


@dataclass(frozen=True)
class ShardDone:
    """A shard that has its name."""

    target: Path
    sha256: dict[str, str]
    """Of every file of the shard, by file name."""
    pairs: int


def require_writer(kind: ShardKind) -> None:
    """Make sure that a kind of shard can be written here.

    Raises:
        MissingExtraError: Its library is not installed.
    """
    if kind == "parquet" and find_spec("pyarrow") is None:
        raise MissingExtraError(
            "--format parquet needs pyarrow, which is not installed",
            kept="the catalog, unchanged",
            next_step="pip install 'cleanplate[parquet]'",
        )


def run_shard_job(job: ShardJob) -> ShardDone:
    """Write a shard that is not there yet, durable before it gets its name.

    Raises:
        DamagedDataError: A picture is missing, or is not what the catalog recorded.
    """
    job.target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    known = {} if job.target.exists() else _WRITERS[job.kind](job)
    sums = {name: known.get(name) or file_sha256(job.target.with_name(name)) for name in job.file_names}
    return ShardDone(job.target, sums, len(job.pairs))


@dataclass(frozen=True)
class ShardCheck:
    """A written shard, and the pairs it ought to hold."""

    kind: ShardKind
    target: Path
    ids: tuple[str, ...]


def check_shard(check: ShardCheck) -> None:
    """Read a shard back and compare it with the list of its pairs.

    Raises:
        DamagedDataError: Something is missing or differs.
    """
    found = tuple(_READERS[check.kind](check.target))
    if found != check.ids:
        raise DamagedDataError(
            f"{check.target}: holds {len(found)} pairs that are not the {len(check.ids)} listed",
            next_step="export again with --restart",
        )


class _SummedFile:
    """Hashes what is written, so that a shard need not be read again for its sum.

    The disk is told to begin early: it writes while the next pictures are read, and the wait at a shard's end is short.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self._handed_over = 0

    def write(self, data: bytes) -> None:
        """Write and hash."""
        self._digest.update(data)
        self._file.write(data)
        if self._file.tell() - self._handed_over >= _HANDED_OVER_BYTES:
            self._hand_over()

    def _hand_over(self) -> None:
        self._file.flush()
        end = self._file.tell()
        os.posix_fadvise(
            self._file.fileno(), self._handed_over, end - self._handed_over, os.POSIX_FADV_DONTNEED
        )
        self._handed_over = end

    def fill_up(self, block_bytes: int) -> None:
        """Write zeros up to a multiple of a block."""
        self.write(bytes(-self._file.tell() % block_bytes))

    @property
    def sha256(self) -> str:
        """Hash of all that was written."""
        return self._digest.hexdigest()


def _write_tar(job: ShardJob) -> Sums:
    """Write a tar while threads read and check the pictures that come next: hashing leaves the interpreter free."""
    with replacing(job.target) as file, ThreadPoolExecutor(_READERS_OF_A_TAR) as readers:
        tar = _SummedFile(file)
        read = ordered(readers, _all_pictures, job.pairs, ahead=_PAIRS_AHEAD)
        for pair, pictures in zip(job.pairs, read, strict=True):
            for name, content in pictures:
                _add(tar, f"{pair.ordinal:08d}.{name}", content)
            _add(tar, f"{pair.ordinal:08d}.json", _facts(pair.row))
        tar.write(bytes(2 * tarfile.BLOCKSIZE))
        tar.fill_up(tarfile.RECORDSIZE)
    return {job.target.name: tar.sha256}


def _add(tar: _SummedFile, name: str, content: bytes) -> None:
    """Add a member; `tarfile` itself would copy the content once more, with the interpreter held."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.write(member.tobuf(tarfile.USTAR_FORMAT))
    tar.write(content)
    tar.fill_up(tarfile.BLOCKSIZE)


def _facts(row: ManifestRow) -> bytes:
    return row.model_dump_json(exclude={"gt", "lq", "mask"}).encode()


def _read_tar(path: Path) -> Iterator[str]:
    with tarfile.open(path) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if member.name.endswith(".json") and content is not None:
                yield json.loads(content.read())["id"]


def _write_parquet(job: ShardJob) -> Sums:
    import pyarrow as pa
    from pyarrow import parquet

    schema = _parquet_schema()
    with (
        replacing(job.target) as file,
        parquet.ParquetWriter(file, schema, compression="NONE", write_statistics=False) as out,
    ):
        rows: list[dict[str, Any]] = []
        nbytes = 0
        for pair in job.pairs:
            rows.append(_parquet_row(pair))
            nbytes += len(rows[-1]["gt"]["bytes"]) + len(rows[-1]["lq"]["bytes"])
            if nbytes >= ROW_GROUP_BYTES:
                out.write_table(pa.Table.from_pylist(rows, schema))
                rows, nbytes = [], 0
        if rows:
            out.write_table(pa.Table.from_pylist(rows, schema))
    return {}


def _parquet_schema() -> Any:
    """Columns with the note by which `datasets` knows that two or three of them are pictures."""
    import pyarrow as pa

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    text, number, count = pa.string(), pa.float64(), pa.int32()
    columns = {
        "id": text,
        "gt": image,
        "lq": image,
        "mask": image,
        "class": text,
        "scene": text,
        "session": text,
        "round": text,
        "foundir_class": text,
        "source": text,
        "settings": text,
        "mu": number,
        "sigma": number,
        "residual_px": number,
        "predicted_epe_px": number,
        "width": count,
        "height": count,
    }
    kinds = {image: {"_type": "Image"}, text: {"dtype": "string", "_type": "Value"}}
    kinds |= {number: {"dtype": "float64", "_type": "Value"}, count: {"dtype": "int32", "_type": "Value"}}
    features = {name: kinds[kind] for name, kind in columns.items()}
    note = json.dumps({"info": {"features": features}}, separators=(",", ":"))
    return pa.schema(list(columns.items()), metadata={"huggingface": note})


def _parquet_row(pair: ShardPair) -> dict[str, Any]:
    row = pair.row
    texts = ("id", "scene", "session", "round", "foundir_class", "source")
    same = (*texts, "mu", "sigma", "residual_px", "predicted_epe_px", "width", "height")
    name = row.id.replace("/", "@")
    pictures = {
        kind.split(".")[0]: {"bytes": content, "path": f"{name}.{kind}"} for kind, content in _pictures(pair)
    }
    return {
        **{field: getattr(row, field) for field in same},
        "class": degradation_key(row.degradations),
        "settings": json.dumps(row.settings, sort_keys=True),
        "mask": None,
        **pictures,
    }


def _read_parquet(path: Path) -> Iterator[str]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        for group in file.iter_batches(columns=["id"]):
            yield from group.column("id").to_pylist()


def _write_tiles(job: ShardJob) -> Sums:
    write_shard(
        job.target,
        (_decoded(pair) for pair in job.pairs),
        codec=job.codec,
        tile_px=job.tile_px,
        advance=lambda _: None,
    )
    return {}


def _decoded(pair: ShardPair) -> PackPair:
    rgb = {p.side: decode_rgb(_content(p), p.path) for p in pair.pictures}
    mask = rgb.get("mask")
    return PackPair(
        pair.row.id, rgb["gt"], rgb["lq"], None if mask is None else np.ascontiguousarray(mask[..., 0])
    )


def decode_rgb(content: bytes, name: Path) -> Samples:
    """Decode a picture to ``(H, W, 3)`` RGB of its own depth.

    Raises:
        DamagedDataError: No picture, or neither 8 nor 16 bits.
    """
    import cv2

    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        decoded: NDArray[Any] | None = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # it declares more pixels than OpenCV takes
        decoded = None
    if decoded is None or decoded.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise DamagedDataError(f"{name}: cannot be decoded", next_step="catalog verify")
    return np.ascontiguousarray(decoded[..., ::-1])


def _read_tiles(path: Path) -> Iterator[str]:
    shard = TileShard(path)
    for entry, name in enumerate(shard.header.ids):
        shard.verify(entry)
        yield name


def _pictures(pair: ShardPair) -> Iterator[tuple[str, bytes]]:
    """Yield the pair's pictures as ``gt.png``, ``lq.png`` and perhaps ``mask.png``."""
    for picture in pair.pictures:
        yield f"{picture.side}{picture.path.suffix}", _content(picture)


def _all_pictures(pair: ShardPair) -> list[tuple[str, bytes]]:
    return list(_pictures(pair))


def _content(picture: ShardPicture) -> bytes:
    """Read a picture, compare it with what was recorded, and leave out what is private."""
    try:
        with open_no_follow(picture.path) as file:
            content = file.read()
    except OSError as error:
        raise _damaged(picture.path, f"cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != picture.sha256:
        raise _damaged(picture.path, "its content is not what was recorded")
    return content if picture.bare_sha256 is None else bare_png(content)


def _damaged(path: Path, problem: str) -> DamagedDataError:
    return DamagedDataError(
        f"{path}: {problem}",
        kept="the shards that were written so far",
        next_step="catalog verify, then export again with --restart",
    )


_WRITERS = {"webdataset": _write_tar, "parquet": _write_parquet, "crops": _write_tiles}
_READERS = {"webdataset": _read_tar, "parquet": _read_parquet, "crops": _read_tiles}
