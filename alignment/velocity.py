"""How a take moved: rest, ramp, uniform motion, ramp, rest; and where every frame of it was.

The carriage follows a trapezoid or an S-curve, so all frames together tell the change times to milliseconds
and the speed to a few hundredths of a percent, although one frame tells its place to 0.02 px only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignment.errors import NoMotionError

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
ProfileName = Literal["trapezoid", "s_curve"]

FIT_SCALE_PX = 0.3
"""Residual at which the loss turns from square to linear."""
_BIC_MARGIN = 10.0  # evidence wanted before a trapezoid is given up
_TUKEY = 4.685  # 95 % efficiency under a normal distribution
_MAD_TO_SIGMA = 1.4826
_MIN_TRAVEL_SIGMAS = 20.0
_MIN_STATIC_FRAMES = 6


@dataclass(frozen=True, eq=False)
class Track:
    """Measured positions of a take's frames; frames without a measurement are absent."""

    frame_index: NDArray[np.int64]
    time_s: Array
    """Mid-exposure on the take's own time line."""
    position_mm: Array
    sigma_mm: Array
    """Standard deviation of each position as its measurement claims."""


@dataclass(frozen=True)
class Kinematics:
    """Seven numbers of a round's motion; `position` turns time into place."""

    profile: ProfileName
    start_s: float
    """The carriage leaves rest."""
    ramp_s: float
    """Duration of either ramp."""
    cruise_s: float
    """Duration of uniform motion."""
    velocity_mm_s: float
    """Negative for motion towards smaller positions."""
    rest_mm: float
    """Position before the motion."""

    def position(self, time_s: Array) -> Array:
        """Return the position at times ``(N,)``, mm."""
        since = np.asarray(time_s, float) - self.start_s
        ramp = max(self.ramp_s, 1e-6)
        up = np.clip(since / ramp, 0, 1)
        cruise = np.clip(since - ramp, 0, self.cruise_s)
        down = np.clip((since - ramp - self.cruise_s) / ramp, 0, 1)
        run = ramp * (self._eased(up) + down - self._eased(down)) + cruise
        return np.asarray(self.rest_mm + self.velocity_mm_s * run, np.float64)

    def _eased(self, part: Array) -> Array:
        """Integrate the share of the full speed over a ramp."""
        if self.profile == "trapezoid":
            return part**2 / 2
        return part**3 - part**4 / 2  # of 3 τ² - 2 τ³, whose acceleration begins and ends at zero

    @property
    def cruise_start_s(self) -> float:
        """End of the ramp up."""
        return self.start_s + self.ramp_s

    @property
    def cruise_end_s(self) -> float:
        """Beginning of the ramp down."""
        return self.cruise_start_s + self.cruise_s

    @property
    def stop_s(self) -> float:
        """The carriage is at rest again."""
        return self.cruise_end_s + self.ramp_s

    @property
    def acceleration_mm_s2(self) -> float:
        """Mean acceleration over a ramp, positive."""
        return abs(self.velocity_mm_s) / max(self.ramp_s, 1e-6)


@dataclass(frozen=True, eq=False)
class MotionFit:
    """A round's motion as fitted to its track."""

    kinematics: Kinematics
    velocity_sigma_mm_s: float
    change_sigma_s: tuple[float, float]
    """Standard deviations of the beginning and the end of uniform motion."""
    residual_mm: Array
    """Measured minus fitted, per frame of the track."""

    def cruise(self, frame_s: float) -> tuple[float, float]:
        """Return beginning and end of uniform motion with the guard taken off, s.

        Args:
            frame_s: Time between frames.
        """
        first, last = (max(2 * frame_s, 3 * sigma) for sigma in self.change_sigma_s)
        return self.kinematics.cruise_start_s + first, self.kinematics.cruise_end_s - last


