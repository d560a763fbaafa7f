"""Where marker boards, or for want of them the picture itself, lie in every frame of a take.

Decode in the ground truth, track in the degraded rounds: noise, darkness and blur defeat a decoder long
before they defeat a comparison with a window that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignment.decode import Frame
from alignment.errors import NoCommonStructureError, NoOverlapError
from alignment.markers import BoardSighting, Grey, MarkerBoard, Window
from alignment.photometry import ToneCurve
from alignment.picture import Picture
from alignment.registration import track_window
from catalog.session_folder import BoardSpec

Array = NDArray[np.float64]
Kind = Literal["markers", "picture"]

KEY_STEP_PX = 8.0
"""Motion after which a new window of the ground truth is kept to track against."""
BOARD_WINDOW_PX = (256, 192)
"""Largest part of a board that is compared; more would cost time and gain nothing."""
_MARGIN_PX = 16
_LEAST_SIDE_PX = 48
_SEARCH_PX = 4
_WIDE_SEARCH_PX = 48
_AVERAGING_STEP_PX = 0.2  # frames at rest repeat one error
_MIN_NCC = 0.25
_MIN_INLIER_SHARE = 0.3
_MAX_SIGMA_PX = 0.5
_TOLD_SHARE = 0.65
"""Of a board's corners that tell its scale: from half of them it is extrapolated, and percents off at 2 px a module."""
_RETRY_FRAMES = 8
_LOST_AFTER = 3


@dataclass(frozen=True, eq=False)
class KeyWindow:
    """A cut-out of a ground-truth frame that shows a target."""

    crop: Grey
    origin_px: tuple[int, int]
    """Of the crop in its frame."""
    window: Window
    """The part to compare, in px of the crop."""
    anchor_px: Array
    """Where the target's reference point is in that frame, ``(2,)``."""


@dataclass(eq=False)
class TargetTrack:
    """The path of one target through a take; rows follow the take's frames."""

    anchor_px: Array
    """``(N, 2)``; NaN where the target was not found."""
    sigma_px: Array
    """``(N,)`` standard deviation of either coordinate."""
    ncc: Array
    """``(N,)`` correlation with the ground truth."""

    @classmethod
    def empty(cls, frames: int) -> TargetTrack:
        """Start a path of which nothing is known."""
        return cls(np.full((frames, 2), np.nan), np.full(frames, np.nan), np.full(frames, np.nan))

    @property
    def found(self) -> NDArray[np.bool_]:
        """``(N,)``: in which frames the target was found."""
        return np.isfinite(self.sigma_px)

    def put(self, index: int, anchor_px: Array, *, sigma_px: float, ncc: float) -> None:
        """Note one frame."""
        self.anchor_px[index] = anchor_px
        self.sigma_px[index] = sigma_px
        self.ncc[index] = ncc


@dataclass(eq=False)
class Target:
    """Something that is followed: a board, or the picture's middle."""

    kind: Kind
    keys: list[KeyWindow] = field(default_factory=list)
    px_per_mm: list[float] = field(default_factory=list)
    """Scale of every sighting of most of a board; empty for the picture."""


@dataclass(frozen=True, eq=False)
class ReferenceTracks:
    """The targets of a ground-truth round and their paths in it."""

    targets: list[Target]
    tracks: list[TargetTrack]
    tone: ToneCurve

    @property
    def kind(self) -> Kind:
        """What the positions rest on."""
        return self.targets[0].kind


