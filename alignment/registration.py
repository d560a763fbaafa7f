"""Register one degraded frame to its ground truth, to a few hundredths of a pixel.

Coarse to fine, every tile with its own gain and offset, gradients from the ground truth alone, robust
weights on the tiles' innovations, and the ground truth blurred and dimmed as the degraded frame is. The
simplest movement of the camera that explains the tiles is the one reported, with its error predicted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from alignment.blur import variance_px2
from alignment.blur_field import BlurField
from alignment.blur_search import find_blur
from alignment.camera_motion import (
    Array,
    ModelName,
    Pinhole,
    angles_and_scale,
    at_scale,
    grid_points,
    inverted,
    map_points,
)
from alignment.errors import PictureFormatError
from alignment.information import (
    PredictedError,
    bound_px,
    coherent_misfit,
    parameter_covariance,
    predict_error,
)
from alignment.level_pair import (
    BackwardPair,
    ForwardPair,
    Refinement,
    refine,
)
from alignment.local_map import LocalMap, local_map
from alignment.parallax import MotionField, Settled, settle
from alignment.photometry import Mask
from alignment.picture import DIMMED, NO_BLUR, MatchedTruth, Picture
from alignment.robust_fit import information_criterion
from alignment.scene_depths import DisparityMap
from alignment.tiles import IN_PLACE, fine_detail
from alignment.window import WindowTrack, track_window
from catalog.evidence import BlurRecord

__all__ = [
    "Picture",
    "Pinhole",
    "Registration",
    "WindowTrack",
    "register",
    "track_window",
]

_COARSE_TOLERANCE_PX = 0.1
_MIDDLE_TOLERANCE_PX = 0.05
_FINE_TOLERANCE_PX = 0.01
"""A step leaves a tenth of itself or less."""
_STRONG_EVIDENCE = 10.0
"""Least gain in Schwarz's criterion at which a richer model is taken (Kass and Raftery, 1995)."""
_EVIDENCE_BEYOND_PARALLAX = 100.0
"""The same where parallax is told apart: what is left is rarely a movement of the camera, and tiles share it. A codec's
lag gained up to 85 where it should have gained nothing, a lens's distortion 150 and more."""
_DETAIL_SCALE = 2
"""Scale at which gradients are correlated."""
_MIDTONES = (64.0, 192.0)
_CLIPPED = (1.5, 253.5)


@dataclass(frozen=True)
class GainStatistics:
    """Contrast of the degraded frame over that of the matched ground truth, over the tiles in use."""

    median: float
    low: float
    """10th percentile."""
    high: float
    """90th percentile."""

    @classmethod
    def of(cls, gain: Array) -> GainStatistics:
        """Summarise the gains of tiles, ``(n,)``."""
        low, median, high = np.percentile(gain, (10, 50, 90))
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True, eq=False)
class Registration:
    """How a degraded frame lies on its ground truth, and how well that is known."""

    size: tuple[int, int]
    """Width and height of the degraded frame, px."""
    homography: Array
    """``(3, 3)``: pixel of the ground truth to pixel of the degraded frame, as suits most of the picture."""
    model: ModelName
    """How the camera turned; parallax and the homography's other freedoms are not counted."""
    angles_deg: tuple[float, float, float]
    """Pitch, yaw, roll of the degraded frame's camera against that of the ground truth."""
    scale: float
    gap_mm: tuple[float, float, float] | None
    """How far the degraded frame's optical centre lies to the right of the ground truth's, below it and before it, as
    parallax tells; None where the depths are not known."""
    gap_sigma_mm: tuple[float, float, float] | None
    """Standard deviations of it: by the covariance, and by what tiles share beyond all depths, as codecs make it."""
    covariance: Array
    """``(p, p)`` of the model's parameters (rad; relative scale), then of the gap where it is told (mm)."""
    predicted: PredictedError
    bound_px: float
    """Cramér-Rao bound of the model's displacement, root mean square over the picture."""
    blur: BlurRecord
    exposure_ratio: float
    """Light of the degraded frame over that of the ground truth."""
    matched_exposure: float
    """By how much the ground truth was dimmed to match; 1 if gains and offsets could absorb the rest."""
    focal_px: float
    """Focal length that turned angles into pixels."""
    disparities: DisparityMap | None
    """Of the ground truth, as `register` was told."""
    split_half_px: float
    """Root mean square difference of two registrations by interleaved halves of the tiles."""
    split_half_sigma_px: float
    """What that difference would be by the covariance alone."""
    forward_backward_px: float
    """Largest error over the corners after going to the degraded frame and back by independent estimates."""
    ncc: float
    """Median correlation of the inlier tiles after blur matching."""
    gradient_ncc: float
    """Correlation of the gradients over the inlier tiles after blur matching, at half size."""
    gain: GainStatistics
    clipped_white_share: float
    """Share of pixels at white where the ground truth is mid-tone."""
    clipped_black_share: float
    """Share of pixels at black where the ground truth is mid-tone."""
    leftover: LocalMap
    iterations: int
    converged: bool

    @property
    def predicted_epe_px(self) -> float:
        """What the estimate's error, the median over the picture, keeps to in 95 of 100 such pairs, px."""
        return self.predicted.radius_px

    @property
    def masked_share(self) -> float:
        """Share of the tiles that show something else than the ground truth does."""
        return self.leftover.masked_share

    @property
    def local_p90_px(self) -> float | None:
        """90th percentile of the tiles' leftover shift; None where no tile can measure it."""
        return self.leftover.percentile_px(90)

    def trust_mask(self) -> Mask:
        """``(H, W)`` uint8 over the degraded frame: 255 where it may be compared with the ground truth."""
        return self.leftover.trust_mask(self.size)