def fit_kinematics(track: Track, *, fit_scale_mm: float, start: Kinematics | None = None) -> MotionFit:
    """Fit the phases of a motion to a track, robustly, and choose between trapezoid and S-curve.

    Args:
        track: At least ten measured frames.
        fit_scale_mm: Residual at which the loss turns linear, `FIT_SCALE_PX` in mm.
        start: Starting values, e.g. fitted to telemetry; guessed from the track where None.

    Raises:
        NoMotionError: Too few frames, or no travel that stands out of the noise.
    """
    _require_travel(track)
    starts = _starts(track, start)
    fits = {
        name: _best_fit(track, [replace(s, profile=name) for s in starts], fit_scale_mm) for name in _PROFILES
    }
    trapezoid, s_curve = fits["trapezoid"], fits["s_curve"]
    gain = len(track.time_s) * np.log(max(trapezoid[1], 1e-18) / max(s_curve[1], 1e-18))
    return (s_curve if gain > _BIC_MARGIN else trapezoid)[
        0
    ]  # equal in parameters, so BIC compares the losses


_PROFILES: tuple[ProfileName, ...] = ("trapezoid", "s_curve")


def _require_travel(track: Track) -> None:
    if len(track.time_s) < 10:
        raise NoMotionError(f"only {len(track.time_s)} frames have a position; a motion needs at least 10")
    travel = float(np.ptp(track.position_mm))
    noise = float(np.median(track.sigma_mm))
    if travel < max(_MIN_TRAVEL_SIGMAS * noise, 1e-9):
        raise NoMotionError(
            f"the picture moves by {travel:.2f} mm in all, which noise of {noise:.2f} mm hides",
            next_step="check that the rail moved while the camera recorded",
        )


def _starts(track: Track, given: Kinematics | None) -> list[Kinematics]:
    guess = guess_kinematics(track)
    ramps = (0.5 * guess.ramp_s, guess.ramp_s, 2.0 * guess.ramp_s)
    middle = guess.start_s + guess.ramp_s + guess.cruise_s / 2
    whole = guess.cruise_s + guess.ramp_s
    guesses = [
        replace(guess, ramp_s=r, cruise_s=max(whole - r, 0.0), start_s=middle - (whole + r) / 2)
        for r in ramps
    ]
    return guesses if given is None else [given, *guesses]


def guess_kinematics(track: Track) -> Kinematics:
    """Guess the phases from where the smoothed speed crosses fractions of its plateau."""
    time, speed = _smoothed_speed(track)
    sign = np.sign(track.position_mm[-1] - track.position_mm[0]) or 1.0
    speed = sign * speed
    plateau = float(np.median(speed[speed > 0.5 * np.percentile(speed, 95)]))
    fast = np.flatnonzero(speed > 0.5 * plateau)
    rise, fall = time[fast[0]], time[fast[-1]]
    ramp = max(_ramp_time(time, speed, plateau, fast[0]), float(np.median(np.diff(time))))
    return Kinematics(
        "trapezoid",
        start_s=float(rise - ramp / 2),
        ramp_s=float(ramp),
        cruise_s=float(max(fall - rise - ramp, 0.0)),
        velocity_mm_s=float(sign * plateau),
        rest_mm=float(track.position_mm[0]),
    )


def _smoothed_speed(track: Track) -> tuple[Array, Array]:
    span = 5 if len(track.time_s) < 60 else 9
    kernel = np.ones(span) / span
    position = np.convolve(track.position_mm, kernel, mode="valid")
    time = np.convolve(track.time_s, kernel, mode="valid")
    return time, np.asarray(np.gradient(position, time), np.float64)


def _ramp_time(time: Array, speed: Array, plateau: float, rise: int) -> float:
    """Stretch the time between a fifth and four fifths of the plateau to the whole ramp."""
    below = np.flatnonzero(speed[: rise + 1] < 0.2 * plateau)
    above = np.flatnonzero(speed[rise:] > 0.8 * plateau)
    first = time[below[-1]] if below.size else time[0]
    last = time[rise + above[0]] if above.size else time[rise]
    return float((last - first) / 0.6)


