"""The camera's tone curve from an exposure ladder: the same patches at exposures in known ratios.

Patch ``i`` at exposure ``j`` has the light ``E_i t_j``, whatever its colour. Written with the logarithm of the
curve, ``log f(code_ij) = log E_i + log t_j`` is linear in a spline; its constant is free, and white is made 1.
Exposures in equal steps leave open what repeats from step to step: a curve that swings once per stop fits a ladder of
full stops as well as one that does not. Unequal steps do not.
The spline corrects the curve that the stream's tag names: near black, where a logarithm has no end, the
correction stays small and smooth.

References:
    Debevec and Malik, Recovering high dynamic range radiance maps from photographs, 1997.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from alignment.calibration.curve import slope_of_light
from alignment.calibration.document import MissingMeasurement, ToneCalibration
from alignment.calibration.still_phase import StillPhase
from alignment.photometry import ToneCurve, standard_tone_curve
from alignment.takes import Array

_NODES = 255 * np.linspace(0.0, 1.0, 41) ** 1.5
"""Closer where curves differ most: near black."""
_SPANS = 11
_STIFFNESS = 0.05
"""Standard deviation allowed to the second difference of neighbouring spline coefficients (log light)."""
_CODES = (6.0, 250.0)
_SYSTEMATIC_CODES = 0.15
"""What chroma coding, rounding and a camera come back 0.1 px beside its place do to a flat patch."""
_MODEL_SIGMA = 0.01
"""Relative error of light that the spline leaves however many patches there are: on rendered ladders 0.3 % in the
middle of the codes, 1.5 % where the toes of two standard curves bend."""
_LEAST_PATCHES = 30
_LEAST_RATIO = 3.0
_HUBER = 2.0

Missing = MissingMeasurement


def measure_tone(phases: Sequence[StillPhase]) -> ToneCalibration | Missing:
    """Fit the tone curve to the best exposure ladder among the standstills."""
    ladder = _best_ladder(phases)
    exposures = sorted({_exposure_s(phase) for phase in ladder})
    if len(exposures) < 2 or exposures[-1] < _LEAST_RATIO * exposures[0]:
        return _missing("no two rounds differ in exposure time alone by a factor of three or more")
    base = ladder[0].source.tag_tone_name
    samples = _samples(ladder, standard_tone_curve(base))
    if len(samples) == 0 or len(np.unique(samples[:, 0])) < _LEAST_PATCHES:
        return _missing("too few flat patches are neither black nor white in two of the exposures")
    return _fit(samples, base=base, kind=ladder[0].source.camera.kind, exposures_s=exposures)


def _missing(why: str) -> Missing:
    return Missing(
        what="tone curve",
        why=why,
        next_step="record rounds that differ in exposure_s alone, in unequal steps, at one sweep and speed",
    )


def _exposure_s(phase: StillPhase) -> float:
    return phase.source.camera.settings_read.exposure_s or phase.source.round.settings.exposure_s or 0.0


def _best_ladder(phases: Sequence[StillPhase]) -> list[StillPhase]:
    """Choose the phases that differ in exposure time alone and together span most exposures."""
    groups: dict[tuple[object, ...], list[StillPhase]] = defaultdict(list)
    for phase in phases:
        read, round_ = phase.source.camera.settings_read, phase.source.round
        if _exposure_s(phase) > 0 and not round_.conditions:
            groups[(read.iso, read.f_number, read.focus_m, read.white_balance, phase.place[:2])].append(phase)
    return max(groups.values(), key=lambda g: len({_exposure_s(p) for p in g}), default=[])


def _samples(ladder: Sequence[StillPhase], base: ToneCurve) -> Array:
    """List ``(patch, code, log exposure less log light by the base curve, its sigma)`` of all usable patches."""
    rows: list[Array] = []
    for at_end in (False, True):
        group = [p for p in ladder if p.at_end is at_end]
        if len(group) < 2:
            continue
        flat = np.logical_and.reduce([p.flat for p in group])
        rows.extend(_rows_of(phase, base, flat, 1e7 * at_end) for phase in group)
    return np.concatenate(rows) if rows else np.zeros((0, 4))


def _rows_of(phase: StillPhase, base: ToneCurve, flat: Array, offset: float) -> Array:
    codes = phase.mean_rgb[flat]
    patch = offset + np.arange(codes.size, dtype=np.float64)
    codes = codes.ravel()
    usable = (codes > _CODES[0]) & (codes < _CODES[1])
    codes, patch = codes[usable], patch[usable]
    light = base.light(codes.astype(np.float32)).astype(np.float64)
    sigma = _SYSTEMATIC_CODES * slope_of_light(base, codes) / light
    return np.column_stack([patch, codes, np.log(_exposure_s(phase)) - np.log(light), sigma])


@cache
def _knots() -> Array:
    inner = 255 * np.linspace(0.0, 1.0, _SPANS + 1) ** 1.5
    return np.concatenate([[inner[0]] * 3, inner, [inner[-1]] * 3])


def _basis(codes: Array) -> Array:
    return np.asarray(BSpline.design_matrix(codes, _knots(), 3).toarray(), np.float64)


def _fit(samples: Array, *, base: str, kind: str, exposures_s: Sequence[float]) -> ToneCalibration | Missing:
    """Fit the spline and read it at the nodes."""
    solution, covariance = _spline(samples)
    at_nodes = _basis(_NODES)
    log_light = at_nodes @ solution
    if np.any(np.diff(_log_light(base) + log_light[1:]) <= 0):
        return _missing("the fitted curve does not rise throughout; the scene or the light may have changed")
    node_variance = np.einsum("nk,kl,nl->n", at_nodes, covariance, at_nodes)
    node_sigma = np.hypot(np.sqrt(np.maximum(node_variance, 0.0)), _MODEL_SIGMA)
    return ToneCalibration.model_validate(
        {
            "kind": kind,
            "base": base,
            "codes": tuple(_NODES.tolist()),
            "log_light": tuple(log_light.tolist()),
            "sigma": tuple(node_sigma.tolist()),
            "measured_codes": (float(samples[:, 1].min()), float(samples[:, 1].max())),
            "exposures_s": tuple(exposures_s),
            "count": len(np.unique(samples[:, 0])),
        }
    )


def _spline(samples: Array) -> tuple[Array, Array]:
    """Solve for the spline's coefficients with the patches' own lights eliminated: values and covariance."""
    patch = np.unique(samples[:, 0], return_inverse=True)[1]
    basis, values, sigma = _basis(samples[:, 1]), samples[:, 2], samples[:, 3]
    prior = np.diff(np.eye(basis.shape[1]), 2, axis=0) / _STIFFNESS
    pin = _basis(np.median(samples[:, 1:2], axis=0)) / 1e-6
    robust = np.ones(len(values))
    for _ in range(6):
        weight = robust / sigma**2
        centred, rest = _centred(basis, patch, weight), _centred(values[:, None], patch, weight)[:, 0]
        normal = (centred * weight[:, None]).T @ centred + prior.T @ prior + pin.T @ pin
        solution = np.linalg.solve(normal, centred.T @ (weight * rest))
        misfit = (rest - centred @ solution) / sigma
        spread = max(1.4826 * float(np.median(np.abs(misfit[misfit != 0]))), 1e-3)
        robust = np.minimum(1.0, _HUBER * spread / np.maximum(np.abs(misfit), 1e-9))
    return np.asarray(solution), np.asarray(max(spread, 1.0) ** 2 * np.linalg.inv(normal))


def _centred(columns: Array, patch: NDArray[np.intp], weight: Array) -> Array:
    """Take each patch's weighted mean off: what depends on the patch alone drops out."""
    total = np.bincount(patch, weight)
    means = np.stack([np.bincount(patch, weight * c) / total for c in columns.T], axis=1)
    return np.asarray(columns - means[patch], np.float64)


def _log_light(base: str) -> Array:
    """Logarithm of the base curve's light at the nodes above black."""
    curve = standard_tone_curve("bt709" if base == "bt709" else "srgb")
    return np.asarray(np.log(curve.light(_NODES[1:].astype(np.float32))), np.float64)
