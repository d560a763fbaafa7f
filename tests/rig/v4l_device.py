"""A V4L2 camera as OpenCV shows one, for machines without: it offers what it offers and says nothing about the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

STAMP_AGE_S = 0.004
"""The kernel stamps a frame this long before it is handed over."""


@dataclass
class V4lDevice:
    """Plays `cv2.VideoCapture` on one device; call it to open it."""

    picture: Callable[[int], bytes]
    size: tuple[int, int]
    rate_hz: float = 100.0
    fourcc: str = "MJPG"
    exposures: tuple[float, ...] = ()
    """Absolute exposures it has, 100 µs each; empty where it has no such control."""
    frames: int | None = None
    """How many it gives before the link breaks; None for no end."""
    asked: dict[int, float] = field(default_factory=dict)
    stamps_s: list[float] = field(default_factory=list)
    silent: threading.Event = field(default_factory=threading.Event)
    """Set: no frame comes any more."""
    waits: threading.Event = field(default_factory=threading.Event)
    """Set by a device that is silent and was asked for a frame."""
    released: bool = False

    def __call__(self, path: str, backend: int, parameters: Sequence[float]) -> V4lDevice:
        assert backend == cv2.CAP_V4L2
        self.asked = dict(zip(parameters[::2], parameters[1::2], strict=True))  # type: ignore[arg-type]
        self._numbers = count()
        self._exposure = self.exposures[0] if self.exposures else 0.0
        self.released = False
        return self

    def isOpened(self) -> bool:  # noqa: N802  - OpenCV's name
        return True

    def getBackendName(self) -> str:  # noqa: N802
        return "V4L2"

    def get(self, what: int) -> float:
        return {
            cv2.CAP_PROP_FRAME_WIDTH: float(self.size[0]),
            cv2.CAP_PROP_FRAME_HEIGHT: float(self.size[1]),
            cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter.fourcc(*self.fourcc)),
            cv2.CAP_PROP_EXPOSURE: self._exposure,
            cv2.CAP_PROP_POS_MSEC: 1000 * self.stamps_s[-1] if self.stamps_s else 0.0,
        }.get(what, 0.0)

    def set(self, what: int, value: float) -> bool:
        if what == cv2.CAP_PROP_EXPOSURE and self.exposures:
            self._exposure = min(self.exposures, key=lambda e: abs(e - value))
        return bool(self.exposures)

    def grab(self) -> bool:
        if self.frames is not None and len(self.stamps_s) >= self.frames:
            return False
        while self.silent.is_set():
            self.waits.set()
            time.sleep(1 / self.rate_hz)
        time.sleep(1 / self.rate_hz)  # as a driver blocks until the next frame
        self.stamps_s.append(time.monotonic() - STAMP_AGE_S)
        return True

    def retrieve(self) -> tuple[bool, NDArray[np.uint8] | Any]:
        return True, np.frombuffer(self.picture(next(self._numbers)), np.uint8)

    def release(self) -> None:
        self.released = True