def _best_fit(track: Track, starts: Sequence[Kinematics], scale_mm: float) -> tuple[MotionFit, float]:
    fits = [_fit_from(track, start, scale_mm) for start in starts]
    return min(fits, key=lambda fit: fit[1])


def _fit_from(track: Track, start: Kinematics, scale_mm: float) -> tuple[MotionFit, float]:
    from scipy.optimize import least_squares

    first, last = float(track.time_s[0]), float(track.time_s[-1])
    span = last - first
    x0 = np.array([start.start_s, start.ramp_s, start.cruise_s, start.velocity_mm_s, start.rest_mm])
    low = np.array([first - span, 1e-3, 0.0, -np.inf, -np.inf])
    high = np.array([last, span, 2 * span, np.inf, np.inf])

    def residual(p: Array) -> Array:
        return _kinematics(start.profile, p).position(track.time_s) - track.position_mm

    result = least_squares(
        residual,
        np.clip(x0, low + 1e-6, high - 1e-6),
        bounds=(low, high),
        loss="soft_l1",
        f_scale=scale_mm,
        x_scale=np.array([0.1, 0.1, 0.1, abs(start.velocity_mm_s) + 1e-6, 1.0]),
        max_nfev=200,
    )
    rest = -residual(result.x)
    covariance = _covariance(
        np.asarray(result.jac, np.float64),
        rest,
        ramp_sigma_s=max(float(result.x[1]), float(np.median(np.diff(track.time_s)))),
    )
    return _fitted(_kinematics(start.profile, result.x), rest, covariance), float(result.cost) / len(rest)


def _fitted(kinematics: Kinematics, residual_mm: Array, covariance: Array) -> MotionFit:
    ends = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]], float)
    begin_s, end_s = np.sqrt(np.diag(ends @ covariance @ ends.T))
    return MotionFit(
        kinematics,
        velocity_sigma_mm_s=float(np.sqrt(covariance[3, 3])),
        change_sigma_s=(float(begin_s), float(end_s)),
        residual_mm=residual_mm,
    )


def _kinematics(profile: ProfileName, p: Array) -> Kinematics:
    start, ramp, cruise, velocity, rest = (float(v) for v in p)
    return Kinematics(profile, start, ramp, cruise, velocity, rest)


def _covariance(jacobian: Array, residual: Array, *, ramp_sigma_s: float) -> Array:
    """Return the covariance of start, ramp, cruise, speed and rest.

    A ramp that falls between two frames is all the same to them; what is known of it then is that it does.
    """
    variance = max((_MAD_TO_SIGMA * float(np.median(np.abs(residual)))) ** 2, 1e-18)
    information = jacobian.T @ jacobian / variance
    information[1, 1] += ramp_sigma_s**-2
    return np.asarray(np.linalg.pinv(information, rcond=1e-15, hermitian=True), np.float64)


@dataclass(frozen=True, eq=False)
class CruisePositions:
    """Best position of every frame exposed in uniform motion."""

    frame_index: NDArray[np.int64]
    time_s: Array
    position_mm: Array
    sigma_mm: Array
    sigma_measurement_mm: float
    sigma_jitter_mm: float
    residual_sd_mm: float
    """Standard deviation of measured positions about the line."""


