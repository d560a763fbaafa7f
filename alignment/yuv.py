"""Coded video samples to RGB, with the stream's own matrix, range and chroma siting.

The scaler of FFmpeg is not used for the common planar formats: its default converts with BT.601, and moves
chroma by 1.5 px to the right of left-sited samples, its accurate mode by 0.5 px (measured on a ramp).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalog.session_folder import ColourTags

if TYPE_CHECKING:
    from av import VideoFrame

Image = NDArray[np.uint8]
"""``(H, W, 3)`` RGB or ``(H, W)`` grey, 8 bits."""

_MATRICES = {1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc"}
_RANGES = {1: "tv", 2: "pc"}
_TRANSFERS = {
    1: "bt709",
    4: "gamma22",
    5: "gamma28",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    11: "iec61966-2-4",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    18: "arib-std-b67",
}
_PRIMARIES = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    9: "bt2020",
    11: "smpte431",
    12: "smpte432",
}
_LUMA_WEIGHTS = {
    "bt709": (0.2126, 0.0722),
    "fcc": (0.30, 0.11),
    "bt470bg": (0.299, 0.114),
    "smpte170m": (0.299, 0.114),
    "smpte240m": (0.212, 0.087),
    "bt2020nc": (0.2627, 0.0593),
}
"""Weights of red and blue in luma (ITU-T H.273, table 4)."""

_CHROMA_STEP = {"yuv420p": (2, 2), "yuv422p": (2, 1), "yuv444p": (1, 1)}
_CENTRED_CODECS = frozenset({"mjpeg", "mpeg1video"})


@dataclass(frozen=True)
class SampleLayout:
    """How the samples of a stream are to be read; all values resolved, nothing unknown."""

    matrix: str
    full_range: bool
    bits: int
    chroma_step: tuple[int, int]
    """Luma samples per chroma sample, across and down."""
    chroma_offset: tuple[float, float]
    """Position of the first chroma sample in luma samples, across and down."""


def stream_tags(stream: Any) -> ColourTags:
    """Read the colour description of an open PyAV video stream, with FFmpeg's names.

    PyAV does not pass on the chroma location; H.264, HEVC and MPEG-4 put it ``left`` unless told otherwise,
    motion JPEG in the ``center``.
    """
    context = stream.codec_context
    full = str(context.pix_fmt).startswith("yuvj")
    return ColourTags(
        matrix=_MATRICES.get(int(context.colorspace), "unknown"),
        range="pc" if full else _RANGES.get(int(context.color_range), "unknown"),
        transfer=_TRANSFERS.get(int(context.color_trc), "unknown"),
        primaries=_PRIMARIES.get(int(context.color_primaries), "unknown"),
        chroma_location="center" if context.name in _CENTRED_CODECS else "left",
    )


def to_rgb(frame: VideoFrame, tags: ColourTags) -> Image:
    """Convert a decoded frame to ``(H, W, 3)`` uint8 RGB, not yet rotated."""
    from alignment.kernels.colour import rgb_of_planes

    layout = _layout_of(frame, tags)
    if layout is None:
        return _by_scaler(frame, tags)
    luma, blue, red = (_samples(frame, index, layout) for index in range(3))
    return rgb_of_planes(
        (luma, blue, red),
        ((frame.width, frame.height), (frame.planes[1].width, frame.planes[1].height)),
        layout.chroma_step,
        layout.chroma_offset,
        _to_rgb_matrix(layout),
    )


def to_grey(frame: VideoFrame, tags: ColourTags) -> Image:
    """Return the luma of a frame as ``(H, W)`` uint8 over the full range 0..255, not yet rotated."""
    import cv2

    layout = _layout_of(frame, tags)
    if layout is None:
        return np.asarray(cv2.cvtColor(_by_scaler(frame, tags), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    luma = _samples(frame, 0, layout)[: frame.height, : frame.width]
    if layout.bits > 8:
        return np.take(_luma_table(layout), luma)
    return luma.copy() if layout.full_range else np.asarray(cv2.LUT(luma, _luma_table(layout)), np.uint8)


def _layout_of(frame: VideoFrame, tags: ColourTags) -> SampleLayout | None:
    name = frame.format.name.replace("yuvj", "yuv").removesuffix("le")
    base, _, depth = name.partition("p1")
    step = _CHROMA_STEP.get(base if depth else name) or _CHROMA_STEP.get(base + "p")
    bits = int("1" + depth) if depth else 8
    if step is None or bits not in {8, 10, 12}:
        return None
    across = 0.0 if tags.chroma_location in {"left", "topleft"} else (step[0] - 1) / 2
    down = 0.0 if tags.chroma_location == "topleft" else (step[1] - 1) / 2
    return SampleLayout(_matrix_of(tags, frame), _is_full_range(tags, frame), bits, step, (across, down))


def luma_weights(tags: ColourTags, *, height: int) -> tuple[float, float, float]:
    """Return how much of red, green and blue there is in the luma of a stream of pictures ``height`` px high."""
    red, blue = _LUMA_WEIGHTS[_matrix_name(tags, height=height, jpeg=tags.range == "pc")]
    return red, 1 - red - blue, blue


def _matrix_of(tags: ColourTags, frame: VideoFrame) -> str:
    return _matrix_name(tags, height=frame.height, jpeg=frame.format.name.startswith("yuvj"))


def _matrix_name(tags: ColourTags, *, height: int, jpeg: bool) -> str:
    """Name the matrix; for untagged streams the one that they mean in practice."""
    if tags.matrix in _LUMA_WEIGHTS:
        return tags.matrix
    return "bt709" if height >= 720 and not jpeg else "smpte170m"


def _is_full_range(tags: ColourTags, frame: VideoFrame) -> bool:
    return tags.range == "pc" or (tags.range == "unknown" and frame.format.name.startswith("yuvj"))


def _samples(frame: VideoFrame, index: int, layout: SampleLayout) -> NDArray[Any]:
    """Lay out the samples of a plane; rows are as long as they are stored, which may be longer than they are wide."""
    plane = frame.planes[index]
    dtype = np.dtype(np.uint8) if layout.bits == 8 else np.dtype("<u2")
    samples: NDArray[Any] = np.frombuffer(memoryview(plane), dtype=dtype)
    return samples.reshape(-1, plane.line_size // dtype.itemsize)


@cache
def _to_rgb_matrix(layout: SampleLayout) -> NDArray[np.float32]:
    """Return the 3x4 matrix from code values to RGB in 0..255 (ITU-T H.273, equations 30 to 40)."""
    kr, kb = _LUMA_WEIGHTS[layout.matrix]
    kg = 1 - kr - kb
    black, luma_span, chroma_span, middle = _spans(layout)
    to_rgb = np.array(
        [
            [1, 0, 2 * (1 - kr)],
            [1, -2 * kb * (1 - kb) / kg, -2 * kr * (1 - kr) / kg],
            [1, 2 * (1 - kb), 0],
        ]
    )
    scaled = 255 * to_rgb / np.array([luma_span, chroma_span, chroma_span])
    offset = -scaled @ np.array([black, middle, middle])
    return np.hstack([scaled, offset[:, None]]).astype(np.float32)


def _spans(layout: SampleLayout) -> tuple[float, float, float, float]:
    unit = 2.0 ** (layout.bits - 8)
    if layout.full_range:
        top = 2.0**layout.bits - 1
        return 0.0, top, top, 128 * unit
    return 16 * unit, 219 * unit, 224 * unit, 128 * unit


@cache
def _luma_table(layout: SampleLayout) -> NDArray[np.uint8]:
    black, span, _, _ = _spans(layout)
    codes = np.arange(2**layout.bits)
    return np.clip(np.rint((codes - black) / span * 255), 0, 255).astype(np.uint8)


def _by_scaler(frame: VideoFrame, tags: ColourTags) -> Image:
    """Convert what is not planar YUV (grey, RGB, packed) with FFmpeg's scaler in its accurate mode."""
    from av.video.reformatter import ColorRange, Interpolation

    accurate = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    number = {name: code for code, name in _MATRICES.items()}.get(tags.matrix, 5)
    full = _is_full_range(tags, frame) or frame.format.is_rgb
    rgb = frame.reformat(
        format="rgb24",
        interpolation=accurate,
        src_colorspace=number,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        threads=1,
    )
    return np.asarray(rgb.to_ndarray(), dtype=np.uint8)
