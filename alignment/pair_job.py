"""The parallel part: register runs of matched frames, cut and write the pairs that may pass.

A run is a fixed number of matches, each begun from the one before, and depends on nothing outside itself. How many
runs a job does in one go decides how often movies are opened and decoded from a key frame on, and nothing else:
any number of workers writes the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import map_points
from alignment.datum import mean_shift
from alignment.decode import FrameReader
from alignment.depth import seen_parallax_px
from alignment.errors import NoCommonStructureError, NoOverlapError
from alignment.gates import GateThresholds, PairMeasurements, RoundNorms, judge_pair, needs_registration
from alignment.local_map import MEASURABLE_SIGMA_PX
from alignment.matching import Match
from alignment.photometry import recoded
from alignment.picture import NO_BLUR, Picture
from alignment.png import encode_png
from alignment.registration import Registration, register
from alignment.resampling import DeliveredPair, deliver
from alignment.scene_depths import DisparityMap, SceneDepths
from alignment.takes import Array, TakeSource
from catalog.evidence import BlurRecord, Matrix3x3, PairHashes, TargetRecord
from catalog.session_folder import PAIRS_FOLDER

Vector = tuple[float, float, float]
NOT_WRITTEN = PairHashes(gt=None, lq=None, mask=None)
_CODE_POWER = 0.45
"""Codes rise about with this power of light: what dimming the ground truth took out of the gain, in codes."""
_MOST_RUNS = 6
"""Of a job: somebody waits for its progress."""
_KEPT_FRAMES = 12
"""Of every ground truth: the nearest frame of a later match may be a few earlier ones."""
_CONTENT_BLIND = RoundNorms(gradient_ncc=None, gain=None)
_CODEC_SIGMA_PX = 0.0065
"""How far a codec draws what moves beside where it was, all of it alike. x264 (ultrafast, CRF 10) tells motion in
quarters of a pixel: at 0.25 px a frame pictures came out 0.007 to 0.012 px behind, at 0.8 and 1.6 px 0.001 to 0.008 px
ahead, at CRF 0 where they were."""


@dataclass(frozen=True, eq=False)
class PairTask:
    """A match with all that registration is told about it."""

    name: str
    match: Match
    gt_anchors: tuple[Array, ...]
    """Every target's place in the ground truth, NaN where it was not seen."""
    lq_anchors: tuple[Array, ...]
    target_sigma_px: tuple[float, ...]
    """Standard deviation of every target's place in the one frame against that in the other."""
    before: PairMeasurements
    """What is known from the frames' places alone."""
    readout_gap_mm: float = 0.0
    """How much farther the carriage goes in the degraded frame while the rows are read out: what the frames'
    positions differ by from the first row to the last beside their gap."""
    shear_px: tuple[float, float] = (0.0, 0.0)
    """Picture shift that this makes over the scene's depths from the first row to the last, x and y."""

    @property
    def shift_px(self) -> Array:
        """Picture shift that the targets tell, ``(2,)``; 0 where none was seen in both frames."""
        shift = mean_shift(self.gt_anchors, self.lq_anchors)
        return np.zeros(2) if shift is None else shift


@dataclass(frozen=True, eq=False)
class PairJob:
    """Some runs of matches of one degraded take, which follow each other."""

    session: Path
    gt_sources: tuple[TakeSource, ...]
    lq_source: TakeSource
    lq_evidence: tuple[str, ...]
    """What the positions of the degraded take rest on."""
    runs: tuple[tuple[PairTask, ...], ...]
    focal_px: float
    depths: SceneDepths | None
    thresholds: GateThresholds

    def disparities(self, task: PairTask) -> DisparityMap | None:
        """Return those of a match's ground truth; None where depths are not known."""
        return None if self.depths is None else self.depths.seen_from(task.match.gt.position_mm)

    def unseen_shift_px(self, readers: Sequence[FrameReader]) -> Array:
        """Tell by how much codecs may have shifted the frames of two movies against each other.

        Returns:
            ``(2,)`` standard deviations in x and y: along the motion, or any way where that is not known.
        """
        way = np.ones(2) if self.depths is None else np.abs(self.depths.direction)
        coded = sum(reader.motion_coded for reader in readers)
        return np.asarray(_CODEC_SIGMA_PX * np.sqrt(coded) * way, np.float64)