def cruise_positions(
    track: Track, fit: MotionFit, *, frame_index: NDArray[np.int64], time_s: Array, frame_s: float
) -> CruisePositions:
    """Place every frame of the uniform motion: a robust line, and as much of each frame's own deviation as is real.

    The residual variance is measurement noise plus jitter of the carriage. Noise is known from the frames at
    rest; what is more than that is jitter and must not be smoothed away.

    Args:
        track: The measured frames.
        fit: Their motion.
        frame_index: All frames of the take, ``(N,)``, measured or not.
        time_s: Their mid-exposure times.
        frame_s: Time between frames.

    Raises:
        NoMotionError: Fewer than five measured frames lie in the uniform motion.
    """
    begin, end = fit.cruise(frame_s)
    inside = (track.time_s >= begin) & (track.time_s <= end)
    if inside.sum() < 5:
        raise NoMotionError(
            f"only {int(inside.sum())} frames were exposed in uniform motion",
            next_step="lengthen the uniform part of the sweep or raise the frame rate",
        )
    wanted = (time_s >= begin) & (time_s <= end)
    return _placed(
        track,
        _RobustLine.through(track.time_s[inside], track.position_mm[inside]),
        measurement_mm=_measurement_sigma(track, fit),
        frame_index=frame_index[wanted],
        time_s=time_s[wanted],
        course=time_s[wanted],
    )


def stop_positions(track: Track, *, stops_mm: Array, time_s: Array) -> CruisePositions:
    """Place every still that was taken at standstill: a robust line over the stops, and what is real of the rest.

    Args:
        track: The measured stills.
        stops_mm: Where the rail was sent for each still, ``(N,)``.
        time_s: Their mid-exposure times.

    Raises:
        NoMotionError: Fewer than five stills have a position.
    """
    if len(track.frame_index) < 5:
        raise NoMotionError(
            f"only {len(track.frame_index)} stills have a position",
            next_step="take more stops, or bring a board into view",
        )
    return _placed(
        track,
        _line_over_stops(track, stops_mm),
        measurement_mm=float(np.median(track.sigma_mm)),
        frame_index=np.arange(len(stops_mm)),
        time_s=time_s,
        course=stops_mm,
    )


def stop_scale(track: Track, *, stops_mm: Array) -> float:
    """Tell how far the track moves per mm of stops, unsigned."""
    return abs(_line_over_stops(track, stops_mm).slope)


def _line_over_stops(track: Track, stops_mm: Array) -> _RobustLine:
    return _RobustLine.through(stops_mm[track.frame_index], track.position_mm)


def _placed(
    track: Track,
    line: _RobustLine,
    *,
    measurement_mm: float,
    frame_index: NDArray[np.int64],
    time_s: Array,
    course: Array,
) -> CruisePositions:
    """Place frames on a line, each moved off it by as much of its own deviation as is real.

    Args:
        track: The measured frames.
        line: What they follow over the course.
        measurement_mm: Standard deviation of a measurement by itself; what is more than that is jitter.
        frame_index: The frames to place, ``(N,)``, measured or not.
        time_s: Their mid-exposure times.
        course: Where on the line they belong: times, or the places where the rail was sent.
    """
    jitter_mm = float(np.sqrt(max(line.sigma**2 - measurement_mm**2, 0.0)))
    total = measurement_mm**2 + jitter_mm**2
    share = jitter_mm**2 / total if total > 0 else 0.0
    fitted, fitted_sigma = line.at(course)
    measured = dict(zip(track.frame_index.tolist(), track.position_mm.tolist(), strict=True))
    known = np.array([i in measured for i in frame_index.tolist()])
    own = np.array([measured.get(i, 0.0) for i in frame_index.tolist()])
    variance = np.where(known, share * measurement_mm**2, jitter_mm**2) + ((1 - share) * fitted_sigma) ** 2
    return CruisePositions(
        frame_index=frame_index,
        time_s=time_s,
        position_mm=np.where(known, fitted + share * (own - fitted), fitted),
        sigma_mm=np.sqrt(variance),
        sigma_measurement_mm=measurement_mm,
        sigma_jitter_mm=jitter_mm,
        residual_sd_mm=line.sigma,
    )


