"""What the first ground-truth round establishes, and what the other takes are to it.

These are the jobs that run before matching: boards and datum, tracks, and depths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from alignment.datum import Datum, mean_shift
from alignment.decode import Frame, FrameReader
from alignment.depth import StereoView, measure_depths, stereo_baselines
from alignment.errors import NoCommonStructureError
from alignment.gates import GateThresholds
from alignment.matching import Match
from alignment.motion import TakeMotion, measure_motion, picture_scale, readout_way_mm
from alignment.pair_job import single_threaded
from alignment.picture import Picture
from alignment.picture_tracks import follow_picture
from alignment.registration import Registration, register
from alignment.scene_depths import SceneDepths
from alignment.takes import TakeSource
from alignment.tracking import ReferenceTracks, TargetTrack, decode_boards, track_targets
from alignment.velocity import FIT_SCALE_PX, fit_kinematics, stop_scale
from catalog.session_folder import BoardSpec


@dataclass(frozen=True, eq=False)
class Reference:
    """The first ground-truth round and what it establishes."""

    source: TakeSource
    tracks: ReferenceTracks
    datum: Datum
    motion: TakeMotion
    warnings: tuple[str, ...]


def read_reference(source: TakeSource, boards: Sequence[BoardSpec], thresholds: GateThresholds) -> Reference:
    """Find the boards, or follow the picture, in a ground-truth round and establish the datum.

    Args:
        source: The round's take.
        boards: Boards that may be in the scene.
        thresholds: Gates on the motion.

    Raises:
        NoMotionError: Nothing moves, or not uniformly.
        DecodeError: The round cannot be decoded.
    """
    with source.open() as frames:
        return establish_reference(source, frames, boards, thresholds)


def establish_reference(
    source: TakeSource,
    reader: FrameReader,
    boards: Sequence[BoardSpec],
    thresholds: GateThresholds,
    *,
    stride: int = 1,
) -> Reference:
    """Do as `read_reference` with the frames already open.

    Args:
        source: The round's take.
        reader: Its frames.
        boards: Boards that may be in the scene.
        thresholds: Gates on the motion.
        stride: Look at every so-manieth frame only, for a quick check; at most 8.
    """
    count, tone, warnings = len(source.time_s), source.tone, []
    tracks = decode_boards(_some(reader, count, stride), count=count, boards=boards, tone=tone)
    if not tracks.targets:
        warnings.append("no board in view: positions rest on the picture itself, with lower confidence")
        tracks = follow_picture(_some(reader, count, stride), count=count, tone=tone)
    datum = _datum(source, tracks)
    if not datum.metric:
        track = datum.positions(tracks.tracks, time_s=source.time_s)
        if source.stops_mm is not None:
            scale: float | None = stop_scale(track, stops_mm=source.stops_mm)
        else:
            scale = picture_scale(source, fit_kinematics(track, fit_scale_mm=FIT_SCALE_PX))
        if scale is None:
            warnings.append("no board, telemetry or commanded speed: positions count px, not mm")
        else:
            datum = datum.scaled(scale)
    motion = measure_motion(source, tracks.tracks, datum, kind=tracks.kind, thresholds=thresholds)
    return Reference(source, tracks, datum, motion, tuple(warnings))


def _datum(source: TakeSource, tracks: ReferenceTracks) -> Datum:
    """Establish the datum; where the shutter rolls, once more with the way between the targets' rows."""
    datum = Datum.of(tracks, lens=source.lens)
    track = datum.positions(tracks.tracks, time_s=source.time_s)
    readout_mm = readout_way_mm(source, track, px_per_mm=datum.px_per_mm)
    return datum if readout_mm is None else Datum.of(tracks, lens=source.lens, readout_mm=readout_mm)


def track_take(source: TakeSource, reference: ReferenceTracks) -> list[TargetTrack]:
    """Follow the reference's targets through another take.

    Raises:
        DecodeError: The take cannot be decoded.
    """
    with single_threaded(), source.open() as frames:
        return track_frames(source, frames, reference)


def track_frames(
    source: TakeSource, reader: FrameReader, reference: ReferenceTracks, *, stride: int = 1
) -> list[TargetTrack]:
    """Do as `track_take` with the frames already open, or with every so-manieth of them."""
    count = len(source.time_s)
    return track_targets(
        _some(reader, count, stride),
        reference,
        count=count,
        tone=source.tone,
        far_apart=source.stops_mm is not None,
    )


def _some(reader: FrameReader, count: int, stride: int) -> Iterator[Frame]:
    return (frame for frame in reader.frames(0, count) if frame.index % stride == 0)


def read_depths(motion: TakeMotion, datum: Datum, focal_px: float, count: int) -> SceneDepths | None:
    """Measure the scene's depths from frames of a ground-truth round that lie a little apart."""
    frames = motion.cruise_frames(0)
    frames.sort(key=lambda f: f.position_mm)
    chosen = stereo_baselines([f.position_mm for f in frames], px_per_mm=datum.px_per_mm, count=count)
    tone = motion.source.tone
    with single_threaded(), motion.source.open() as reader:

        def views() -> Iterator[StereoView]:
            for place in chosen:
                frame, *others = (frames[i] for i in place)
                shift = mean_shift(motion.anchors_at(others[0].index), motion.anchors_at(frame.index))
                yield StereoView(
                    Picture(reader.read(frame.index).rgb(), tone=tone),
                    frame.position_mm,
                    [(Picture(reader.read(o.index).rgb(), tone=tone), o.position_mm) for o in others],
                    shift_px=np.zeros(2) if shift is None else shift,
                )

        camera = motion.source.pinhole(focal_px)
        return measure_depths(views(), camera=camera, direction=datum.direction)


def screen_pair(
    reference: TakeMotion,
    motion: TakeMotion,
    match: Match,
    gt: Picture,
    lq: Picture,
    *,
    focal_px: float,
) -> Registration | None:
    """Register one matched pair at half size; None where that fails.

    Args:
        reference: Take that offers the ground truth.
        motion: Degraded take.
        match: A frame of each.
        gt: The picture of the match's ground truth.
        lq: The picture of its degraded frame.
        focal_px: Focal length, px.
    """
    initial = np.eye(3)
    shift = mean_shift(reference.anchors_at(match.gt.index), motion.anchors_at(match.lq.index))
    initial[:2, 2] = 0.0 if shift is None else shift
    try:
        return register(
            gt,
            lq,
            camera=reference.source.pinhole(focal_px),
            initial=initial,
            finest_scale=2,
            models=("rotation", "scale"),
        )
    except NoCommonStructureError:
        return None
