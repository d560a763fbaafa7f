"""Whole sessions, from movie files to pairs, against a world whose geometry is one line of arithmetic."""

from __future__ import annotations

import csv
import json
import re
import shutil
from concurrent.futures import Future
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from alignment.camera_motion import grid_points, map_points
from alignment.cli import app
from alignment.errors import DecodeError, NothingToAlignError
from alignment.pairing import align_session
from alignment.takes import TakeSource
from catalog.evidence import AlignmentRecord, PairRecord
from catalog.executors import InlineExecutor
from catalog.session_folder import SessionFolder, file_sha256

pytestmark = pytest.mark.timeout(150)  # whole sessions, filmed first; 12 s on an idle core
OUTPUTS = ("pairs.jsonl", "alignment.json", "pairs")


@pytest.fixture(scope="module")
def aligned(bench) -> AlignmentRecord:
    return align_session(SessionFolder(bench.path), workers=1)


@pytest.fixture(scope="module")
def pairs(bench, aligned) -> list[PairRecord]:
    return SessionFolder(bench.path).pairs()


def copy_of(bench, target: Path) -> Path:
    shutil.copytree(bench.path, target, ignore=shutil.ignore_patterns(*OUTPUTS))
    return target


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def delivered_px(bench, pair: PairRecord) -> float:
    """Misalignment left in a written pair: median over a grid, by the planes' true motion."""
    gt, lq, world = bench.shots[pair.gt.round], bench.shots[pair.lq.round], bench.world
    moved_mm = lq.truth_mm[pair.lq.frame_index] - gt.truth_mm[pair.gt.frame_index]
    x, y, width, height = pair.lq_crop
    in_pair = grid_points(0, 0, width, height)
    in_gt = map_points(np.array(pair.gt_from_pair), in_pair)
    depth = np.array([depth_at(world, p, gt.truth_mm[pair.gt.frame_index]) for p in in_gt])
    turn = np.subtract(lq.angles_px, gt.angles_px)
    true_lq = in_gt + np.column_stack([-moved_mm * world.focal_px / depth, np.zeros(len(depth))]) + turn
    return float(np.median(np.hypot(*(true_lq - in_pair - (x, y)).T)))


def depth_at(world, point_px, rail_mm: float) -> float:
    depth = 0.0
    for plane in world.planes:  # farthest first, except that the nearest one is drawn last
        u, v = world.pixel(plane.x_mm, plane.y_mm, plane.depth_mm, rail_mm)
        scale = world.focal_px / plane.depth_mm
        if (
            abs(point_px[0] - u) < plane.width_mm * scale / 2
            and abs(point_px[1] - v) < plane.height_mm * scale / 2
        ):
            depth = plane.depth_mm
    return depth


def test_every_round_is_paired_to_a_few_hundredths_of_a_pixel(bench, pairs):
    """Cruise of the fast rounds: (18 - 25²/150) mm / 25 mm/s = 0.553 s, 16 frames less the guards: 12 or 13."""
    for name in ("noise", "defocus"):
        kept = [p for p in pairs if p.lq.round == name and p.verdict == "accepted"]
        errors = [delivered_px(bench, p) for p in kept]

        assert len(kept) >= 11
        assert np.median(errors) <= 0.06
        assert np.percentile(errors, 95) <= 0.15


def test_motion_is_reported_as_it_was(aligned):
    motion = {m.round: m for m in aligned.rounds}

    assert motion["gt"].velocity_mm_s == pytest.approx(10.0, rel=0.01)
    assert motion["noise"].velocity_mm_s == pytest.approx(25.0, rel=0.02)
    assert motion["noise"].phases.start_s == pytest.approx(0.35, abs=0.02)
    assert motion["noise"].clock_offset_s == pytest.approx(50.4, abs=0.01)
    assert motion["defocus"].frames_tracked == motion["defocus"].frames
    assert motion["gt"].evidence == ("markers", "telemetry")


def test_the_scene_is_measured(aligned):
    """f / Z from 4000 mm to 1600 mm at f = 600 px is 0.15 to 0.375; the board at 1900 mm is at 0.316."""
    assert aligned.disparity_px_per_mm == pytest.approx((0.15, 0.375), abs=0.03)
    assert aligned.position_limit_mm == pytest.approx(0.25 / 0.225, rel=0.2)
    assert aligned.px_per_mm == pytest.approx(0.3158, rel=5e-3)
    assert (aligned.focal_px, aligned.focal_source) == (pytest.approx(600), "lens")


def test_a_round_without_a_take_is_reported_and_stops_nothing(aligned):
    (rain,) = [m for m in aligned.rounds if m.round == "rain"]

    assert (rain.verdict, rain.reasons) == ("rejected", ("no_valid_take",))