def register(
    gt: Picture,
    lq: Picture,
    *,
    camera: Pinhole,
    initial: Array,
    blur: BlurRecord | None = None,
    trust: Mask | None = None,
    finest_scale: Literal[1, 2] = 1,
    disparities: DisparityMap | None = None,
    models: tuple[ModelName, ...] = ("rotation", "scale", "homography"),
) -> Registration:
    """Find how ``lq`` lies on ``gt``.

    Args:
        gt: Ground truth, of ``camera``'s size.
        lq: Degraded frame of the same size.
        camera: Focal length and size of both.
        initial: ``(3, 3)`` first guess of the homography, good to about 6 px.
        blur: Blur of ``lq`` over ``gt``; None searches for it.
        trust: ``(H, W)`` uint8 over ``lq``, 0 where it must not be compared.
        finest_scale: 2 screens at half size: about half the accuracy, and about a third of the time with one model
            and no search for blur.
        disparities: How near the parts of ``gt`` are, so that what the optical centre's own move does to them is told
            apart from its turn; None where it is not known.
        models: Models allowed, the simplest first; a richer one is taken only on strong evidence.

    Raises:
        NoCommonStructureError: The frames share too little structure.
        PictureFormatError: The frames differ in size.
    """
    if not gt.size == lq.size == (camera.width, camera.height):
        raise PictureFormatError(f"frames of {gt.size} and {lq.size} px for a camera of {camera.width}")
    coarse = _coarse(gt, lq, initial, camera=camera, model=models[0], trust=trust)
    exposure = _exposure_ratio(coarse, gt, lq)
    if blur is None:
        blur = find_blur(gt, lq, homography=coarse.homography, exposure=exposure)
    truth = MatchedTruth(gt, tone=lq.tone, blur=blur, exposure=exposure if exposure < DIMMED else 1.0)
    choice = _ModelChoice(camera, disparities, models)
    truth, forward = _fine(truth, lq, coarse, choice=choice, trust=trust, finest_scale=finest_scale)
    settled = settle(forward, camera=camera, disparities=disparities)
    ladder = (4, models[0]), (2 * finest_scale, forward.fit.model)
    backward = _backward(truth, lq, initial, camera=camera, ladder=ladder)
    return _describe(truth, lq, forward, settled, backward, exposure=exposure)


def _coarse(
    gt: Picture, lq: Picture, initial: Array, *, camera: Pinhole, model: ModelName, trust: Mask | None
) -> Refinement[ForwardPair]:
    plain = MatchedTruth(gt, tone=gt.tone, blur=NO_BLUR, exposure=1.0)
    pair = ForwardPair(plain, lq, scale=4, trust=trust)
    return refine(pair, initial, camera=camera, model=model, tolerance_px=_COARSE_TOLERANCE_PX)


def _exposure_ratio(coarse: Refinement[ForwardPair], gt: Picture, lq: Picture) -> float:
    """Median over the tiles of light over light."""
    tiles, usable = coarse.tiles, coarse.fit.usable
    lq_light = lq.tone.light(tiles.lq_mean[usable].astype(np.float32))
    gt_light = gt.tone.light(tiles.gt_mean[usable].astype(np.float32))
    return float(np.median(lq_light / np.maximum(gt_light, 1e-4)))


