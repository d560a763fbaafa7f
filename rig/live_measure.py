"""The measurements behind the live check: travel and turn by the boards, light, sharpness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.datum import Datum
from alignment.gates import GateThresholds
from alignment.markers import MarkerBoard
from alignment.motion import TakeMotion, turn_sigma_px
from alignment.photometry import ToneCurve, grey_codes
from alignment.tracking import ReferenceTracks
from catalog.session_folder import BoardSpec, ExposureSettings

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

_LEAST_SIGMA_PX = 0.01
_FULL_SCALE = 254
_EVERY_PX = 2
_TWO_PI_ROOT = float(np.sqrt(2 * np.pi))
_DENOISE_PX = 0.5
_LEAST_TO_JUDGE = 3
"""Targets of which none can be told to be wrong, nor how exact they are."""
_OUTLIER_SIGMAS = 5.0
_MAD_TO_SIGMA = 1.4826
_KNOCKED_SIGMAS = 4.0
"""A turn that stands out by so much is none that comes with moving: somebody has touched the camera."""


@dataclass(frozen=True, eq=False)
class Rest:
    """Where the targets were seen while the carriage stood."""

    anchors_px: Array
    """``(T, 2)``, NaN where a target was not seen."""
    sigma_px: Array
    """``(T,)`` standard deviation of each mean."""
    rail_mm: float | None
    """Place by the rail; None without telemetry."""
    frame: int | None
    """A frame exposed at this rest; None where there is none."""
    turn_px: float
    """Standard deviation of what turns of the camera between two rests do to all targets alike."""


def rests_of(motion: TakeMotion) -> tuple[Rest, Rest]:
    """Return the rests before and after a take's motion."""
    source = motion.source
    still = _still_frames(motion)
    rail = source.telemetry_mm
    places = (float(rail[0]), float(rail[-1])) if len(rail) else (None, None)
    return _rest(motion, still[0], places[0]), _rest(motion, still[1], places[1])


def _still_frames(motion: TakeMotion) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """``(N,)`` twice: the frames before and after the motion; the first and the last still of a series."""
    time_s = motion.source.time_s
    if motion.fit is None:
        index = np.arange(len(time_s))
        return index == 0, index == len(time_s) - 1
    k, margin_s = motion.fit.kinematics, 2 * motion.source.frame_s
    return time_s < k.start_s - margin_s, time_s > k.stop_s + margin_s