def test_what_is_listed_is_what_is_written(bench, pairs):
    folder = bench.path / "pairs"
    kept = [p for p in pairs if p.verdict == "accepted"]

    for pair in kept:
        picture = cv2.imread(str(folder / "lq" / f"{pair.pair}.png"))
        assert picture.shape == (pair.lq_crop[3], pair.lq_crop[2], 3)
        for kind in ("gt", "lq"):
            assert file_sha256(folder / kind / f"{pair.pair}.png") == getattr(pair.sha256, kind)
    assert {p.stem for p in (folder / "gt").iterdir()} == {p.pair for p in kept}
    assert not list(folder.rglob("*.part"))


def test_pairs_tell_where_their_boards_were_followed_to_and_where_registration_puts_them(pairs):
    """Boards stand still: what moves them in the picture is what the homography says."""
    kept = [p for p in pairs if p.verdict == "accepted"]
    both = [p for p in kept if len(p.targets) == 2]

    assert len(both) > len(kept) / 2
    for pair in both:
        mean = np.mean([t.misfit_px for t in pair.targets], axis=0)
        assert np.linalg.norm(mean) == pytest.approx(pair.gates["kinematics"], abs=1e-3)
        assert all(0 < t.sigma_px < 0.2 for t in pair.targets)
        left, right = sorted(t.lq_px[0] for t in pair.targets)
        assert left < 320 < right


def test_no_ground_truth_frame_serves_twice_in_a_round(pairs):
    for name in ("noise", "defocus"):
        used = [p.gt.frame_index for p in pairs if p.lq.round == name and p.verdict == "accepted"]
        assert len(used) == len(set(used))


def test_a_degraded_picture_is_cut_and_never_resampled(bench, pairs):
    """The written pixels are the decoded ones."""
    from alignment.takes import TakeSource

    pair = next(p for p in pairs if p.lq.round == "noise" and p.verdict == "accepted")
    take = SessionFolder(bench.path).valid_takes()["noise"]
    with TakeSource.of(take, "main").open() as reader:
        frame = reader.read(pair.lq.frame_index).rgb()

    x, y, width, height = pair.lq_crop
    written = cv2.cvtColor(cv2.imread(str(bench.path / "pairs/lq" / f"{pair.pair}.png")), cv2.COLOR_BGR2RGB)
    assert np.array_equal(written, frame[y : y + height, x : x + width])


def test_two_processes_write_the_same_bytes_as_one(bench, aligned, tmp_path):
    twin = copy_of(bench, tmp_path / "twin")

    align_session(SessionFolder(twin), workers=2)

    names = sorted(p.relative_to(twin) for p in twin.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(bench.path) for p in bench.path.rglob("*") if p.is_file())
    assert [n for n in names if (twin / n).read_bytes() != (bench.path / n).read_bytes()] == []


def test_a_dask_cluster_writes_the_same_bytes_as_one_process(bench, aligned, tmp_path, dask_cluster):
    twin = copy_of(bench, tmp_path / "twin")

    result = CliRunner().invoke(app, ["run", str(twin), "--dask", dask_cluster])

    assert result.exit_code == 0, result.output
    names = sorted(p.relative_to(bench.path) for p in bench.path.rglob("*") if p.is_file())
    assert [n for n in names if (twin / n).read_bytes() != (bench.path / n).read_bytes()] == []


class _Cable(InlineExecutor):
    """Is pulled when the jobs of the second round begin; counts the jobs done."""

    def __init__(self, pull_at: str | None) -> None:
        self.pairs_done: list[str] = []
        self._pull_at = pull_at

    def submit(self, fn, /, *args, **kwargs) -> Future:
        name = args[0].lq_source.round.name if fn.__name__ == "run_pair_job" else None
        if name is not None and name == self._pull_at:
            future: Future = Future()
            future.set_exception(KeyboardInterrupt())
            return future
        if name is not None:
            self.pairs_done.append(name)
        return super().submit(fn, *args, **kwargs)


def test_an_interrupted_run_goes_on_with_the_round_it_was_in(bench, aligned, tmp_path):
    twin = copy_of(bench, tmp_path / "twin")
    with pytest.raises(KeyboardInterrupt):
        align_session(SessionFolder(twin), executor=_Cable("defocus"))
    assert not (twin / "pairs.jsonl").exists()

    second = _Cable(None)
    align_session(SessionFolder(twin), executor=second)

    assert set(second.pairs_done) == {"defocus"}
    assert (twin / "pairs.jsonl").read_bytes() == (bench.path / "pairs.jsonl").read_bytes()
    assert not (twin / "pairs" / ".rounds").exists()