def decode_boards(
    frames: Iterable[Frame], *, count: int, boards: Sequence[BoardSpec], tone: ToneCurve
) -> ReferenceTracks:
    """Find the boards in every frame of a ground-truth round and keep windows to track against.

    Args:
        frames: All frames in order.
        count: How many.
        boards: Boards in the scene; those that are never found are left out.
        tone: How the camera coded light.

    Returns:
        Tracks of the boards found; no targets where none was.
    """
    seekers = [_BoardSeeker(MarkerBoard(spec), tone) for spec in boards]
    for frame in frames:
        picture = Picture(frame.grey(), tone=tone)
        for seeker in seekers:
            seeker.look(frame.index, picture)
    seen = [s.finish(count) for s in seekers if s.sightings >= max(3, count // 10)]
    return ReferenceTracks([target for target, _ in seen], [track for _, track in seen], tone)


@dataclass(frozen=True, eq=False)
class _Comparison:
    """A ground-truth frame held against a key window of its own round."""

    index: int
    key: int
    shift_px: Array
    """Place in the frame less place in the key window's frame."""
    sigma_px: float
    ncc: float
    decoded_px: Array | None
    """Anchor as decoded; None where decoding failed or the board has hardly moved since the last one."""


class _BoardSeeker:
    """Follows one board through the ground truth by decoding near its last place.

    Every frame is also compared with a key window, as the degraded rounds will be: then what a key window's
    anchor is wrong by is the same in all rounds and drops out of their differences. Anchors are means over
    the frames compared, since decoding one frame is several times less exact than the comparison.
    """

    def __init__(self, board: MarkerBoard, tone: ToneCurve) -> None:
        self.sightings = 0
        self._target = Target("markers")
        self._tone = tone
        self._board = board
        self._near: Window | None = None
        self._missed = 0
        self._log: list[_Comparison] = []
        self._anchor = np.zeros(2)
        self._averaged = np.full(2, np.inf)

    def look(self, index: int, picture: Picture) -> None:
        sighting = self._decode(np.asarray(picture.rgb, np.uint8))
        if sighting is not None:
            self._anchor = np.array(sighting.centre_px)
            self._keep_key(np.asarray(picture.rgb, np.uint8), sighting)
        if self._target.keys:
            self._compare(index, picture, decoded=sighting is not None)

    def _decode(self, grey: Grey) -> BoardSighting | None:
        if self._near is None and self._missed % _RETRY_FRAMES:
            self._missed += 1
            return None
        sighting = self._board.detect(grey, near=self._near)
        if sighting is None and self._near is not None:  # stills lie farther apart than frames of a movie
            sighting = self._board.detect(grey)
        self._near = None if sighting is None else sighting.window.grown(_MARGIN_PX)
        self._missed = self._missed + 1 if sighting is None else 0
        return sighting

    def _keep_key(self, grey: Grey, sighting: BoardSighting) -> None:
        self.sightings += 1
        if sighting.corners >= _TOLD_SHARE * self._board.corner_count:
            self._target.px_per_mm.append(sighting.px_per_mm)
        keys = self._target.keys
        if not keys or np.linalg.norm(self._anchor - keys[-1].anchor_px) >= KEY_STEP_PX:
            window = _limited(sighting.window, BOARD_WINDOW_PX).clipped((grey.shape[1], grey.shape[0]))
            if min(window.width, window.height) >= _LEAST_SIDE_PX:
                keys.append(cut_key(grey, window, self._anchor))

    def _compare(self, index: int, picture: Picture, *, decoded: bool) -> None:
        number = len(self._target.keys) - 1
        key = self._target.keys[number]
        found = compare_window(key, picture, self._anchor, tone=self._tone, search_px=_SEARCH_PX)
        if found is None:
            return
        moved = np.linalg.norm(self._anchor - self._averaged) >= _AVERAGING_STEP_PX
        if decoded and moved:
            self._averaged = self._anchor
        self._anchor = found.anchor_px if not decoded else self._anchor
        shift = found.anchor_px - key.anchor_px
        own = self._anchor if decoded and moved else None
        self._log.append(_Comparison(index, number, shift, found.sigma_px, found.ncc, own))

    def finish(self, count: int) -> tuple[Target, TargetTrack]:
        """Average the anchors of the key windows and place every frame by them."""
        for number, key in enumerate(self._target.keys):
            own = [
                c.decoded_px - c.shift_px for c in self._log if c.key == number and c.decoded_px is not None
            ]
            anchor = np.mean(own, axis=0) if own else key.anchor_px
            self._target.keys[number] = replace(key, anchor_px=anchor)
        track = TargetTrack.empty(count)
        for c in self._log:
            anchor = self._target.keys[c.key].anchor_px + c.shift_px
            track.put(c.index, anchor, sigma_px=c.sigma_px, ncc=c.ncc)
        return self._target, track


def _limited(window: Window, largest: tuple[int, int]) -> Window:
    width, height = min(window.width, largest[0]), min(window.height, largest[1])
    x = window.x + (window.width - width) // 2
    return Window(x, window.y + (window.height - height) // 2, width, height)


def cut_key(grey: Grey, window: Window, anchor_px: Array) -> KeyWindow:
    """Keep a part of a frame, with a margin, to track against; ``anchor_px`` is the target's place in the frame."""
    around = window.grown(_MARGIN_PX).clipped((grey.shape[1], grey.shape[0]))
    inner = Window(window.x - around.x, window.y - around.y, window.width, window.height)
    return KeyWindow(around.of(grey).copy(), (around.x, around.y), inner, anchor_px)


@dataclass(frozen=True, eq=False)
class Found:
    """Where a window was found."""

    anchor_px: Array
    sigma_px: float
    ncc: float


def compare_window(
    key: KeyWindow, picture: Picture, anchor_px: Array, *, tone: ToneCurve, search_px: int
) -> Found | None:
    """Track one key window from a predicted anchor; None where nothing believable is found."""
    predicted = anchor_px - key.anchor_px + key.origin_px
    try:
        track = track_window(
            Picture(key.crop, tone=tone),
            picture,
            window=key.window,
            initial_shift_px=(float(predicted[0]), float(predicted[1])),
            search_px=search_px,
        )
    except (NoCommonStructureError, NoOverlapError):
        return None
    sigma = float(np.sqrt(np.trace(track.covariance) / 2))
    believable = track.ncc >= _MIN_NCC and track.inlier_share >= _MIN_INLIER_SHARE and sigma <= _MAX_SIGMA_PX
    if not believable:
        return None
    return Found(key.anchor_px - key.origin_px + np.array(track.shift_px), sigma, track.ncc)


def track_targets(
    frames: Iterable[Frame],
    reference: ReferenceTracks,
    *,
    count: int,
    tone: ToneCurve,
    progress: Callable[[int], None] = lambda _: None,
    far_apart: bool = False,
) -> list[TargetTrack]:
    """Follow the targets of a ground-truth round through another take.

    Args:
        frames: All frames of the take in order.
        reference: Targets with their windows.
        count: Number of frames.
        tone: How the camera coded light in this take.
        progress: Told the index of every frame done.
        far_apart: The frames are stills: a target that is not where constant speed puts it is looked for at once.

    Returns:
        One track per target of ``reference``.
    """
    followers = [
        _Follower(target, reference.tone, count, far_apart=far_apart) for target in reference.targets
    ]
    for frame in frames:
        picture = Picture(frame.grey(), tone=tone)
        for follower in followers:
            follower.look(frame.index, picture)
        progress(frame.index)
    return [f.track for f in followers]


class _Follower:
    """Follows one target: predicted at constant speed, searched for widely when lost."""

    def __init__(self, target: Target, tone: ToneCurve, count: int, *, far_apart: bool) -> None:
        self._far_apart = far_apart
        self.track = TargetTrack.empty(count)
        self._target = target
        self._tone = tone
        self._anchors = np.array([k.anchor_px for k in target.keys])
        self._last: list[tuple[int, Array]] = []
        self._missed = _LOST_AFTER

    def look(self, index: int, picture: Picture) -> None:
        if self._missed >= _LOST_AFTER:
            found = self._search(picture) if (self._missed - _LOST_AFTER) % _RETRY_FRAMES == 0 else None
        else:
            found = self._near(self._predicted(index), picture)
        if found is None and self._far_apart:
            found = self._search(picture)
        if found is None:
            self._missed += 1
            return
        self._missed = 0
        self._last = [*self._last[-1:], (index, found.anchor_px)]
        self.track.put(index, found.anchor_px, sigma_px=found.sigma_px, ncc=found.ncc)

    def _near(self, anchor_px: Array, picture: Picture) -> Found | None:
        nearest = int(np.argmin(np.linalg.norm(self._anchors - anchor_px, axis=1)))
        key = self._target.keys[nearest]
        return compare_window(key, picture, anchor_px, tone=self._tone, search_px=_SEARCH_PX)

    def _predicted(self, index: int) -> Array:
        (last_index, last) = self._last[-1]
        if len(self._last) < 2:
            return last
        (first_index, first) = self._last[0]
        return last + (last - first) * (index - last_index) / (last_index - first_index)

    def _search(self, picture: Picture) -> Found | None:
        """Try windows from all along the path, each far around its own place, and refine the best."""
        step = max(1, int(_WIDE_SEARCH_PX // KEY_STEP_PX))
        keys = [*self._target.keys[::step], self._target.keys[-1]]
        tries = [
            compare_window(k, picture, k.anchor_px, tone=self._tone, search_px=_WIDE_SEARCH_PX) for k in keys
        ]
        found = [t for t in tries if t is not None]
        if not found:
            return None
        best = max(found, key=lambda t: t.ncc)
        return self._near(best.anchor_px, picture)
