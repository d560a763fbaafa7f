"""Frames of movies and stills, one at a time: exact times, honest colours, bounded memory.

Per-frame times are the container's, as integers with their time base, counted from the first displayed
frame: edit lists, negative first times and variable rates are facts of camera files, and the nominal rate
is not one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from alignment.errors import DecodeError
from alignment.raw import RAW_SUFFIXES, develop
from alignment.yuv import Image, stream_tags, to_grey, to_rgb
from catalog.session_folder import CameraTake, ColourTags

CACHED_FRAMES = 24
"""Frames that a reader keeps for random access, unless told otherwise."""
STILL_SUFFIXES = RAW_SUFFIXES | {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp"}
"""File name endings, lower case, that are read as stills."""

_STEP_FORWARD = 48  # decoding on is cheaper than seeking within about two groups of pictures


@dataclass(frozen=True)
class StreamInfo:
    """What a movie says about its picture stream."""

    width: int
    """Width as displayed, rotation applied, px."""
    height: int
    frame_count: int
    """Frames that will be displayed, counted packet by packet."""
    time_base: Fraction
    """Seconds per tick."""
    pts: tuple[int, ...] = field(repr=False)
    """Display time of every frame in ticks, the first one 0."""
    average_rate_hz: float
    colour: ColourTags
    container: str
    codec: str

    @property
    def motion_coded(self) -> bool:
        """Frames are told, with loss, by what moved since others: as H.264 does and Motion JPEG does not."""
        import av

        codec = av.Codec(self.codec, "r")
        return codec.lossy and not codec.intra_only


@dataclass(frozen=True)
class Frame:
    """One decoded frame; colours are converted when asked for."""

    index: int
    """Counts displayed frames from 0."""
    pts: int
    """Ticks since the first displayed frame; the index for stills."""
    _rgb: Callable[[], Image] = field(repr=False)
    _grey: Callable[[], Image] = field(repr=False)

    def rgb(self) -> Image:
        """Return the picture as ``(H, W, 3)`` uint8 RGB, upright."""
        return self._rgb()

    def grey(self) -> Image:
        """Return the luma as ``(H, W)`` uint8 over 0..255, upright: a third of the cost of `rgb`."""
        return self._grey()


class FrameReader(Protocol):
    """Frames by number, of a movie or of a folder of stills."""

    @property
    def frame_count(self) -> int:
        """Number of frames."""

    @property
    def motion_coded(self) -> bool:
        """Whether what moves is drawn a little beside where it was: see `StreamInfo.motion_coded`."""

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Yield frames ``start`` to ``stop`` in order; raises `DecodeError` where one cannot be decoded."""

    def read(self, index: int) -> Frame:
        """Return one frame; cheap for indices near the last one. Raises `DecodeError`, `IndexError`."""

    def close(self) -> None:
        """Release files and decoders."""

    def __enter__(self) -> Self:
        """Return the reader."""

    def __exit__(self, *exc: object) -> None:
        """Close the reader."""


def probe(path: Path) -> StreamInfo:
    """Describe the picture stream of a movie without decoding it.

    Raises:
        DecodeError: The file is no movie, has no picture stream, or ends before its own frame table does.
    """
    with _MovieFile(path, None) as movie:
        return movie.info


def open_movie(
    paths: Sequence[Path], *, colour: ColourTags | None = None, cached_frames: int = CACHED_FRAMES
) -> FrameReader:
    """Open a movie, given as one file or as the parts a camera split it into.

    Args:
        paths: The files in order.
        colour: What is known about the stream's colours; members left ``unknown`` are read from the stream.
        cached_frames: So many of the frames read last are kept, as decoded.

    Raises:
        DecodeError: As `probe`.
    """
    parts: list[_MovieFile] = []
    for path in paths:
        for part in parts[-1:]:
            part.close()  # a decoder holds frames in every thread; a grabber's movie has a part for each second
        parts.append(_MovieFile(path, colour))
    counts, sources = [p.info.frame_count for p in parts], [p.frames_from for p in parts]
    return _CachedReader(counts, sources, parts, cached_frames=cached_frames)


def open_stills(paths: Sequence[Path]) -> FrameReader:
    """Open a series of still pictures; EXIF orientation is applied."""
    return _CachedReader([len(paths)], [lambda start: _still_frames(paths, start)], [])


def open_frames(take_folder: Path, camera: CameraTake, *, cached_frames: int = CACHED_FRAMES) -> FrameReader:
    """Open what one camera delivered in one take; arguments and errors as `open_movie`."""
    paths = [take_folder / name for name in camera.files]
    if camera.kind == "stills":
        return open_stills(paths)
    return open_movie(paths, colour=camera.colour, cached_frames=cached_frames)


