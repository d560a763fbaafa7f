"""Where the camera stood in every pair against the ground truth's: how it was turned, and how it came back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import Pinhole, angles_and_scale
from alignment.report_axes import INNER, LEFT, Box, Drawing, Figure, Panel, spread
from alignment.report_source import ReportSource, RoundSource
from alignment.report_words import number
from catalog.evidence import PairRecord

Array = NDArray[np.float64]

_LONGEST_NAME = 14
_MARGIN = 0.06
"""Room between rounds, as a share of a round's width."""
_HEIGHT = 290


@dataclass(frozen=True)
class _Kind:
    """What a figure draws of every pair."""

    key: str
    title: str
    unit: str
    names: tuple[str, str, str]
    floor: float
    """Least range of the axis."""


_TURN = _Kind("pose", "Camera angles", "degrees against the ground truth", ("pitch", "yaw", "roll"), 0.002)
_GAP = _Kind("gap", "Camera position", "mm against the ground truth", ("right", "down", "forward"), 0.01)


@dataclass(frozen=True, eq=False)
class _Track:
    """Three numbers of every pair of a round."""

    round: RoundSource
    place: Array
    """``(N,)`` in 0..1 by time."""
    values: Array
    """``(N, 3)``"""


def pose_figure(source: ReportSource) -> Figure | None:
    """Draw pitch, yaw and roll of every accepted pair in the order of recording, against the ground truth's camera."""
    focal_px = source.alignment.focal_px if source.alignment else None
    if focal_px is None:
        return None
    tracks = [_track(r, partial(_angles, pinhole=_pinhole(r, focal_px))) for r in source.degraded]
    return _figure(_TURN, [t for t in tracks if t is not None], _turn_caption)


def gap_figure(source: ReportSource) -> Figure | None:
    """Draw where the camera came back to in every accepted pair, as parallax tells; None in older sessions."""
    tracks = [_track(r, lambda p: p.camera_gap_mm) for r in source.degraded]
    return _figure(_GAP, [t for t in tracks if t is not None], _gap_caption)


def _figure(kind: _Kind, tracks: Sequence[_Track], words: Callable[[Sequence[_Track]], str]) -> Figure | None:
    if not tracks:
        return None
    caption = words(tracks)
    drawing = Drawing(kind.key, _HEIGHT, title=f"{kind.title} over the session", description=caption)
    entries = [(f"dot{k}", f"dot s{k}", name) for k, name in enumerate(kind.names)]
    y = drawing.legend(14, entries, left_px=LEFT)
    box = Box(LEFT, y + 14, INNER, _HEIGHT - y - 54)
    everything = np.concatenate([track.values.ravel() for track in tracks])
    panel = Panel(drawing, box, x=(0.0, float(len(tracks))), y=spread(everything, floor=kind.floor))
    numbers = [(k + 0.5, _shortened(track.round.name)) for k, track in enumerate(tracks)]
    panel.axes("round, pairs by time", kind.unit, y_ticks=5, x_numbers=numbers)
    for k, track in enumerate(tracks):
        if k:
            panel.rule("grid", x=float(k))
        for axis in range(len(kind.names)):
            panel.dots(k + track.place, track.values[:, axis], f"dot faint s{axis}", kind=axis)
    return Figure(kind.title, drawing.markup(), caption)


def _track(
    round_: RoundSource, told: Callable[[PairRecord], tuple[float, float, float] | None]
) -> _Track | None:
    """Collect what the pairs of a round tell, by time; None where they tell nothing."""
    known = sorted((p.lq.time_s, v) for p in round_.accepted if (v := told(p)) is not None)
    if not known:
        return None
    time = np.array([time_s for time_s, _ in known], np.float64)
    share = (time - time[0]) / max(float(time[-1] - time[0]), 1e-9)
    return _Track(round_, _MARGIN + (1 - 2 * _MARGIN) * share, np.array([v for _, v in known], np.float64))


def _pinhole(round_: RoundSource, focal_px: float) -> Pinhole:
    camera = round_.valid.camera if round_.valid else None
    return Pinhole(focal_px, *((camera.width, camera.height) if camera else (1920, 1080)))


def _angles(pair: PairRecord, *, pinhole: Pinhole) -> tuple[float, float, float] | None:
    if pair.homography is None:
        return None
    return angles_and_scale(np.asarray(pair.homography, np.float64), pinhole)[0]


def _turn_caption(tracks: Sequence[_Track]) -> str:
    if len(tracks) == 1:
        return "A slow turn within the round tells of a loose mount. A shift along the rail looks like a little yaw."
    middles = np.array([np.median(track.values, axis=0) for track in tracks])
    reach = np.ptp(middles, axis=0)
    words = ", ".join(f"{name} {number(float(r), 4)}°" for name, r in zip(_TURN.names, reach, strict=True))
    return f"Medians of the rounds differ by {words}. A slow turn from round to round tells of a loose mount."


def _gap_caption(tracks: Sequence[_Track]) -> str:
    scatter = np.sqrt(np.mean(np.concatenate([track.values for track in tracks]) ** 2, axis=0))
    words = ", ".join(f"{number(float(s), 3)} mm {n}" for n, s in zip(_GAP.names, scatter, strict=True))
    return (
        f"Root mean square: {words}. Told by what near and far things do in the pictures, not by the rail: beyond the"
        " gap between the positions of the frames it is how exactly the carriage comes back."
    )


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
