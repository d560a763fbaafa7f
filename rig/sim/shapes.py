"""Outlines of the things that stand in the simulated scene, as closed polygons."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]

_VERTICES = 96


def card(rng: np.random.Generator) -> Outline:
    """A rectangle with rounded corners; like all outlines (V, 2) within [-0.5, 0.5]."""
    power = rng.uniform(6, 12)
    angle = np.linspace(0, 2 * np.pi, _VERTICES, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return np.asarray(0.5 * np.sign(circle) * np.abs(circle) ** (2 / power))


def disc(_rng: np.random.Generator) -> Outline:
    """A circle (an ellipse once it is scaled)."""
    angle = np.linspace(0, 2 * np.pi, _VERTICES, endpoint=False)
    return 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def blob(rng: np.random.Generator) -> Outline:
    """A smooth closed curve with a few bulges."""
    angle = np.linspace(0, 2 * np.pi, _VERTICES, endpoint=False)
    radius = np.ones(_VERTICES)
    for order in (2, 3, 4, 5):
        radius += rng.uniform(0.03, 0.3 / order) * np.sin(order * angle + rng.uniform(0, 2 * np.pi))
    return _fitted(radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1))


def vase(rng: np.random.Generator) -> Outline:
    """A turned vessel standing on its foot: neck, belly, foot."""
    height = np.linspace(0, 1, _VERTICES // 2)
    knots = (0.0, 0.12, 0.3, rng.uniform(0.55, 0.7), 0.93, 1.0)
    widths = (rng.uniform(0.35, 0.55), rng.uniform(0.2, 0.35), 0.55, 1.0, rng.uniform(0.45, 0.6), 0.6)
    half = np.interp(height, knots, widths)
    half = np.convolve(np.pad(half, 3, mode="edge"), np.full(7, 1 / 7), mode="valid")
    right = np.stack([half, height], axis=-1)
    return _fitted(np.concatenate([right, right[::-1] * np.array([-1.0, 1.0])]))


SHAPES: tuple[Callable[[np.random.Generator], Outline], ...] = (card, vase, disc, blob)


def rectangle(left_mm: float, top_mm: float, right_mm: float, bottom_mm: float) -> Outline:
    """The four corners of a rectangle, clockwise from the upper left."""
    return np.array([[left_mm, top_mm], [right_mm, top_mm], [right_mm, bottom_mm], [left_mm, bottom_mm]])


def contains(outline: Outline, points: Outline) -> NDArray[np.bool_]:
    """Tell for each of (N, 2) points whether the outline encloses it (crossing number)."""
    x, y = points[:, :1], points[:, 1:]
    ax, ay = outline.T
    bx, by = np.roll(outline, -1, axis=0).T
    spans = (ay > y) != (by > y)
    run = np.divide(bx - ax, by - ay, out=np.zeros_like(ax), where=by != ay)
    return np.asarray(np.sum(spans & (x < ax + (y - ay) * run), axis=1) % 2 == 1)


def _fitted(points: Outline) -> Outline:
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray((points - low) / (high - low) - 0.5)
