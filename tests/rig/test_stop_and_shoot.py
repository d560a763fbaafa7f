"""Stop-and-shoot rounds: stills at standstill as ground truth for movies, and the other way round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from session_checker import violations
from small_rig import run_rig, write_plan, write_profile

from alignment.pairing import align_session
from alignment.takes import TakeSource
from benchmarks.rendered_session import CLEAN, RenderedSession, planned_round
from catalog.evidence import PairRecord
from catalog.records import Degradation
from catalog.session_folder import ExposureSettings, SessionFolder, Take
from rig.live_check import LiveChecker
from rig.plan import CapturePlan
from rig.sim.truth import FrameTruth, displacement, read_truth

STOPS_MM = tuple(100.0 + 1.25 * k for k in range(33))
NOISY = ExposureSettings(iso=1600, f_number=8, exposure_s=0.0003, focus_m=2.0)


def truth_of(take: Take, index: int, data: Path) -> FrameTruth:
    camera = take.record().cameras["main"]
    path = camera.files[index] if camera.kind == "stills" else camera.files[0]
    sha256 = next(f.sha256 for f in take.record().files if f.path == path)
    return read_truth(data, sha256)[0 if camera.kind == "stills" else index]


def delivered_px(pair: PairRecord, takes: dict[str, Take], data: Path) -> float:
    """Median misalignment left in the written pixels, over a grid, by the simulator's truth."""
    gt = truth_of(takes[pair.gt.round], pair.gt.frame_index, data)
    lq = truth_of(takes[pair.lq.round], pair.lq.frame_index, data)
    x, y, width, height = pair.lq_crop
    xs, ys = np.meshgrid(np.linspace(0.05, 0.95, 7) * (width - 1), np.linspace(0.05, 0.95, 7) * (height - 1))
    in_pair = np.column_stack([xs.ravel(), ys.ravel()])
    in_gt = mapped(np.array(pair.gt_from_pair), in_pair)
    off = in_gt + displacement(gt, lq, in_gt) - (in_pair + np.array([x, y]))
    return float(np.median(np.linalg.norm(off, axis=1)))


def mapped(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    ends = np.c_[points, np.ones(len(points))] @ matrix.T
    return ends[:, :2] / ends[:, 2:]


@pytest.mark.timeout(300)
def test_stills_are_ground_truth_for_a_movie(tmp_path):
    """33 stops 1.25 mm apart at 0.33 px/mm: parallax over half a gap is 0.16 px, inside the limit of 0.25 px."""
    rounds = (
        planned_round(1, "gt", "gt", stops_mm=STOPS_MM),
        planned_round(2, "noise", "internal", settings=NOISY, degradations=(Degradation.NOISE,)),
    )
    session = RenderedSession(tmp_path, rounds)
    session.take("gt", seed=1)
    number = session.take("noise", seed=2)
    session.close()
    checker = LiveChecker(session.folder)

    reports = [checker.check("gt", 1), checker.check("noise", number)]
    alignment = align_session(session.folder, workers=1)

    assert [f for r in reports for f in r.findings if f.verdict == "spoiled"] == []
    assert [r.verdict for r in alignment.rounds] == ["used", "used"], alignment.warnings
    accepted = [p for p in session.folder.pairs() if p.verdict == "accepted"]
    assert len(accepted) >= 10, [p.reasons for p in session.folder.pairs()]
    takes = session.folder.valid_takes()
    errors = [delivered_px(p, takes, tmp_path) for p in accepted]
    assert np.median(errors) < 0.15


@pytest.mark.timeout(300)
def test_degraded_stills_pair_with_a_movie(tmp_path):
    rounds = (
        planned_round(1, "gt", "gt", velocity_mm_s=20),
        planned_round(2, "defocus", "internal", settings=CLEAN.model_copy(update={"focus_m": 1.4}),
                    stops_mm=STOPS_MM[::4], degradations=(Degradation.DEFOCUS_BLUR,)),
    )  # fmt: skip
    session = RenderedSession(tmp_path, rounds)
    session.take("gt", seed=1)
    session.take("defocus", seed=2)
    session.close()

    align_session(session.folder, workers=1)

    accepted = [p for p in session.folder.pairs() if p.verdict == "accepted"]
    assert len(accepted) >= 4, [p.reasons for p in session.folder.pairs()]
    takes = session.folder.valid_takes()
    assert np.median([delivered_px(p, takes, tmp_path) for p in accepted]) < 0.15


@pytest.mark.timeout(200)
def test_a_rig_records_stills_at_their_stops(tmp_path):
    """The sweep of 30 mm in steps of 10 mm has stops at 30, 40, 50 and 60 mm; the sixth picture is lost."""
    step, noise = {"step_mm": 10, "settle_s": 0.2}, {"set": {"iso": 6400}, "degradations": ["noise"]}
    plan = write_plan(
        tmp_path,
        guards={"on_fail": "warn"},
        rounds=[
            {"name": "gt", "role": "gt", "stop_and_shoot": step},
            {"name": "iso6400", "role": "internal", "stop_and_shoot": dict(step), **noise},
        ],
    )
    profile = write_profile(tmp_path, camera_faults={"pictures_lost": [6]})
    data = tmp_path / "data"

    done = run_rig("record", plan, "--profile", profile, "--data", data, "--json", timeout_s=180)

    assert done.returncode == 0, done.stderr
    (session,) = (data / "sessions").iterdir()
    assert violations(session, []) == []
    take = SessionFolder(session).valid_takes()["gt"]
    camera = take.record().cameras["main"]
    assert camera.kind == "stills"
    assert [Path(name).name for name in camera.files] == [f"{k:06d}.jpg" for k in range(4)]
    assert CapturePlan.load(plan).stops_mm(CapturePlan.load(plan).rounds[0]) == (30, 40, 50, 60)
    telemetry = take.telemetry()
    at_shots = [min(telemetry, key=lambda s, t=f.t_host_s: abs(s.t_host_s - t)) for f in take.frames("main")]
    assert [s.position_mm for s in at_shots] == pytest.approx([30, 40, 50, 60], abs=0.02)
    assert {s.state for s in telemetry} == {"idle"}
    _require_missing(SessionFolder(session).valid_takes()["iso6400"], stop=1)
    rows = SessionFolder(session).journal().rows
    assert [(r.get("take"), r.get("missing")) for r in rows if r.kind == "frames_lost"] == [(1, 1)]
    assert any("1 frames missing" in str(r.get("text")) for r in rows if r.kind == "warning")


def _require_missing(take: Take, *, stop: int) -> None:
    """The other stills are kept and stand for their own stops."""
    camera = take.record().cameras["main"]
    assert camera.missing_stills == (stop,)
    assert camera.dropped_frames == (stop - 1,)
    assert [Path(name).name for name in camera.files] == ["000000.jpg", "000002.jpg", "000003.jpg"]
    assert [f.pts for f in take.frames("main")] == [0, 2, 3]
    stops_mm = TakeSource.of(take, "main").stops_mm
    assert stops_mm is not None
    assert list(stops_mm) == [30, 50, 60]