@dataclass(frozen=True, eq=False)
class _ModelChoice:
    """Which models there are to choose from, and what for."""

    camera: Pinhole
    disparities: DisparityMap | None
    models: tuple[ModelName, ...]
    """The simplest first."""

    def best(self, found: Refinement[ForwardPair]) -> ModelName:
        """Take the simplest model that no richer one beats by strong evidence."""
        if len(self.models) == 1:
            return self.models[0]
        centres = found.pair.grid.centres_px()
        fits = [
            MotionField(model, self.camera, self.disparities, found.homography).fit(
                found.tiles, centres, like=found.fit
            )
            for model in self.models
        ]
        needed = _STRONG_EVIDENCE if self.disparities is None else _EVIDENCE_BEYOND_PARALLAX
        best, best_cost = fits[0], np.inf
        for fit in fits:
            cost = information_criterion(fit, reference_inflation=fits[-1].inflation)
            if cost < best_cost - needed:
                best, best_cost = fit, cost
        return best.model

    def above(self, model: ModelName) -> _ModelChoice:
        """Leave out what is simpler than a model."""
        return replace(self, models=self.models[self.models.index(model) :])


def _fine(
    truth: MatchedTruth,
    lq: Picture,
    coarse: Refinement[ForwardPair],
    *,
    choice: _ModelChoice,
    trust: Mask | None,
    finest_scale: int,
) -> tuple[MatchedTruth, Refinement[ForwardPair]]:
    found, camera = coarse, choice.camera
    for scale in (2, 1) if finest_scale == 1 else (2,):
        if scale == 1 and variance_px2(truth.blur) > 0:
            field = BlurField.of(
                found.tiles, found.fit.usable, found.pair.grid, homography=found.homography, blur=truth.blur
            )
            truth = truth.varied(field)
        pair = ForwardPair(truth, lq, scale=scale, trust=trust)
        tolerance_px = _FINE_TOLERANCE_PX if scale == finest_scale else _MIDDLE_TOLERANCE_PX
        simplest = choice.models[0]
        found = refine(pair, found.homography, camera=camera, model=simplest, tolerance_px=tolerance_px)
        model = choice.best(found)
        if model != simplest:
            choice = choice.above(model)
            found = refine(pair, found.homography, camera=camera, model=model, tolerance_px=tolerance_px)
    return truth, found


def _backward(
    truth: MatchedTruth,
    lq: Picture,
    initial: Array,
    *,
    camera: Pinhole,
    ladder: tuple[tuple[int, ModelName], ...],
) -> Array:
    """Estimate the homography once more, on tiles of the ground truth, from the same first guess.

    Half size is fine enough for a check against 0.1 px, a quarter for screening. As forward, the simplest model goes
    first: where parallax leaves a free homography two places to settle in, both directions then settle in one.

    Args:
        truth: The ground truth, matched in blur and exposure.
        lq: The degraded frame.
        initial: First guess.
        camera: For the Jacobians.
        ladder: Scales and models, one after the other.
    """
    homography = initial
    steps = tuple(dict.fromkeys(ladder))
    for scale, model in steps:
        pair = BackwardPair(truth, lq, scale=scale)
        tolerance_px = _FINE_TOLERANCE_PX if (scale, model) == steps[-1] else _COARSE_TOLERANCE_PX
        found = refine(pair, homography, camera=camera, model=model, tolerance_px=tolerance_px)
        homography = found.homography
    return homography


def _describe(
    truth: MatchedTruth,
    lq: Picture,
    forward: Refinement[ForwardPair],
    settled: Settled,
    backward: Array,
    *,
    exposure: float,
) -> Registration:
    fit, tiles, camera = settled.fit, settled.tiles, settled.field.camera
    leftover = _leftover(forward, settled, lq)
    covariance = parameter_covariance(fit, forward.pair.grid)
    points = grid_points(0, 0, *lq.size)
    angles_deg, scale = angles_and_scale(settled.homography, camera)
    white, black = _clipped_shares(truth.gt, lq, settled.homography)
    halves_px, halves_sigma_px = _split_half(forward, settled, covariance, points)
    good = fit.weight > 0
    return Registration(
        homography=settled.homography,
        model=fit.model,
        angles_deg=angles_deg,
        scale=scale,
        gap_mm=settled.gap_mm,
        gap_sigma_mm=settled.gap_sigma_mm(covariance, coherent_misfit(leftover)),
        covariance=covariance,
        predicted=_predicted(settled, covariance, leftover, points),
        bound_px=_bound(truth, lq, forward, camera, points),
        blur=truth.blur,
        exposure_ratio=exposure,
        matched_exposure=truth.exposure,
        focal_px=camera.focal_px,
        disparities=settled.field.disparities,
        split_half_px=halves_px,
        split_half_sigma_px=halves_sigma_px,
        forward_backward_px=_there_and_back_px(forward.homography, backward, lq.size),
        ncc=float(np.median(tiles.correlation[good])),
        gradient_ncc=_gradient_correlation(truth, lq, forward, settled),
        gain=GainStatistics.of(tiles.gain[good]),
        clipped_white_share=white,
        clipped_black_share=black,
        leftover=leftover,
        iterations=forward.iterations,
        converged=forward.converged,
        size=lq.size,
    )


