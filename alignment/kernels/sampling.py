"""Places in a source: what a homography close to a shift makes of a run of neighbouring pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.kernels.compiling import part

Plane = NDArray[np.float32]
Array = NDArray[np.float64]

_FAR_PX = 1e7


@part
def affine_at(to_plane: Array, x: float, y: float) -> tuple[float, float, float, float, float, float]:
    """Linearise a homography: where it maps a point, and the derivatives ux, uy, vx, vy there.

    Points at and beyond the horizon come out far outside of any picture.
    """
    w = to_plane[2, 0] * x + to_plane[2, 1] * y + to_plane[2, 2]
    u = (to_plane[0, 0] * x + to_plane[0, 1] * y + to_plane[0, 2]) / w
    v = (to_plane[1, 0] * x + to_plane[1, 1] * y + to_plane[1, 2]) / w
    ux, uy = (to_plane[0, 0] - u * to_plane[2, 0]) / w, (to_plane[0, 1] - u * to_plane[2, 1]) / w
    vx, vy = (to_plane[1, 0] - v * to_plane[2, 0]) / w, (to_plane[1, 1] - v * to_plane[2, 1]) / w
    if abs(u) + abs(v) + abs(ux) + abs(uy) + abs(vx) + abs(vy) < _FAR_PX:
        return u, v, ux, uy, vx, vy
    return -_FAR_PX, -_FAR_PX, 1.0, 0.0, 0.0, 1.0


@part
def steps_inside(offset: float, slope: float) -> int:
    """How many places, the first of them ``offset`` off the middle of its pixel, have this one as their nearest."""
    edge = 0.5 if slope > 0 else -0.5
    return int(min((edge - offset) / slope, _FAR_PX)) + 1 if slope != 0 else int(_FAR_PX)