def _rest(motion: TakeMotion, still: NDArray[np.bool_], rail_mm: float | None) -> Rest:
    anchors, sigmas = [], []
    for track in motion.tracks:
        seen = track.anchor_px[still & track.found]
        anchors.append(seen.mean(axis=0) if len(seen) else np.full(2, np.nan))
        claimed = track.sigma_px[still & track.found]
        spread = (
            float(seen.std(axis=0).max())
            if len(seen) > 1
            else float(claimed.mean())
            if len(claimed)
            else np.nan
        )
        sigmas.append(max(spread, _LEAST_SIGMA_PX) / np.sqrt(max(len(seen), 1)))
    turn_px = turn_sigma_px(motion.source.camera.width, GateThresholds())
    frames = np.flatnonzero(still)
    middle = int(frames[len(frames) // 2]) if len(frames) else None
    return Rest(np.array(anchors), np.array(sigmas), rail_mm, middle, turn_px)


@dataclass(frozen=True)
class Displacement:
    """How the camera moved between two rests, by the targets."""

    along_mm: float
    sigma_mm: float
    common_px: float
    """What near and far targets moved alike: a turn of the camera; 0 where it cannot be told apart."""
    common_sigma_px: float
    turn_is_known: bool


def mean_of(first: Displacement, second: Displacement) -> Displacement:
    """Weigh two measurements of one displacement of the carriage; turns at two places have little in common."""
    weights = np.array([first.sigma_mm, second.sigma_mm]) ** -2.0
    share = weights / weights.sum()
    return Displacement(
        along_mm=float(share @ [first.along_mm, second.along_mm]),
        sigma_mm=float(weights.sum() ** -0.5),
        common_px=float(share @ [first.common_px, second.common_px]),
        common_sigma_px=float(np.hypot(*(share * [first.common_sigma_px, second.common_sigma_px]))),
        turn_is_known=first.turn_is_known and second.turn_is_known,
    )


@dataclass(frozen=True, eq=False)
class TargetScales:
    """How the targets move through the picture."""

    directions: Array
    """``(T, 2)`` unit vectors for growing positions."""
    px_per_mm: Array
    """``(T,)``."""
    told: int
    """How many are boards that tell their scale themselves."""

    @classmethod
    def of(cls, tracks: ReferenceTracks, datum: Datum) -> TargetScales:
        """Take a board's own scale where it has one: it is free of what the rail or a turn do to its path."""
        own = [np.median(t.px_per_mm) if t.px_per_mm else np.nan for t in tracks.targets]
        fitted = np.array([s.px_per_mm for s in datum.scales])
        scales = np.where(np.isfinite(own), own, fitted)
        directions = np.array([s.direction for s in datum.scales])
        return cls(directions, np.asarray(scales, np.float64), int(np.isfinite(own).sum()))

    @property
    def tell_turns(self) -> bool:
        """Whether a turn in the very take that gave the scales shows: not where one board gave those of all others."""
        return self.told != 1

    def displacement(self, first: Rest, second: Rest) -> Displacement | None:
        """Solve for travel, and for a turn where targets at two depths tell it; None where none is in both.

        Noise makes travel of a turn and the other way round, the more the nearer the depths. So for the travel what
        is known of turns counts as one more target, unless the camera was turned by more.
        """
        along = np.sum((second.anchors_px - first.anchors_px) * self.directions, axis=1)
        sigma = np.hypot(first.sigma_px, second.sigma_px)
        seen = np.isfinite(along) & np.isfinite(sigma)
        if not seen.any():
            return None
        columns = np.column_stack([self.px_per_mm[seen], np.ones(int(seen.sum()))])
        along, sigma = along[seen], sigma[seen]
        if len(along) > _LEAST_TO_JUDGE:
            agreeing, sigma = _agreeing(columns, along, sigma)
            columns, along, sigma = columns[agreeing], along[agreeing], sigma[agreeing]
        if len(along) < 2:
            (x,), (sx,) = _solve(columns[:, :1], along, sigma)
            return Displacement(x, sx, 0.0, 0.0, turn_is_known=False)
        (x, a), (sx, sa) = _solve(columns, along, sigma)
        turn_px = max(first.turn_px, second.turn_px)
        if abs(a) <= _KNOCKED_SIGMAS * np.hypot(sa, turn_px):
            rows = np.vstack([columns, [0.0, 1.0]])
            (x, _), (sx, _) = _solve(rows, np.append(along, 0.0), np.append(sigma, turn_px))
        return Displacement(x, sx, a, sa, turn_is_known=True)


def _agreeing(columns: Array, along: Array, sigma: Array) -> tuple[NDArray[np.bool_], Array]:
    """Leave out targets that were taken for something else, and learn from the others how exact they are.

    Parts of the picture repeat their errors from frame to frame, so that their means are less exact than they look:
    where they scatter about the fit by more than they claim, all are as uncertain as that.

    Returns:
        ``(T,)`` which targets agree, and the standard deviations to be used.
    """
    agreeing = np.ones(len(along), bool)
    while agreeing.sum() > _LEAST_TO_JUDGE:
        standing_out = [_standing_out(columns, along, sigma, agreeing, i) for i in range(len(along))]
        worst = int(np.argmax(standing_out))
        if standing_out[worst] <= _OUTLIER_SIGMAS:
            break
        agreeing[worst] = False
    off = along - columns @ _solve(columns[agreeing], along[agreeing], sigma[agreeing])[0]
    freedom = max(int(agreeing.sum()) - columns.shape[1], 1)
    scatter = float(np.sqrt(np.sum((off / sigma)[agreeing] ** 2) / freedom))
    return agreeing, sigma * max(scatter, 1.0)


def _standing_out(columns: Array, along: Array, sigma: Array, agreeing: NDArray[np.bool_], i: int) -> float:
    """Return how far target ``i`` is from what the others say, in their usual deviations; 0 if left out."""
    if not agreeing[i]:
        return 0.0
    others = agreeing & (np.arange(len(along)) != i)
    off = np.abs(along - columns @ _solve(columns[others], along[others], sigma[others])[0])
    freedom = others.sum() / max(others.sum() - columns.shape[1], 1)
    usual = _MAD_TO_SIGMA * float(np.median(off[others])) * float(np.sqrt(freedom))
    return float(off[i] / max(sigma[i], usual))


def _solve(design: Array, values: Array, sigma: Array) -> tuple[Array, Array]:
    """Weighted least squares: the solution and its standard deviations."""
    weighted = design / sigma[:, None]
    covariance = np.linalg.pinv(weighted.T @ weighted)
    solution = covariance @ weighted.T @ (values / sigma)
    return solution, np.sqrt(np.diag(covariance))


@dataclass(frozen=True, eq=False)
class RestPicture:
    """The picture before the carriage moves, as far as it is compared."""

    light: NDArray[np.float32]
    """Linear light of every other pixel, 0..1."""
    clipped_percent: float
    sharpness: float
    """Variance of the Laplacian of the grey picture, codes squared."""
    edge_px: float | None
    """Standard deviation of the edges of the sharpest board; None where no board is seen."""


def read_rest(rgb: Image, tone: ToneCurve, boards: Sequence[BoardSpec]) -> RestPicture:
    """Measure light, clipping and sharpness of a picture ``(H, W, 3)`` uint8 RGB."""
    grey = grey_codes(rgb)
    return RestPicture(
        light=tone.light_of(np.ascontiguousarray(rgb[::_EVERY_PX, ::_EVERY_PX])),
        clipped_percent=100 * float(np.mean(np.any(rgb >= _FULL_SCALE, axis=2))),
        sharpness=float(cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 1.0), cv2.CV_32F).var()),
        edge_px=_sharpest_edge_px(np.asarray(np.rint(grey), np.uint8), boards),
    )