def test_telemetry_lens_and_commands_change_next_to_nothing(bench, pairs, tmp_path):
    """As footage made elsewhere: at least 95 % of the frame pairs are the same, homographies within 0.05 px."""
    twin = copy_of(bench, tmp_path / "twin")
    session = json.loads((twin / "session.json").read_text())
    edit(twin / "session.json", lens=None, rounds=[r | {"sweep": None} for r in session["rounds"]])
    for path in twin.glob("rounds/*/round.json"):
        edit(path, telemetry=None, round=json.loads(path.read_text())["round"] | {"sweep": None})

    alignment = align_session(SessionFolder(twin), workers=1)

    assert alignment.focal_source == "assumed"
    assert all("telemetry" not in m.evidence for m in alignment.rounds)
    other = {p.pair: p for p in SessionFolder(twin).pairs()}
    same = [p for p in pairs if p.pair in other and other[p.pair].gt.frame_index == p.gt.frame_index]
    assert len(same) >= 0.95 * len(pairs)
    points = grid_points(0, 0, 640, 360)
    differences = [
        np.hypot(
            *(
                map_points(np.array(p.homography), points)
                - map_points(np.array(other[p.pair].homography), points)
            ).T
        ).max()
        for p in same
        if p.homography and other[p.pair].homography
    ]
    assert np.percentile(differences, 95) < 0.05


def report_late(telemetry: Path, *, first_s: float) -> None:
    """Give the rail's reports later times, the first ones most, as a host that was busy reads them."""
    with telemetry.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, delay_s in zip(rows, np.linspace(first_s, 0.0, len(rows)), strict=True):
        row["t_host_s"] = f"{float(row['t_host_s']) + delay_s:.6f}"
    with telemetry.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_without_a_board_the_picture_itself_gives_the_motion(bench, tmp_path):
    """Its scale is the command's: reports of the rail that come late do not tilt it."""
    twin = copy_of(bench, tmp_path / "twin")
    edit(twin / "session.json", boards=[])
    report_late(next((twin / "rounds").glob("01-*/telemetry.csv")), first_s=0.3)

    alignment = align_session(SessionFolder(twin), workers=1)

    truth = alignment.rounds[0]
    way_mm = np.ptp(bench.shots[truth.round].truth_mm)
    assert np.ptp(truth.position_mm) == pytest.approx(way_mm, rel=0.005)
    assert {m.evidence[0] for m in alignment.rounds if m.evidence} == {"picture"}
    assert "no board in view" in alignment.warnings[0]
    kept = [p for p in SessionFolder(twin).pairs() if p.verdict == "accepted"]
    assert len(kept) >= 6
    assert all("picture" in p.evidence for p in kept)
    assert np.median([delivered_px(bench, p) for p in kept]) < 0.08


