"""Circular motion as GRBL 1.1 checks and traces it: a chain of straight segments on the circle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rig.sim.grbl_planner import Axes
from rig.sim.grbl_words import GcodeError

_FULL_TURN_BELOW_RAD = 5e-7
_MOST_SEGMENTS = 65_535
PLANES: Mapping[str, tuple[int, int, int]] = {"G17": (0, 1, 2), "G18": (2, 0, 1), "G19": (1, 2, 0)}
"""Plane code to its first, second and perpendicular axis."""


@dataclass(frozen=True)
class Arc:
    """An arc about a centre in one plane."""

    plane: tuple[int, int, int]
    centre_mm: tuple[float, float]
    """From where the arc begins, along the plane's two axes."""
    radius_mm: float
    clockwise: bool

    def points(self, begin: Axes, end: Axes, tolerance_mm: float) -> Iterator[Axes]:
        """Yield the ends of the segments; the last one is ``end`` itself."""
        first, second, along = self.plane
        turn_rad = self._angle_rad(begin, end)
        count = self._segments(turn_rad, tolerance_mm)
        centre = (begin[first] + self.centre_mm[0], begin[second] + self.centre_mm[1])
        start_rad = math.atan2(-self.centre_mm[1], -self.centre_mm[0])
        for k in range(1, count):
            turned = start_rad + turn_rad * k / count
            point = list(begin)
            point[first] = centre[0] + self.radius_mm * math.cos(turned)
            point[second] = centre[1] + self.radius_mm * math.sin(turned)
            point[along] += (end[along] - begin[along]) * k / count
            yield point[0], point[1], point[2]
        yield end

    def segments(self, begin: Axes, end: Axes, tolerance_mm: float) -> int:
        """Return into how many segments the arc is cut; inverse time counts for all of them together."""
        return self._segments(self._angle_rad(begin, end), tolerance_mm)

    def _angle_rad(self, begin: Axes, end: Axes) -> float:
        """Return the signed angle; an arc that ends where it begins is a full turn."""
        first, second, _ = self.plane
        ax, ay = -self.centre_mm[0], -self.centre_mm[1]
        bx, by = end[first] - begin[first] + ax, end[second] - begin[second] + ay
        angle = math.atan2(ax * by - ay * bx, ax * bx + ay * by)
        if self.clockwise:
            return angle - 2 * math.pi if angle >= -_FULL_TURN_BELOW_RAD else angle
        return angle + 2 * math.pi if angle <= _FULL_TURN_BELOW_RAD else angle

    def _segments(self, angle_rad: float, tolerance_mm: float) -> int:
        """As many as keep the chords within the tolerance (``$12``)."""
        sagitta = tolerance_mm * (2 * self.radius_mm - tolerance_mm)
        if sagitta <= 0:
            return 1
        return min(int(abs(0.5 * angle_rad * self.radius_mm) / math.sqrt(sagitta)), _MOST_SEGMENTS)


def arc_by_radius(plane: tuple[int, int, int], begin: Axes, end: Axes, *, radius_mm: float, code: str) -> Arc:
    """Find the centre from a radius; raises `GcodeError` 33 (same point) or 34 (radius too small)."""
    if begin == end:
        raise GcodeError(33)
    x, y = end[plane[0]] - begin[plane[0]], end[plane[1]] - begin[plane[1]]
    squared = 4 * radius_mm * radius_mm - x * x - y * y
    if squared < 0:
        raise GcodeError(34)
    chord = math.hypot(x, y)
    if chord == 0:
        raise GcodeError(33)
    ratio = -math.sqrt(squared) / chord
    if (code == "G3") != (radius_mm < 0):
        ratio = -ratio
    centre = (0.5 * (x - y * ratio), 0.5 * (y + x * ratio))
    return Arc(plane, centre, abs(radius_mm), code == "G2")


def arc_by_centre(
    plane: tuple[int, int, int], begin: Axes, end: Axes, *, offsets: Mapping[int, float], code: str
) -> Arc:
    """Check that both ends lie on one circle; raises `GcodeError` 35 (no centre) or 33 (radii differ)."""
    first, second, _ = plane
    if not offsets.keys() & {first, second}:
        raise GcodeError(35)
    centre = (offsets.get(first, 0.0), offsets.get(second, 0.0))
    radius_mm = math.hypot(*centre)
    end_radius_mm = math.hypot(end[first] - begin[first] - centre[0], end[second] - begin[second] - centre[1])
    difference_mm = abs(end_radius_mm - radius_mm)
    if difference_mm > 0.5 or difference_mm > max(0.005, 0.001 * radius_mm):
        raise GcodeError(33)
    return Arc(plane, centre, radius_mm, code == "G2")
