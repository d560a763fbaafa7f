"""Measure a rig from a session: everything that the session can tell, and for the rest what to record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np

from alignment.board_plan import LEAST_MODULE_PX, module_mm
from alignment.calibration import geometry as adj
from alignment.calibration.curve import tone_curve
from alignment.calibration.document import (
    BoardCalibration,
    Calibration,
    LensCalibration,
    Measured,
    MissingMeasurement,
    NoiseCalibration,
    RailCalibration,
    ReadoutCalibration,
    ToneCalibration,
)
from alignment.calibration.noise import measure_noise
from alignment.calibration.rail import TakePath, mean_scale, measure_bends, take_scale
from alignment.calibration.sightings import TakeSightings, sight_boards
from alignment.calibration.still_phase import StillPhase, still_phases
from alignment.calibration.store import PLAN
from alignment.calibration.tone import measure_tone
from alignment.camera_motion import typical_focal_px
from alignment.errors import DecodeError, NothingToCalibrateError
from alignment.evidence_files import versions
from alignment.markers import MarkerBoard
from alignment.photometry import ToneCurve, standard_tone_curve
from alignment.takes import TakeSource
from catalog.session_folder import BoardSpec, SessionFolder, SessionRecord

Progress = Callable[[float], object]

_USEFUL_K1_SIGMA = 0.05
_USEFUL_READOUT_SIGMA_S = 0.004
_CURVE_DOUBT = 0.02
"""Relative error of noise by a fitted tone curve: its slope is off by 1 % here and there (rendered ladders), and noise
goes with its square. Against the true curve, the electrons of ISO 100 to 6400 then come out up to 4 % other."""
_BOARDS_NEXT = "bring two boards at different depths and heights into view from all of the travel"
_READABLE_NEXT = f"bring it into view, with modules that cover {LEAST_MODULE_PX:.0f} px and more"


def calibrate_session(folder: SessionFolder, *, progress: Progress = lambda _: None) -> Calibration:
    """Measure lens, rail, shutter, tone curve and noise of a session's first camera.

    Args:
        folder: The session, best one recorded by the shipped calibration plan.
        progress: Told the share of the work done since the last call; all calls add up to 1.

    Raises:
        NothingToCalibrateError: No valid take can be decoded, or none tells anything.
        SessionFolderError: The session folder is damaged.
    """
    record = folder.record()
    sources = _sources(folder, record)
    seen = _Seen()
    for source in sources:
        seen.look(source, record)
        progress(0.9 / len(sources))
    found = _Findings(record, seen)
    calibration = found.calibration(sources)
    progress(0.1)
    if calibration.lens is None and calibration.tone is None and not calibration.noise:
        raise NothingToCalibrateError(
            f"{record.session}: tells nothing of its rig: "
            + "; ".join(f"{m.what}: {m.why}" for m in calibration.missing),
            next_step=f"rig record {PLAN} --profile {record.rig}",
        )
    return calibration


def _sources(folder: SessionFolder, record: SessionRecord) -> list[TakeSource]:
    camera, found = record.cameras[0], []
    for take in folder.valid_takes().values():
        if take.round.conditions:
            continue
        try:
            found.append(TakeSource.of(take, camera))
        except DecodeError:
            continue
    same = [
        s
        for s in found
        if (s.camera.width, s.camera.height) == (found[0].camera.width, found[0].camera.height)
    ]
    if not same:
        raise NothingToCalibrateError(
            f"{record.session}: no valid take without conditions can be read",
            next_step=f"rig record {PLAN} --profile {record.rig}",
        )
    return same


@dataclass(eq=False)
class _Seen:
    """What the takes show."""

    sightings: list[TakeSightings] = field(default_factory=list)
    phases: list[StillPhase] = field(default_factory=list)
    missing: list[MissingMeasurement] = field(default_factory=list)

    def look(self, source: TakeSource, record: SessionRecord) -> None:
        try:
            self.phases.extend(still_phases(source))
            if record.boards and not source.round.degradations and source.stops_mm is None:
                found = sight_boards(source, record.boards)
                self.sightings.extend([] if found is None else [found])
        except DecodeError as error:
            self.missing.append(
                MissingMeasurement(
                    what=f"round {source.round.name}",
                    why=error.message,
                    next_step=f"rig record --session {record.session}",
                )
            )


class _Findings:
    """Turns what was seen into numbers, and notes what is missing."""

    def __init__(self, record: SessionRecord, seen: _Seen) -> None:
        self._record, self._seen = record, seen
        self._missing = list(seen.missing)
        self._solution: adj.Solution | None = None

    def calibration(self, sources: Sequence[TakeSource]) -> Calibration:
        """Measure all."""
        camera = sources[0].camera
        self._adjust(camera.width, camera.height)
        tone, boards = self._tone(), self._boards()
        return Calibration(
            rig=self._record.rig,
            camera=self._record.cameras[0],
            session=self._record.session,
            recorded_utc_us=self._record.created_utc_us,
            width=camera.width,
            height=camera.height,
            lens=self._lens(),
            boards=boards,
            rail=self._rail(),
            readout=self._readout(),
            tone=tone,
            noise=self._noise(tone, sources[0]),
            missing=tuple(self._missing),
            warnings=(*_warnings_of(sources), *self._small_modules(boards)),
            files_sha256=tuple(h for s in sources for h in s.files_sha256),
            versions=versions(),
        )

    def _lack(self, what: str, why: str, next_step: str) -> None:
        self._missing.append(MissingMeasurement(what=what, why=why, next_step=next_step))

    def _adjust(self, width: int, height: int) -> None:
        if not self._seen.sightings:
            self._lack("lens, rail and shutter", "no clean round shows a board while it moves", _BOARDS_NEXT)
            return
        lens = self._record.lens
        focal_px = (
            typical_focal_px(width, height) if lens is None else lens.focal_mm / lens.sensor_width_mm * width
        )
        self._solution = first = self._fitted(self._seen.sightings, focal_px)
        px_per_mm = first.common[adj.FOCAL] / first.board_pose(self._seen_boards[0])[5]
        rows = _rows_of(self._seen.sightings)
        known = zip(self._seen.sightings, rows, strict=True)
        placed = [s.at_places(first.frames[r, 0], px_per_mm=float(px_per_mm)) for s, r in known]
        self._solution = self._fitted(placed, focal_px)

    def _fitted(self, sightings: Sequence[TakeSightings], focal_px: float) -> adj.Solution:
        corners = adj.Corners.of(sightings, boards=len(self._record.boards))
        return adj.adjust(corners, focal_px=focal_px)

    def _measured(self, place: int) -> Measured:
        solution = self._solution
        assert solution is not None  # noqa: S101  # asked for after an adjustment only
        count = len(solution.corners.frame)
        return Measured(value=float(solution.common[place]), sigma=solution.sigma(place), count=count)

    def _lens(self) -> LensCalibration | None:
        if self._solution is None:
            return None
        focal, k1 = self._measured(adj.FOCAL), self._measured(adj.K1)
        if k1.sigma > _USEFUL_K1_SIGMA:
            self._lack("lens distortion", "the boards cross too little of the picture", _BOARDS_NEXT)
            return None
        from_boards = self._solution.tells_focal
        if not from_boards:
            self._lack(
                "focal length",
                "boards that face the camera do not tell it; the profile's lens is kept",
                "tilt one board by 20 to 30 degrees",
            )
        return LensCalibration(
            focal_px=focal,
            focal_source="boards" if from_boards else "profile",
            principal_px=(self._measured(adj.CX), self._measured(adj.CY)),
            distortion_k1=k1,
            distortion_k2=self._measured(adj.K2) if self._solution.tells_k2 else None,
            distortion_covariance=self._solution.distortion_covariance,
        )

    def _boards(self) -> tuple[BoardCalibration, ...]:
        solution = self._solution
        if solution is None:
            return ()
        for b, spec in enumerate(self._record.boards):
            if b not in self._seen_boards:
                self._lack(f"board from {spec.first_id}", "no clean round shows it", _READABLE_NEXT)
        return tuple(_board(solution, b, self._record.boards[b]) for b in self._seen_boards)

    @property
    def _seen_boards(self) -> list[int]:
        """Numbers of the boards that any frame shows."""
        return [] if self._solution is None else np.unique(self._solution.corners.board).tolist()

    def _small_modules(self, boards: Sequence[BoardCalibration]) -> Iterator[str]:
        """Warn of the boards that were read although the picture shows them too small."""
        for b, board in zip(self._seen_boards, boards, strict=True):
            side_mm = module_mm(self._record.boards[b])
            side_px = side_mm * board.px_per_mm.value
            if side_px < LEAST_MODULE_PX:
                yield _small_module(board, side_mm=side_mm, side_px=side_px)

    def _rail(self) -> RailCalibration | None:
        if self._solution is None:
            return None
        paths = _paths(self._solution, self._seen.sightings)
        scales = [take_scale(path) for path in paths]
        known = [s for s in scales if s is not None]
        if not known:
            self._lack(
                "rail scale and bends", "no take has telemetry of a sweep", "record with the rail connected"
            )
            return RailCalibration(mm_per_mm=None)
        placed = [
            (p, (p.along_mm - s.zero_mm) / s.mm_per_mm) for p, s in zip(paths, scales, strict=True) if s
        ]
        scale = mean_scale(known, slope_sigma=max(p.slope_sigma for p in paths))
        bends = measure_bends([p for p, _ in placed], [x for _, x in placed])
        if bends is None:
            why = "turns of the camera cannot be told from shifts, or the sweeps are shorter than 30 mm"
            self._lack("straightness", why, _BOARDS_NEXT)
            return RailCalibration(mm_per_mm=scale)
        return RailCalibration(mm_per_mm=scale, bends=bends.nodes, turn_scatter_deg=bends.turn_scatter_deg)

    def _readout(self) -> ReadoutCalibration | None:
        if self._solution is None:
            return None
        readout = self._measured(adj.READOUT)
        if readout.sigma > _USEFUL_READOUT_SIGMA_S:
            self._lack(
                "readout time", "the rounds move too slowly to shear the boards", "record a fast round"
            )
            return None
        return ReadoutCalibration(readout_s=readout)

    def _tone(self) -> ToneCalibration | None:
        found = measure_tone(self._seen.phases)
        if isinstance(found, MissingMeasurement):
            self._missing.append(found)
            return None
        return found

    def _noise(self, tone: ToneCalibration | None, source: TakeSource) -> tuple[NoiseCalibration, ...]:
        curve: ToneCurve = (
            standard_tone_curve(source.tag_tone_name) if tone is None else tone_curve(tone, "measured")
        )
        doubt = 0.0 if tone is None else float(np.hypot(tone.sigma[-1], _CURVE_DOUBT))
        found = tuple(measure_noise(self._seen.phases, curve, white_doubt=doubt))
        if not found:
            self._lack(
                "noise", "no standstill of at least four frames with flat patches", "record with rest_s: 1"
            )
        return found


def _warnings_of(sources: Sequence[TakeSource]) -> Iterator[str]:
    return (f"{source.round.name}: {text}" for source in sources for text in source.warnings)


def _small_module(board: BoardCalibration, *, side_mm: float, side_px: float) -> str:
    lacking = LEAST_MODULE_PX / side_px
    return (
        f"board from {board.first_id}: its modules cover {side_px:.1f} px, fewer than {LEAST_MODULE_PX:.0f}, and what"
        f" it tells may be off by more than its sigma; bring it within {board.depth_mm.value / lacking:.0f} mm, print"
        f" it with modules of {side_mm * lacking:.1f} mm instead of {side_mm:.1f}, or record pictures"
        f" {lacking:.1f} times as wide"
    )


def _board(solution: adj.Solution, board: int, spec: BoardSpec) -> BoardCalibration:
    place = adj.board_at(board)
    seen = solution.sight(board, MarkerBoard(spec).centre_mm)
    tilt = float(np.hypot(*solution.board_pose(board)[:2]))
    tilt_sigma = float(np.sqrt((solution.sigma(place) ** 2 + solution.sigma(place + 1) ** 2) / 2))
    count = int(np.count_nonzero(solution.corners.board == board))
    return BoardCalibration(
        first_id=spec.first_id,
        px_per_mm=Measured(value=seen.px_per_mm[0], sigma=seen.px_per_mm[1], count=count),
        depth_mm=Measured(value=seen.depth_mm[0], sigma=seen.depth_mm[1], count=count),
        tilt_deg=Measured(value=float(np.degrees(tilt)), sigma=float(np.degrees(tilt_sigma)), count=count),
    )


_ACROSS = [3, 4, 5, 1, 2]
"""Pitch, yaw, roll, y, z among a frame's numbers."""
_UNITS = np.array([np.degrees(1.0)] * 3 + [1.0] * 2)