def test_a_truncated_movie_costs_its_round_only_and_lost_telemetry_not_even_that(bench, tmp_path):
    twin = copy_of(bench, tmp_path / "twin")
    movie = next(twin.glob("rounds/*-defocus.take1/main-01.mov"))
    movie.write_bytes(movie.read_bytes()[: movie.stat().st_size // 2])
    next(twin.glob("rounds/*-noise.take1/telemetry.csv")).unlink()

    alignment = align_session(SessionFolder(twin), workers=1)

    motion = {m.round: m for m in alignment.rounds}
    assert motion["noise"].evidence == ("markers",)
    assert any(
        re.match(r"noise: .*telemetry\.csv: the file is missing.*restore", w) for w in alignment.all_warnings
    )
    assert motion["defocus"].reasons == ("unreadable",)
    assert any("main-01.mov" in w and "frame" in w for w in alignment.warnings)
    assert {p.lq.round for p in SessionFolder(twin).pairs()} == {"noise"}


@pytest.mark.parametrize("table", [None, "index,pts\n0,0\n", "index,pts,time_base,t_host_s\n0,0,1/20,soon\n"])
def test_a_frame_table_that_cannot_be_read_is_an_unreadable_take(bench, tmp_path, table: str | None):
    """Its round is refused for it, as for a movie that cannot be read; the others are aligned."""
    twin = SessionFolder(copy_of(bench, tmp_path / "twin"))
    take = twin.valid_takes()["defocus"]
    path = take.folder / "main.frames.csv"
    path.unlink()
    if table is not None:
        path.write_text(table)

    with pytest.raises(DecodeError, match=r"main\.frames\.csv"):
        TakeSource.of(take, "main")


def test_a_session_without_ground_truth_is_refused(bench, tmp_path):
    twin = copy_of(bench, tmp_path / "twin")
    for path in twin.glob("rounds/01-gt.take1/main-01.mov"):
        path.write_bytes(b"nothing")

    result = CliRunner().invoke(app, ["run", str(twin), "--workers", "1"])

    assert isinstance(result.exception, NothingToAlignError)
    assert "gt: main-01.mov" in str(result.exception)
    assert not (twin / "pairs.jsonl").exists()


def test_of_several_sessions_one_that_fails_does_not_stop_the_others(bench, tmp_path):
    """Neither has a ground truth: both are tried, both are named, and the exit is that of the first."""
    twins = [copy_of(bench, tmp_path / name) for name in ("first", "second")]
    for twin in twins:
        (twin / "rounds/01-gt.take1/main-01.mov").write_bytes(b"nothing")

    result = CliRunner().invoke(app, ["run", *map(str, twins), "--workers", "1"])

    assert isinstance(result.exception, NothingToAlignError)
    assert [f"not aligned: {t.name}: " in result.stderr for t in twins] == [True, True]


def test_bad_pairs_are_refused_for_what_is_bad_about_them(film_kit, tmp_path):
    """Things over 13 % and 42 % of the picture in two rounds; a third runs at another speed than commanded."""
    builder = film_kit.SessionBuilder(tmp_path / "session")
    builder.shoot(film_kit.gt_shot())
    x, y, width, height = small = (250, 100, 200, 150)
    builder.shoot(film_kit.lq_shot("small", film_kit.Look(cover=small)))
    builder.shoot(film_kit.lq_shot("large", film_kit.Look(cover=(170, 90, 470, 206))))
    fast = film_kit.Motion(0.35, -2.0, 18.0, 25.0, acceleration_mm_s2=150.0)
    builder.shoot(film_kit.RoundShot("slip", "internal", fast))
    builder.finish()
    (slip,) = builder.path.glob("rounds/*-slip.take1/round.json")
    record = json.loads(slip.read_text())
    edit(slip, round=record["round"] | {"sweep": record["round"]["sweep"] | {"velocity_mm_s": 30.0}})

    alignment = align_session(SessionFolder(builder.path), workers=1)

    motion = {m.round: m for m in alignment.rounds}
    assert motion["slip"].reasons == ("wrong_speed",)
    found = SessionFolder(builder.path).pairs()
    masked = [p for p in found if p.lq.round == "small" and p.verdict == "accepted"]
    assert masked
    for pair in masked:
        assert pair.mask is not None
        mask = cv2.imread(str(builder.path / pair.mask), cv2.IMREAD_GRAYSCALE)
        left, top, _, _ = pair.lq_crop
        inside = mask[y + 5 - top : y + height - 5 - top, x + 5 - left : x + width - 5 - left]
        assert np.mean(inside == 0) > 0.9
    refused = [p for p in found if p.lq.round == "large"]
    assert refused
    for pair in refused:
        assert "moving_object" in pair.reasons, (pair.reasons, pair.gates)
    screened = [p for p in refused if p.homography is not None and p.lq_crop is None]
    assert len(screened) >= len(refused) / 2  # at half size, for the pair before was refused


def test_the_command_prints_a_table_of_rounds(bench, aligned, tmp_path):
    twin = copy_of(bench, tmp_path / "sessions" / "bench")

    table = CliRunner().invoke(app, ["run", "bench", "--workers", "1", "--data", str(tmp_path)])
    missing = CliRunner().invoke(app, ["run", "nowhere", "--data", str(tmp_path)])

    assert table.exit_code == 0, table.output
    lines = table.stdout.splitlines()
    assert lines[0].split() == ["round", "motion", "mm/s", "kept", "rejected", "epe", "px", "reasons"]
    assert lines[-1].startswith("rain     rejected        -      0         0       -  no_valid_take")
    assert (twin / "pairs.jsonl").is_file()
    assert missing.exception is not None


def test_two_pictures_are_measured_by_the_command(bench, pairs):
    pair = next(p for p in pairs if p.verdict == "accepted").pair
    names = [str(bench.path / "pairs" / kind / f"{pair}.png") for kind in ("gt", "lq")]

    result = CliRunner().invoke(app, ["measure", *names, "--json"])

    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["schema"] == 1
    assert found["epe_px"] < 0.06
    assert max(map(abs, found["rotation_deg"])) < 0.02
    assert found["parallax"] == "none"
    assert found["confidence"] > 0.5
    words = CliRunner().invoke(app, ["measure", *names]).stdout
    assert f"displacement  {found['epe_px']:.3f} px median" in words
    assert "nothing moves on its own" in words
    assert "trusted" in words