def shared_out(rounds: Sequence[PairJob], *, workers: int | None) -> list[list[PairJob]]:
    """Cut rounds into jobs: large ones first, which open and seek seldom, small ones last, so that all end together.

    Args:
        rounds: A job for each round.
        workers: How many work at a time; None for as many as there are runs.
    """
    left = sum(len(whole.runs) for whole in rounds)
    shares = []
    for whole in rounds:
        jobs, at = [], 0
        while at < len(whole.runs):
            size = min(max(left // (2 * workers), 1), _MOST_RUNS) if workers else 1
            jobs.append(replace(whole, runs=whole.runs[at : at + size]))
            at += size
            left -= len(jobs[-1].runs)
        shares.append(jobs)
    return shares


@dataclass(frozen=True, eq=False)
class PairOutcome:
    """What became of one match before it is compared with the rest of its round."""

    task: PairTask
    measured: PairMeasurements
    homography: Matrix3x3 | None = None
    blur: BlurRecord = NO_BLUR
    predicted_epe_px: float | None = None
    bound_px: float | None = None
    camera_gap_mm: Vector | None = None
    camera_gap_sigma_mm: Vector | None = None
    lq_crop: tuple[int, int, int, int] | None = None
    gt_from_pair: Matrix3x3 | None = None
    gt_warped: bool = False
    residual_px: float | None = None
    mu: float | None = None
    sigma: float | None = None
    hashes: PairHashes = NOT_WRITTEN


def run_pair_job(job: PairJob) -> list[PairOutcome]:
    """Register, cut and write the matches of a job.

    Raises:
        DecodeError: A movie cannot be decoded where it was decoded before.
    """
    with ExitStack() as stack:
        stack.enter_context(single_threaded())
        gt = [stack.enter_context(source.open(cached_frames=_KEPT_FRAMES)) for source in job.gt_sources]
        lq = stack.enter_context(job.lq_source.open(cached_frames=1))
        return [outcome for run in job.runs for outcome in _outcomes(job, run, gt, lq)]


@contextmanager
def single_threaded() -> Iterator[None]:
    """Keep OpenCV to one thread: the processes are the parallelism."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


@dataclass(frozen=True, eq=False)
class _Frames:
    """What both movies show of a match."""

    gt: Picture
    """In the degraded frame's tones."""
    lq: Picture
    unseen_px: Array
    """``(2,)`` standard deviation of a shift between them that neither shows."""

    @classmethod
    def read(cls, job: PairJob, match: Match, truths: Sequence[FrameReader], lq: FrameReader) -> _Frames:
        number, tone = match.gt.source, job.lq_source.tone
        truth = recoded(truths[number].read(match.gt.index).rgb(), job.gt_sources[number].tone, tone)
        return cls(
            Picture(truth, tone=tone),
            Picture(lq.read(match.lq.index).rgb(), tone=tone),
            job.unseen_shift_px((truths[number], lq)),
        )


def _outcomes(
    job: PairJob, run: Sequence[PairTask], gt: Sequence[FrameReader], lq: FrameReader
) -> Iterator[PairOutcome]:
    last: tuple[Array, Array] | None = None
    doubtful = False
    for task in run:
        if not needs_registration(task.before, thresholds=job.thresholds):
            yield PairOutcome(task, task.before)
            continue
        frames = _Frames.read(job, task.match, gt, lq)
        try:
            outcome = _screened(job, task, frames, last) if doubtful else None
            if outcome is None:
                found = _register(job, task, frames, last)
                last = found.homography, task.shift_px
                outcome = _deliver(job, task, frames, found)
        except NoCommonStructureError:
            outcome = PairOutcome(task, task.before)
        doubtful = outcome.hashes == NOT_WRITTEN
        yield outcome


def _screened(
    job: PairJob, task: PairTask, frames: _Frames, last: tuple[Array, Array] | None
) -> PairOutcome | None:
    """Register at half size, a third of the work; None if the pair may pass.

    Only what follows a rejected pair is screened: what makes pairs hopeless stays for a while, and elsewhere
    the screening would be lost. Limits are so much wider that no pair fails here that full size would save.
    """
    found = _register(job, task, frames, last, finest_scale=2)
    outcome = _outcome(job, task, found)
    sigma_px = 2 * outcome.measured.kinematics_sigma_px  # a limit, too, where the picture was followed
    _, reasons = judge_pair(
        replace(outcome.measured, kinematics_sigma_px=sigma_px),
        thresholds=_hopeless(job.thresholds),
        norms=_CONTENT_BLIND,
        low_light=job.lq_source.low_light,
    )
    return outcome if reasons else None


def _hopeless(limits: GateThresholds) -> GateThresholds:
    """Widen the limits by what half size may be off: errors double, shares of tiles change by less than a fourth."""
    doubled = ("predicted_epe_px", "predicted_epe_dark_px", "consistent_px", "consistent_floor_px",
               "forward_backward_px", "split_half_px", "local_px")  # fmt: skip
    wider = dict.fromkeys(doubled, 2.0) | {"masked_share": 1.25, "rotation_deg": 1.25, "clipped_share": 1.25}
    return limits.model_copy(update={name: getattr(limits, name) * by for name, by in wider.items()})


def _register(
    job: PairJob,
    task: PairTask,
    frames: _Frames,
    last: tuple[Array, Array] | None,
    *,
    finest_scale: Literal[1, 2] = 1,
) -> Registration:
    """Start from what the boards say, corrected by what the pair before turned out to be."""
    initial = _sheared(task.shear_px, frames.lq.size[1]) if last is None else last[0].copy()
    initial[:2, 2] += task.shift_px if last is None else task.shift_px - last[1]
    found = register(
        frames.gt,
        frames.lq,
        camera=job.lq_source.pinhole(job.focal_px),
        initial=initial,
        finest_scale=finest_scale,
        disparities=job.disparities(task),
    )
    return replace(found, predicted=found.predicted.with_shift(frames.unseen_px))


def _sheared(shear_px: tuple[float, float], height: int) -> Array:
    """Return the homography of a rolling shutter's shear about the middle row."""
    x, y = np.array(shear_px) / (height - 1)
    middle = (height - 1) / 2
    return np.array([[1.0, x, -x * middle], [0.0, 1.0 + y, -y * middle], [0.0, 0.0, 1.0]])


def _deliver(job: PairJob, task: PairTask, frames: _Frames, found: Registration) -> PairOutcome:
    outcome = _outcome(job, task, found)
    measured = outcome.measured
    try:
        pair = deliver(frames.gt.rgb, frames.lq.rgb, found, tone=frames.gt.tone)
    except NoOverlapError:
        return replace(outcome, measured=replace(measured, overlap_share=0.0))
    measured = replace(measured, overlap_share=pair.overlap_share, predicted_epe_px=pair.predicted_epe_px)
    outcome = replace(
        outcome,
        measured=measured,
        predicted_epe_px=pair.predicted_epe_px,
        lq_crop=pair.lq_crop,
        gt_from_pair=_matrix(pair.gt_from_pair),
        gt_warped=pair.gt_warped,
        residual_px=pair.residual_px,
    )
    _, reasons = judge_pair(
        measured, thresholds=job.thresholds, norms=_CONTENT_BLIND, low_light=job.lq_source.low_light
    )
    return outcome if reasons else _write(job.session, outcome, pair, found)


def _outcome(job: PairJob, task: PairTask, found: Registration) -> PairOutcome:
    """What is known of a pair before it is cut."""
    return PairOutcome(
        task,
        _measure(job, task, found),
        homography=_matrix(found.homography),
        blur=found.blur,
        predicted_epe_px=found.predicted_epe_px,
        bound_px=found.bound_px,
        camera_gap_mm=_rounded(found.gap_mm),
        camera_gap_sigma_mm=_rounded(found.gap_sigma_mm),
    )


def _write(session: Path, outcome: PairOutcome, pair: DeliveredPair, found: Registration) -> PairOutcome:
    mask = _cut(found.trust_mask(), pair.lq_crop) if found.masked_share > 0 else None
    name = outcome.task.name
    hashes = PairHashes(
        gt=write_png(session, "gt", name, np.asarray(pair.gt, np.uint8)),
        lq=write_png(session, "lq", name, np.asarray(pair.lq, np.uint8)),
        mask=None if mask is None else write_png(session, "mask", name, mask),
    )
    return replace(outcome, mu=pair.mu, sigma=pair.sigma, hashes=hashes)


def _cut(mask: NDArray[np.uint8], crop: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    x, y, width, height = crop
    return mask[y : y + height, x : x + width]


def _measure(job: PairJob, task: PairTask, found: Registration) -> PairMeasurements:
    seen_px = seen_parallax_px(
        found,
        found.disparities,
        spread_px_per_mm=job.depths.spread_px_per_mm if job.depths else 0.0,
        readout_gap_mm=task.readout_gap_mm,
    )
    return replace(
        measurements(found, like=task.before),
        parallax_px=max(task.before.parallax_px, seen_px),
        kinematics_px=_against_targets(task, found),
        depth_correlation=depth_correlation(found, found.disparities),
    )


def measurements(found: Registration, *, like: PairMeasurements) -> PairMeasurements:
    """Add what a registration tells about itself to what was known from the frames' places."""
    return replace(
        like,
        registered=True,
        predicted_epe_px=found.predicted_epe_px,
        forward_backward_px=found.forward_backward_px,
        split_half_px=found.split_half_px,
        split_half_sigma_px=found.split_half_sigma_px,
        local_p90_px=found.local_p90_px,
        masked_share=found.masked_share,
        rotation_deg=max(abs(a) for a in found.angles_deg),
        gradient_ncc=found.gradient_ncc,
        clipped_white_share=found.clipped_white_share,
        clipped_black_share=found.clipped_black_share,
        gain=found.gain.median * found.matched_exposure**_CODE_POWER,
    )


def target_records(outcome: PairOutcome) -> tuple[TargetRecord, ...]:
    """List the targets seen in both frames, and where the registration puts them; none where there is none."""
    if outcome.homography is None:
        return ()
    task = outcome.task
    misfits = _target_misfits(task, np.array(outcome.homography))
    places = zip(task.lq_anchors, misfits, task.target_sigma_px, strict=True)
    return tuple(
        TargetRecord(lq_px=_xy(place), misfit_px=_xy(misfit), sigma_px=round(sigma_px, 4))
        for place, misfit, sigma_px in places
        if np.isfinite(misfit).all()
    )


def _rounded(gap_mm: Vector | None) -> Vector | None:
    """To 10 nm: far below what can be told."""
    return None if gap_mm is None else (round(gap_mm[0], 5), round(gap_mm[1], 5), round(gap_mm[2], 5))


def _xy(vector: Array) -> tuple[float, float]:
    return round(float(vector[0]), 4), round(float(vector[1]), 4)


def _target_misfits(task: PairTask, homography: Array) -> Array:
    """Return how far a homography puts every target from where it was followed to, ``(T, 2)`` px; NaN where unseen."""
    gt, lq = (np.reshape(anchors, (-1, 2)) for anchors in (task.gt_anchors, task.lq_anchors))
    return map_points(homography, gt) - lq


def _against_targets(task: PairTask, found: Registration) -> float | None:
    """Mean distance between where the registration and the tracks put the targets, px."""
    misfits = _target_misfits(task, found.homography)
    seen = np.isfinite(misfits).all(axis=1)
    return float(np.linalg.norm(np.mean(misfits[seen], axis=0))) if seen.any() else None


def depth_correlation(found: Registration, disparities: DisparityMap | None) -> float:
    """Tell how much the leftover shift follows the depth of the scene, 0..1."""
    rest = found.leftover
    good = rest.measured & (rest.sigma_px < MEASURABLE_SIGMA_PX)
    if disparities is None or good.sum() < 10:
        return 0.0
    disparity = disparities.at(rest.centres_px[good])
    along = rest.innovation_px[good, 0]
    if np.std(disparity) < 1e-9 or np.std(along) < 1e-9:
        return 0.0
    return float(abs(np.corrcoef(disparity, along)[0, 1]))


def _matrix(values: Array) -> Matrix3x3:
    rows = [tuple(float(v) for v in row) for row in np.asarray(values)]
    return rows[0], rows[1], rows[2]  # type: ignore[return-value]  # three rows of three


def pair_path(session: Path, kind: str, name: str) -> Path:
    """Return where a picture of a pair lies."""
    return session / PAIRS_FOLDER / kind / f"{name}.png"


def write_png(session: Path, kind: str, name: str, picture: NDArray[np.uint8]) -> str:
    """Write ``pairs/<kind>/<name>.png`` in one step and return the sha256 of its bytes.

    The bytes are made durable by whoever lists the pair.

    Args:
        session: Session folder.
        kind: ``gt``, ``lq`` or ``mask``.
        name: Pair name.
        picture: RGB ``(H, W, 3)`` or grey ``(H, W)``, uint8.
    """
    data = encode_png(picture)
    path = pair_path(session, kind, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)
    return hashlib.sha256(data).hexdigest()