def _rows_of(sightings: Sequence[TakeSightings]) -> list[slice]:
    """Find every take's frames among those of all takes."""
    bounds = accumulate((len(s.frames) for s in sightings), initial=0)
    return [slice(a, b) for a, b in pairwise(bounds)]


def _paths(solution: adj.Solution, sightings: Sequence[TakeSightings]) -> list[TakePath]:
    known = zip(sightings, _rows_of(sightings), strict=True)
    return [_path(solution, sighting, rows) for sighting, rows in known]


def _path(solution: adj.Solution, sighting: TakeSightings, rows: slice) -> TakePath:
    frames, covariance = solution.frames[rows], solution.common_covariance
    own = np.sqrt(np.einsum("fpp->fp", solution.frame_covariance[rows]))
    through = solution.through[rows] - solution.through[rows].mean(axis=0)
    shared = np.sqrt(np.maximum(np.einsum("fpg,gh,fph->fp", through, covariance, through), 0.0))
    along = frames[:, 0] - frames[:, 0].mean()
    slope = along @ through[:, 0] / max(float(along @ along), 1e-9)
    return TakePath(
        sighting.source,
        sighting.time_s,
        frames[:, 0],
        frames[:, _ACROSS] * _UNITS,
        own[:, _ACROSS] * _UNITS,
        shared[:, _ACROSS] * _UNITS,
        float(np.sqrt(max(slope @ covariance @ slope, 0.0))),
    )