def _leftover(forward: Refinement[ForwardPair], settled: Settled, lq: Picture) -> LocalMap:
    return local_map(
        forward.pair.grid,
        settled.tiles,
        settled.fit,
        parallax_px=settled.apart_px,
        parallax_doubt_px=settled.doubt_px,
        tone=lq.tone,
    )


def _predicted(settled: Settled, covariance: Array, leftover: LocalMap, points_px: Array) -> PredictedError:
    field = settled.field
    known = field.disparities is not None
    return predict_error(field.jacobian, covariance, leftover, points_px=points_px, depths_known=known)


def _there_and_back_px(there: Array, back: Array, size: tuple[int, int]) -> float:
    """Largest distance of a corner from where two homographies that should be alike bring it back to."""
    corners = grid_points(0, 0, *size, columns=2, rows=2)
    return float(np.hypot(*(map_points(inverted(back) @ there, corners) - corners).T).max())


def _split_half(
    forward: Refinement[ForwardPair], settled: Settled, covariance: Array, points_px: Array
) -> tuple[float, float]:
    grid, field = forward.pair.grid, settled.field
    odd = (np.add.outer(np.arange(grid.rows), np.arange(grid.columns)) % 2 == 1).ravel()
    halves = [settled.fit.again(settled.tiles, half) for half in (odd, ~odd)]
    at_points = field.jacobian(points_px)
    difference = at_points @ (halves[0].parameters - halves[1].parameters)
    variance = np.einsum("nip,pq,niq->", at_points, 4 * covariance, at_points) / len(points_px)
    return float(np.sqrt(np.mean(np.sum(difference**2, axis=1)))), float(np.sqrt(variance))


def _gradient_correlation(
    truth: MatchedTruth, lq: Picture, forward: Refinement[ForwardPair], settled: Settled
) -> float:
    tiles = settled.tiles  # of one step before, which was short
    if forward.pair.grid.scale != _DETAIL_SCALE:
        tiles, _ = ForwardPair(truth, lq, scale=_DETAIL_SCALE).linearise(settled.homography)
    both, gt, own = tiles.gradient_products[settled.fit.weight > 0].sum(axis=0)
    return float(both / max(np.sqrt(gt * own), 1e-9))


def _bound(
    truth: MatchedTruth, lq: Picture, forward: Refinement[ForwardPair], camera: Pinhole, points_px: Array
) -> float:
    grid = forward.pair.grid
    to_truth = at_scale(inverted(forward.homography), grid.scale)
    detail = fine_detail(truth.reduced(grid.scale), to_truth, lq.reduced(grid.scale), IN_PLACE, grid)
    return bound_px(detail, forward.tiles, forward.fit, camera=camera, points_px=points_px)


def _clipped_shares(gt: Picture, lq: Picture, homography: Array) -> tuple[float, float]:
    """Shares of white and of black in the degraded frame where the ground truth is mid-tone; every 8th pixel."""
    ys, xs = np.mgrid[4 : lq.size[1] : 8, 4 : lq.size[0] : 8]
    at_truth = map_points(inverted(homography), np.column_stack([xs.ravel(), ys.ravel()]))
    column, row = np.clip(np.rint(at_truth), 0, np.array(gt.size) - 1).astype(int).T
    codes = gt.grey[row, column]
    seen = lq.grey[ys.ravel(), xs.ravel()][(codes >= _MIDTONES[0]) & (codes <= _MIDTONES[1])]
    if seen.size == 0:
        return 0.0, 0.0
    return float(np.mean(seen >= _CLIPPED[1])), float(np.mean(seen <= _CLIPPED[0]))