def _sharpest_edge_px(grey: Image, boards: Sequence[BoardSpec]) -> float | None:
    sightings = [MarkerBoard(board).detect(grey) for board in boards]
    edges = [_edge_px(s.window.of(grey)) for s in sightings if s is not None]
    return min(edges, default=None)


def _edge_px(board: Image) -> float:
    """Estimate the spread of a board's edges from its steepest slope against its contrast."""
    smooth = cv2.GaussianBlur(board.astype(np.float32), (0, 0), _DENOISE_PX)
    slope = np.hypot(cv2.Scharr(smooth, cv2.CV_32F, 1, 0), cv2.Scharr(smooth, cv2.CV_32F, 0, 1)) / 32
    contrast = float(np.percentile(smooth, 95) - np.percentile(smooth, 5))
    spread = contrast / (_TWO_PI_ROOT * max(float(np.percentile(slope, 99)), 1e-6))
    return float(np.sqrt(max(spread**2 - _DENOISE_PX**2, 0.0)))


def exposure_ev(
    gt: RestPicture, lq: RestPicture, *, gt_settings: ExposureSettings, lq_settings: ExposureSettings
) -> tuple[float, float] | None:
    """Tell by how much a take's light differs from what its settings say, in stops.

    Returns:
        The difference, and the stops between the two settings; None where settings are not known.
    """
    ratio = _expected_ratio(gt_settings, lq_settings)
    if ratio is None:
        return None
    predicted = float(np.minimum(gt.light * np.float32(ratio), 1.0).mean())
    measured = float(lq.light.mean())
    return float(np.log2(max(measured, 1e-6) / max(predicted, 1e-6))), float(np.log2(ratio))


def _expected_ratio(gt: ExposureSettings, lq: ExposureSettings) -> float | None:
    def exposure(settings: ExposureSettings) -> float | None:
        if settings.iso is None or settings.exposure_s is None or settings.f_number is None:
            return None
        return settings.iso * settings.exposure_s / settings.f_number**2

    first, second = exposure(gt), exposure(lq)
    return None if not first or not second else second / first