def list_stills(folder: Path) -> list[Path]:
    """List the still pictures of a folder in the order of their names."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in STILL_SUFFIXES and p.is_file())


class _MovieFile:
    """One movie file: its frame table, and frames from any place on."""

    def __init__(self, path: Path, colour: ColourTags | None) -> None:
        self._path = path
        self._open()
        try:
            self.info = self._describe(colour)
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        """Open the container; a file that was closed is opened again where it is read, its table is kept."""
        import av

        try:
            self._container = av.open(str(self._path))
        except (av.error.FFmpegError, OSError) as error:
            raise DecodeError(
                f"{self._path.name}: cannot be read as a movie, frame 0 was not reached ({_reason(error)})",
                next_step="copy the file from the camera again, or take the round again",
            ) from error
        try:
            self._stream = self._picture_stream()
        except BaseException:
            self._container.close()
            raise
        self._is_open = True

    def _picture_stream(self) -> Any:
        streams = [
            s for s in self._container.streams.video if not int(s.disposition) & _attached_picture_flag()
        ]
        if not streams:
            raise DecodeError(f"{self._path.name}: has no picture stream, frame 0 was not reached")
        best = max(streams, key=lambda s: s.codec_context.width * s.codec_context.height)
        best.thread_type = "AUTO"
        return best

    def _describe(self, colour: ColourTags | None) -> StreamInfo:
        stream = self._stream
        ticks = self._frame_table()
        first = next(self._decoded(), None)
        if first is None:
            raise DecodeError(f"{self._path.name}: no frame can be decoded, frame 0 was not reached")
        # Containers may list frames before the first displayed one (open groups of pictures, edit lists).
        self._ticks = [t for t in ticks if t >= first.pts]
        tags = _merge(colour, stream_tags(stream), -int(first.rotation) % 360)
        turned = tags.rotation_deg % 180 != 0
        width, height = (first.height, first.width) if turned else (first.width, first.height)
        return StreamInfo(
            width=width,
            height=height,
            frame_count=len(self._ticks),
            time_base=Fraction(stream.time_base),
            pts=tuple(t - self._ticks[0] for t in self._ticks),
            average_rate_hz=_average_rate(self._ticks, Fraction(stream.time_base)),
            colour=tags,
            container=self._container.format.name,
            codec=stream.codec_context.name,
        )

    def _frame_table(self) -> list[int]:
        """List the display times of all frames, from the packets alone.

        Raises:
            DecodeError: The file holds fewer packets than its header announces.
        """
        packets = 0
        ticks = []
        for packet in self._packets():
            packets += 1
            if not packet.is_discard and packet.pts is not None:
                ticks.append(packet.pts)
        if packets < self._stream.frames:
            raise _truncated(self._path, packets, self._stream.frames)
        return sorted(ticks)

    def _packets(self) -> Iterator[Any]:
        import av

        self._seek(None)
        try:
            for packet in self._container.demux(self._stream):
                if packet.size and not packet.is_corrupt:
                    yield packet
        except av.error.FFmpegError as error:
            raise DecodeError(f"{self._path.name}: cannot be read to its end ({_reason(error)})") from error

    def _seek(self, tick: int | None) -> None:
        start = self._stream.start_time or 0
        self._container.seek(min(start, 0) if tick is None else tick, stream=self._stream, backward=True)

    def _decoded(self) -> Iterator[Any]:
        """Yield decoded frames from the last seek on."""
        self._seek(None)
        yield from self._container.decode(self._stream)

    def frames_from(self, start: int) -> Iterator[Frame]:
        """Yield frames from number ``start`` of this file on, in display order.

        Raises:
            DecodeError: A frame of the table is missing or damaged; the message names the last good one.
        """
        import av

        if not self._is_open:
            self._open()
        expected = start
        self._seek(self._ticks[start] if start else None)
        try:
            for raw in self._container.decode(self._stream):
                if raw.pts is None or raw.pts < self._ticks[expected]:
                    continue
                if raw.pts > self._ticks[expected] or raw.is_corrupt:
                    break
                yield self._frame(expected, raw)
                expected += 1
                if expected == len(self._ticks):
                    return
        except av.error.FFmpegError as error:
            raise _truncated(self._path, expected, len(self._ticks), _reason(error)) from error
        raise _truncated(self._path, expected, len(self._ticks))

    def _frame(self, index: int, raw: Any) -> Frame:
        tags = self.info.colour
        turns = -tags.rotation_deg // 90
        return Frame(
            index,
            self.info.pts[index],
            lambda: _turned(to_rgb(raw, tags), turns),
            lambda: _turned(to_grey(raw, tags), turns),
        )

    def close(self) -> None:
        self._is_open = False
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _CachedReader:
    """Several runs of frames as one, with random access through a small cache."""

    def __init__(
        self,
        counts: Sequence[int],
        sources: Sequence[Callable[[int], Iterator[Frame]]],
        parts: Sequence[_MovieFile],
        *,
        cached_frames: int = CACHED_FRAMES,
    ) -> None:
        self._cached_frames = cached_frames
        self._starts = [sum(counts[:i]) for i in range(len(counts))]
        self.frame_count = sum(counts)
        self.motion_coded = any(part.info.motion_coded for part in parts)
        self._sources = sources
        self._parts = parts
        self._cache: OrderedDict[int, Frame] = OrderedDict()
        self._stream: Iterator[Frame] = iter(())
        self._next: int | None = None

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        last = self.frame_count if stop is None else min(stop, self.frame_count)
        for index in range(start, last):
            yield self.read(index)

    def read(self, index: int) -> Frame:
        if not 0 <= index < self.frame_count:
            raise IndexError(f"frame {index} of {self.frame_count}")
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        if self._next is None or not 0 <= index - self._next <= _STEP_FORWARD:
            self._stream = self._from(index)
        frame = self._advance()
        while frame.index < index:
            frame = self._advance()
        return frame

    def _from(self, index: int) -> Iterator[Frame]:
        part = bisect_right(self._starts, index) - 1
        for number in range(part, len(self._sources)):
            self._close_all_parts_but(number)
            offset = self._starts[number]
            for frame in self._sources[number](max(0, index - offset)):
                yield Frame(frame.index + offset, frame.pts, frame._rgb, frame._grey)  # noqa: SLF001

    def _close_all_parts_but(self, number: int) -> None:
        for other, part in enumerate(self._parts):
            if other != number:
                part.close()

    def _advance(self) -> Frame:
        self._next = None  # stays so if the next line raises: a failed stream is not read on
        frame = next(self._stream)
        self._cache[frame.index] = frame
        self._next = frame.index + 1
        while len(self._cache) > self._cached_frames:
            self._cache.popitem(last=False)
        return frame

    def close(self) -> None:
        self._cache.clear()
        self._stream = iter(())
        for part in self._parts:
            part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_still(path: Path) -> Image:
    """Read a still picture as ``(H, W, 3)`` uint8 RGB, EXIF orientation applied; raw files are developed.

    Raises:
        DecodeError: The file is missing, no picture, or ends early.
        MissingRawError: It is a raw file and the extra `raw` is not installed.
    """
    if path.suffix.lower() in RAW_SUFFIXES:
        return develop(path)
    from PIL import Image as PillowImage
    from PIL import ImageOps

    try:
        with PillowImage.open(path) as still:
            upright = ImageOps.exif_transpose(still)
            return np.asarray(upright.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise DecodeError(
            f"{path.name}: cannot be read as a picture ({error})", next_step="copy the file again"
        ) from error


def _still_frames(paths: Sequence[Path], start: int) -> Iterator[Frame]:
    for index in range(start, len(paths)):
        yield _still_frame(paths[index], index)


def _still_frame(path: Path, index: int) -> Frame:
    import cv2

    def grey() -> Image:
        return np.asarray(cv2.cvtColor(read_still(path), cv2.COLOR_RGB2GRAY), dtype=np.uint8)

    return Frame(index, index, lambda: read_still(path), grey)


def _attached_picture_flag() -> int:
    from av.stream import Disposition

    return int(Disposition.attached_pic)


def _merge(given: ColourTags | None, own: ColourTags, rotation_deg: int) -> ColourTags:
    found = own.model_dump() | {"rotation_deg": rotation_deg}
    known = {} if given is None else given.model_dump(exclude={"rotation_deg"})
    return ColourTags(**(found | {k: v for k, v in known.items() if v != "unknown"}))


def _average_rate(ticks: Sequence[int], time_base: Fraction) -> float:
    if len(ticks) < 2:
        return 0.0
    return float((len(ticks) - 1) / ((ticks[-1] - ticks[0]) * time_base))


def _turned(image: Image, quarter_turns: int) -> Image:
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns % 4 else image


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", "") or error)


def _truncated(path: Path, reached: int, expected: int, reason: str = "the file ends early") -> DecodeError:
    return DecodeError(
        f"{path.name}: only {reached} of {expected} frames can be decoded ({reason})",
        next_step="copy the file from the camera again, or take the round again",
    )
