"""Movie files of the simulated camera: H.264 in a MOV, 4:2:0, tagged and coded as BT.709, limited range."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av import VideoFrame

Codes = NDArray[np.uint8]

_RED, _BLUE = 0.2126, 0.0722
_BT709_TAG, _LIMITED_RANGE_TAG = 1, 1  # ITU-T H.273
_KEYFRAME_EVERY = 30


def _matrix() -> NDArray[np.float64]:
    """BT.709 R'G'B' codes (full range) to Y'CbCr codes (limited range), (3, 4)."""
    luma = np.array([_RED, 1 - _RED - _BLUE, _BLUE])
    blue = (np.array([0, 0, 1.0]) - luma) / (2 * (1 - _BLUE))
    red = (np.array([1.0, 0, 0]) - luma) / (2 * (1 - _RED))
    rows = np.stack([219 * luma, 224 * blue, 224 * red]) / 255
    return np.column_stack([rows, [16, 128, 128]])


_RGB_TO_YCBCR = _matrix()


def to_yuv420(codes: Codes) -> Codes:
    """Convert RGB codes (H, W, 3) to planar 4:2:0 (H * 3 / 2, W): Y', then Cb, then Cr.

    Chroma samples lie on even columns and between two rows ("left", H.264's default); each is the mean of the
    pixels around it, so that colour stays where its luma is.
    """
    import cv2

    luma, *chroma = cv2.split(cv2.transform(codes, _RGB_TO_YCBCR))
    across, down = np.array([0.25, 0.5, 0.25]), np.array([0.5, 0.5])
    halved = [cv2.sepFilter2D(plane, -1, across, down, anchor=(1, 0))[::2, ::2] for plane in chroma]
    planes = np.concatenate([luma.ravel(), *(plane.ravel() for plane in halved)])
    return np.asarray(planes.reshape(-1, codes.shape[1]), np.uint8)


class MovieEncoder:
    """Writes frames to a MOV file at a constant rate; a context manager that closes the file.

    Args:
        path: File to write.
        width: Picture width, px, even.
        height: Picture height, px, even.
        rate_hz: Frame rate.
        crf: x264's constant rate factor.
    """

    def __init__(self, path: Path, *, width: int, height: int, rate_hz: float, crf: int) -> None:
        import av

        self._rate = Fraction(rate_hz).limit_denominator(1001)
        self._count = 0
        self._file = av.open(str(path), "w", format="mov")
        options = {"preset": "ultrafast", "crf": str(crf), "g": str(_KEYFRAME_EVERY)}
        self._stream = self._file.add_stream("libx264", rate=self._rate, options=options)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.thread_count = 1
        context.colorspace = context.color_primaries = context.color_trc = _BT709_TAG
        context.color_range = _LIMITED_RANGE_TAG

    def write(self, planes: Codes) -> None:
        """Append one frame in the layout of `to_yuv420`."""
        import av

        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = self._count, 1 / self._rate
        frame.colorspace, frame.color_range = _BT709_TAG, _LIMITED_RANGE_TAG
        self._count += 1
        self._send(frame)

    def _send(self, frame: VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._file.mux(packet)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._send(None)
        finally:
            self._file.close()