def _measurement_sigma(track: Track, fit: MotionFit) -> float:
    """Measure the noise on frames at rest; where there are too few, believe the measurements' own claim."""
    k = fit.kinematics
    scatter = []
    for still in (track.time_s < k.start_s, track.time_s > k.stop_s):
        if still.sum() >= _MIN_STATIC_FRAMES:
            deviation = track.position_mm[still] - np.median(track.position_mm[still])
            scatter.append(np.abs(deviation))
    if not scatter:
        return float(np.median(track.sigma_mm))
    return _MAD_TO_SIGMA * float(np.median(np.concatenate(scatter)))


@dataclass(frozen=True, eq=False)
class _RobustLine:
    """A line by Tukey's biweight."""

    slope: float
    middle_s: float
    middle_mm: float
    sigma: float
    weight_sum: float
    time_moment: float
    residual: Array

    @classmethod
    def through(cls, time: Array, position: Array) -> _RobustLine:
        weight = np.ones_like(time)
        for _ in range(10):
            middle, mean = np.average(time, weights=weight), np.average(position, weights=weight)
            moment = float(np.sum(weight * (time - middle) ** 2))
            slope = float(np.sum(weight * (time - middle) * (position - mean))) / max(moment, 1e-12)
            residual = position - mean - slope * (time - middle)
            spread = max(_MAD_TO_SIGMA * float(np.median(np.abs(residual))), 1e-9)
            weight = np.clip(1 - (residual / (_TUKEY * spread)) ** 2, 0, None) ** 2
        kept = residual[weight > 0]
        sigma = float(np.sqrt(np.sum(kept**2) / max(len(kept) - 2, 1)))
        return cls(slope, float(middle), float(mean), sigma, float(weight.sum()), moment, residual)

    def at(self, time: Array) -> tuple[Array, Array]:
        """Return the line and its standard deviation at times ``(N,)``."""
        since = time - self.middle_s
        sigma = self.sigma * np.sqrt(1 / self.weight_sum + since**2 / max(self.time_moment, 1e-12))
        return self.middle_mm + self.slope * since, sigma


_TELEMETRY_SIGMA_MM = 1e-3
"""What the rail's counter claims of a position; when it was read is not in it."""


def telemetry_track(*, telemetry_time_s: Array, telemetry_mm: Array) -> Track:
    """Take what the rail reported, ``(M,)`` each, for a track, as the camera's is one."""
    return Track(
        np.arange(len(telemetry_time_s)),
        telemetry_time_s,
        telemetry_mm,
        np.full(len(telemetry_mm), _TELEMETRY_SIGMA_MM),
    )


@dataclass(frozen=True, eq=False)
class ClockMatch:
    """Rail telemetry brought onto a take's time line and datum."""

    offset_s: float
    """Rail clock minus the take's time line."""
    time_s: Array
    position_mm: Array


def match_clock(fit: MotionFit, rail: Track, *, fit_scale_mm: float) -> ClockMatch:
    """Find the offset between the rail's clock and the movie's from the motion both saw.

    Args:
        fit: The motion seen by the camera.
        rail: The motion on the rail's clock and in its coordinate, `telemetry_track`.
        fit_scale_mm: Residual at which the loss turns linear.

    Raises:
        NoMotionError: The telemetry shows no motion.
    """
    from scipy.optimize import least_squares

    seen = fit.kinematics
    told = fit_kinematics(rail, fit_scale_mm=fit_scale_mm).kinematics
    along_mm = np.sign(seen.velocity_mm_s / told.velocity_mm_s) * rail.position_mm
    start = np.array([told.start_s + told.ramp_s / 2 - seen.start_s - seen.ramp_s / 2, 0.0])
    start[1] = np.median(along_mm - seen.position(rail.time_s - start[0]))

    def residual(p: Array) -> Array:
        return np.asarray(along_mm - p[1] - seen.position(rail.time_s - p[0]), np.float64)

    result = least_squares(residual, start, loss="soft_l1", f_scale=fit_scale_mm, x_scale=(0.01, 0.1))
    offset_s, datum_mm = (float(v) for v in result.x)
    return ClockMatch(offset_s, rail.time_s - offset_s, along_mm - datum_mm)
