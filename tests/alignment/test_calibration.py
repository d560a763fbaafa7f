"""Calibrations: what is found is what was so, within three of its own sigmas, and what cannot be found is said."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from alignment.calibration import geometry as adj
from alignment.calibration.curve import recorded, tone_curve
from alignment.calibration.document import (
    Calibration,
    LensCalibration,
    Measured,
    NoiseCalibration,
    RailBend,
    RailCalibration,
    ReadoutCalibration,
    ToneCalibration,
)
from alignment.calibration.measure import calibrate_session
from alignment.calibration.noise import measure_noise
from alignment.calibration.rail import RailScale, mean_scale
from alignment.calibration.sightings import BoardFrame, TakeSightings, sight_boards
from alignment.calibration.still_phase import still_phases
from alignment.calibration.store import (
    find_calibration,
    keep_calibration,
    load_calibration,
    newest_calibration,
    store_calibration,
)
from alignment.camera_motion import Pinhole, jacobian, map_points, motion_matrix
from alignment.cli import app
from alignment.datum import Datum
from alignment.errors import CalibrationNotFoundError, DamagedCalibrationError, NothingToCalibrateError
from alignment.photometry import standard_tone_curve
from alignment.takes import TakeSource
from alignment.tracking import ReferenceTracks, Target, TargetTrack
from alignment.velocity import Kinematics
from benchmarks.rendered_session import LARGE_BOARDS, RenderedSession, RigTruth, planned_round, simulation
from catalog.session_folder import BoardSpec
from rig.sim.optics import Pinhole as SimulatedLens
from rig.sim.truth import read_truth

SIZE = (480, 272)
LADDER_S = (0.000625, 0.00125, 0.0025, 0.005, 0.01, 0.02)


def measured(value: float, sigma: float = 0.01) -> Measured:
    return Measured(value=value, sigma=sigma, count=10)


def some_calibration(**changes: object) -> Calibration:
    lens = LensCalibration(
        focal_px=measured(620.0),
        focal_source="profile",
        principal_px=(measured(319.5), measured(179.5)),
        distortion_k1=measured(-0.05),
        distortion_k2=measured(0.03),
    )
    given = {
        "rig": "sim",
        "camera": "main",
        "session": "one",
        "recorded_utc_us": 1_700_000_000_000_000,
        "width": 640,
        "height": 360,
        "lens": lens,
        "readout": ReadoutCalibration(readout_s=measured(0.015)),
    }
    return Calibration.model_validate(given | changes)


def test_a_stored_calibration_is_found_by_the_beginning_of_its_hash_and_is_the_same(tmp_path):
    stored = store_calibration(some_calibration(), tmp_path)

    found = find_calibration(stored.hash[:8], data=tmp_path, rig="sim")

    assert found == stored
    assert stored.path == tmp_path / "calibrations" / "sim" / f"{stored.hash}.json"


def test_the_newest_calibration_is_the_one_recorded_last_whichever_was_stored_last(tmp_path):
    last = store_calibration(some_calibration(recorded_utc_us=1_800_000_000_000_000), tmp_path)
    store_calibration(some_calibration(), tmp_path)

    assert newest_calibration(tmp_path, "sim") == last
    assert newest_calibration(tmp_path, "another-rig") is None


def test_a_calibration_of_an_older_version_keeps_its_name_where_it_is_put(tmp_path):
    """It was written before calibrations had warnings; written anew it would be another file of another name."""
    text = store_calibration(some_calibration(), tmp_path).path.read_text()
    old = tmp_path / "old.json"
    old.write_text(text.replace(' "warnings": [],\n', ""))
    assert old.read_text() != text

    kept = keep_calibration(load_calibration(old), tmp_path)

    assert kept.path.read_bytes() == old.read_bytes()
    assert find_calibration(kept.hash, data=tmp_path, rig="sim") == kept


def test_a_calibration_whose_bytes_have_changed_is_damaged(tmp_path):
    stored = store_calibration(some_calibration(), tmp_path)
    stored.path.write_text(stored.path.read_text().replace("-0.05", "-0.06"))

    with pytest.raises(DamagedCalibrationError, match="not those of the name"):
        find_calibration(stored.hash[:8], data=tmp_path, rig="sim")


def test_a_calibration_that_is_not_there_names_the_plan_that_records_one(tmp_path):
    with pytest.raises(CalibrationNotFoundError, match=r"hardware/plans/calibration\.yaml"):
        find_calibration("abcdef", data=tmp_path, rig="sim")


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> RenderedSession:
    """Standstills only: an exposure ladder and two ISO settings of a camera that codes sRGB and says BT.709."""
    truth = RigTruth(simulation(width=SIZE[0], height=SIZE[1], movie_crf=0), LARGE_BOARDS, transfer="srgb")
    rounds = [
        planned_round(1, "gt", "gt"),
        *(planned_round(2 + k, f"ladder-{k}", exposure_s=s) for k, s in enumerate(LADDER_S)),
        planned_round(8, "iso400", iso=400, exposure_s=0.00125),
        planned_round(9, "iso1600", iso=1600, exposure_s=0.0003125),
        planned_round(10, "iso6400", iso=6400, exposure_s=0.000078125),
    ]
    rig = RenderedSession(tmp_path_factory.mktemp("ladder"), rounds, truth=truth)
    for seed, round_ in enumerate(rounds[1:], start=2):
        rig.take(round_.name, seed=seed, rest_s=0.6, sweep=False)
    rig.close()
    return rig


@pytest.fixture(scope="module")
def from_ladder(ladder: RenderedSession) -> Calibration:
    return calibrate_session(ladder.folder)


def test_an_exposure_ladder_tells_the_tone_curve_whatever_the_tag_says(from_ladder: Calibration):
    """Against the median code, since the scale of light is free; by the tag alone light would be wrong by half."""
    assert from_ladder.tone is not None
    codes = np.linspace(12.0, from_ladder.tone.measured_codes[1], 60).astype(np.float32)
    true = standard_tone_curve("srgb").light(codes)

    ratio = np.log(tone_curve(from_ladder.tone, "found").light(codes) / true)
    by_tag = np.log(standard_tone_curve("bt709").light(codes) / true)

    assert np.abs(ratio - np.median(ratio)).max() < 0.02
    assert np.abs(by_tag - np.median(by_tag)).max() > 0.3
    assert from_ladder.tone.measured_codes[0] < 12
    assert from_ladder.tone.measured_codes[1] > 220


def test_standstills_tell_electrons_and_read_noise_of_every_iso(from_ladder: Calibration):
    """The well holds 8000 electrons at ISO 100, hence 2000 at 400, 500 at 1600, 125 at 6400; reading adds 4."""
    found = {noise.iso: noise for noise in from_ladder.noise}

    for iso in (400, 1600, 6400):
        electrons, read = found[iso].electrons_at_white, found[iso].read_noise_e
        assert abs(electrons.value - 8000 * 100 / iso) < 3 * electrons.sigma
        assert electrons.sigma < 0.05 * electrons.value
        assert read is not None
        assert abs(read.value - 4.0) < 3 * read.sigma
        assert read.sigma < 0.4


def test_noise_that_rounding_eats_is_not_measured(ladder: RenderedSession):
    """Of 0.35 codes² rounding made (0.56 + 1.36)/12 = 0.16; 0.19 is less than the quarter at which it merely adds."""
    take = ladder.folder.valid_takes()["iso400"]
    (phase, *_) = still_phases(TakeSource.of(take, "main"))
    faint = replace(phase, luma_variance=np.full_like(phase.luma_variance, 0.35))

    assert measure_noise([phase], standard_tone_curve("srgb"))
    assert not measure_noise([faint], standard_tone_curve("srgb"))


@pytest.mark.parametrize(("matrix", "shares"), [("bt709", 0.5619), ("smpte170m", 0.4470)])
def test_electrons_are_those_of_the_channels_whatever_luma_the_stream_mixes_of_them(
    ladder: RenderedSession, matrix: str, shares: float
):
    """Grey patches: luma varies by 0.2126² + 0.7152² + 0.0722² = 0.5619 of a channel's variance, or by
    0.299² + 0.587² + 0.114² = 0.4470: taken for the other, 2000 electrons would be 2500."""
    tone = standard_tone_curve("srgb")
    truth = NoiseCalibration(iso=400, electrons_at_white=measured(2000.0), read_noise_e=measured(4.0))
    codes, sigma = recorded(truth, tone, np.linspace(0.02, 0.8, 400))
    (phase, *_) = still_phases(TakeSource.of(ladder.folder.valid_takes()["iso400"], "main"))
    colour = phase.source.camera.colour.model_copy(update={"matrix": matrix})
    camera = phase.source.camera.model_copy(update={"colour": colour})
    rounding = (shares + (255 / 219) ** 2) / 12
    patches = replace(
        phase,
        source=replace(phase.source, camera=camera),
        mean_rgb=np.repeat(codes[:, None], 3, axis=1),
        flat=np.ones(len(codes), bool),
        luma_variance=shares * sigma**2 + rounding,
    )

    (found,) = measure_noise([patches], tone)

    assert found.electrons_at_white.value == pytest.approx(2000, rel=0.01)


def test_what_standstills_cannot_tell_is_listed_with_what_to_record(from_ladder: Calibration):
    missing = {m.what: m for m in from_ladder.missing}

    assert from_ladder.lens is None
    assert "boards" in missing["lens, rail and shutter"].next_step


def test_the_command_stores_the_calibration_and_prints_its_hash(
    ladder: RenderedSession, from_ladder: Calibration
):
    result = CliRunner().invoke(app, ["calibrate", "rendered", "--data", str(ladder.data), "--json"])

    document = json.loads(result.stdout)
    stored = find_calibration(document["hash"], data=ladder.data, rig="sim")
    assert stored.calibration == from_ladder
    assert document["calibration"]["tone"]["base"] == "bt709"


def test_a_session_without_a_readable_take_names_the_plan(tmp_path):
    truth = RigTruth(simulation(width=320, height=184), LARGE_BOARDS)
    rig = RenderedSession(tmp_path, [planned_round(1, "gt", "gt")], truth=truth)
    rig.close()

    with pytest.raises(NothingToCalibrateError, match=r"calibration\.yaml --profile sim"):
        calibrate_session(rig.folder)


@pytest.fixture(scope="module")
def small_board(tmp_path_factory: pytest.TempPathFactory) -> RenderedSession:
    """One sweep past a board at 1300 mm whose modules of 14 mm a lens of 468 px shows as 5.04 px.

    Its telemetry.csv is gone, and the session speaks of another board that nothing shows.
    """
    board = BoardSpec(columns=5, rows=3, square_mm=112, marker_mm=84)
    spec = simulation(width=SIZE[0], height=SIZE[1], board_depths_mm=(1300.0,), movie_crf=0)
    rounds = [planned_round(1, "gt", "gt", velocity_mm_s=40.0)]
    rig = RenderedSession(tmp_path_factory.mktemp("small"), rounds, truth=RigTruth(spec, (board,)))
    rig.take("gt", seed=1, rest_s=0.3)
    rig.close()
    (rig.folder.valid_takes()["gt"].folder / "telemetry.csv").unlink()
    session = json.loads((rig.folder.path / "session.json").read_text())
    session["boards"].append(session["boards"][0] | {"first_id": 20})
    (rig.folder.path / "session.json").write_text(json.dumps(session))
    return rig


@pytest.fixture(scope="module")
def told_of_small_board(small_board: RenderedSession) -> str:
    """What the command says of it; the calibration is the newest one in the data folder then."""
    return CliRunner().invoke(app, ["calibrate", "rendered", "--data", str(small_board.data)]).stderr


def calibration_of(rig: RenderedSession) -> Calibration:
    stored = newest_calibration(rig.data, "sim")
    assert stored is not None
    return stored.calibration


def test_a_board_of_small_modules_is_warned_of_with_what_would_mend_it(told_of_small_board: str):
    """6/5.04 = 1.19: as much nearer than 1300 mm, larger than 14 mm, or wider a picture."""
    (warning,) = (line for line in told_of_small_board.splitlines() if "board from 0" in line)

    assert "cover 5.0 px, fewer than 6" in warning
    assert re.search(
        r"^warning: .*within 109\d mm.* of 16\.7 mm instead of 14\.0.* 1\.2 times as wide", warning
    )


@pytest.mark.usefixtures("told_of_small_board")
def test_a_take_whose_telemetry_is_gone_is_measured_without_it(small_board: RenderedSession):
    calibration = calibration_of(small_board)

    assert [b.first_id for b in calibration.boards] == [0]
    assert calibration.rail is not None
    assert calibration.rail.mm_per_mm is None
    assert any("telemetry.csv: the file is missing" in text for text in calibration.warnings)


@pytest.mark.usefixtures("told_of_small_board")
def test_a_board_that_no_frame_shows_is_missed(small_board: RenderedSession):
    (missed,) = (m for m in calibration_of(small_board).missing if m.what == "board from 20")

    assert "6 px" in missed.next_step


def test_corners_are_found_where_they_are_wherever_that_is_between_pixels(small_board: RenderedSession):
    """By the simulator's truth: linear interpolation of sharp edges draws them by 0.025 px and leaves 0.01 px more.

    The board's sheet has a margin of half a square, 56 mm.
    """
    take = small_board.folder.valid_takes()["gt"]
    source = TakeSource.of(take, "main")
    truth = read_truth(small_board.data, source.files_sha256[0])
    (board,) = (plane for plane in truth[0].header.planes if plane.name == "board0")
    found = sight_boards(source, small_board.truth.boards)
    assert found is not None

    errors, places = [], []
    for frame in found.frames:
        index = int(np.argmin(np.abs(source.time_s - frame.time_s)))
        on_sheet = frame.plane_mm + np.min(board.outline_mm, axis=0) + 56.0
        places.append(truth[index].project(np.column_stack([on_sheet, np.full(len(on_sheet), 1300.0)])))
        errors.append(frame.image_px - places[-1])

    error, wave = np.concatenate(errors).ravel(), np.sin(2 * np.pi * np.concatenate(places).ravel())
    drawn_px = float(wave @ error / (wave @ wave))
    assert abs(drawn_px) < 0.018
    assert np.std(error - drawn_px * wave) < 0.015


def test_speeds_follow_the_places_that_an_adjustment_found(small_board: RenderedSession):
    """5 s of rest, ramps of 1 s and 200 mm at 40 mm/s, reported by a lens that shortens ways by a percent."""
    time_s = np.arange(0.0, 16.0, 0.25)
    motion = Kinematics("trapezoid", 5.0, 1.0, 4.0, 40.0, 0.0)
    frames = tuple(
        BoardFrame(float(t), np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros((0, 2))) for t in time_s
    )
    source = TakeSource.of(small_board.folder.valid_takes()["gt"], "main")
    told = TakeSightings(source, frames, np.where((time_s > 6) & (time_s < 10), 39.6, 0.0))

    placed = told.at_places(motion.position(time_s), px_per_mm=0.5)

    cruising = (time_s > 6.1) & (time_s < 9.9)
    assert placed.velocity_mm_s[cruising] == pytest.approx(40.0, rel=1e-3)
    assert placed.velocity_mm_s[time_s < 4.9] == pytest.approx(0.0, abs=1e-6)
    still = told.at_places(np.zeros_like(time_s), px_per_mm=0.5)
    assert np.array_equal(still.velocity_mm_s, told.velocity_mm_s)


# Corners projected by the simulator's own lens, not by the adjustment's: only mathematics is shared.

FOCAL_PX, K1, READOUT_S, NOISE_PX = 624.0, -0.05, 0.015, 0.02
DEPTHS_MM = (1900.0, 2700.0)
ORIGINS_MM = ((-150.0, -430.0), (-400.0, 60.0))
SPEEDS_MM_S = (0.0, 40.0, 80.0, 40.0)


def filmed_corners(
    *,
    depths_mm: tuple[float, float] = DEPTHS_MM,
    speeds_mm_s=SPEEDS_MM_S,
    k2: float = 0.0,
    grid_px: float = 0.0,
    tilt_rad: float = 0.0,
    seed: int = 5,
) -> adj.Corners:
    """Twelve frames per speed over 180 mm of travel, two boards of 5 × 4 corners, angles of 0.005 deg.

    Pixels draw corners by ``grid_px`` times the sine of their place, period one pixel. The first board is turned by
    ``tilt_rad`` about its left edge, its right edge towards the camera.
    """
    rng = np.random.default_rng(seed)
    lens = SimulatedLens(FOCAL_PX, 640, 360, K1, k2)
    grid = np.stack(np.meshgrid(np.arange(1, 6), np.arange(1, 5)), axis=-1).reshape(-1, 2) * 100.0
    frame, board, plane, image, share = [], [], [], [], []
    places = [(x, v) for v in speeds_mm_s for x in np.linspace(0.0, 180.0, 12)]
    for number, (x_mm, velocity) in enumerate(places):
        turn = rng.normal(0, 0.005, 3)
        for which, (depth, origin) in enumerate(zip(depths_mm, ORIGINS_MM, strict=True)):
            across, down = grid.T
            turn_rad = 0.0 if which else tilt_rad
            points = np.column_stack(
                [across * np.cos(turn_rad), down, depth - across * np.sin(turn_rad)]
            ) + np.array([*origin, 0.0])
            pixels = np.zeros((len(points), 2))
            for _ in range(4):  # the row decides the place, and back
                rows = (pixels[:, 1] - 179.5) / 359
                poses = np.zeros((len(points), 6))
                poses[:, 0], poses[:, 3:] = x_mm + velocity * READOUT_S * rows, turn
                pixels = lens.project(points, poses)
            frame.append(np.full(len(grid), number))
            board.append(np.full(len(grid), which))
            plane.append(grid)
            drawn = grid_px * np.sin(2 * np.pi * pixels)
            image.append(pixels + drawn + rng.normal(0, NOISE_PX, pixels.shape))
            share.append(velocity * rows)
    joined = [np.concatenate(parts) for parts in (frame, board, plane, image, share)]
    corner = np.tile(np.arange(2 * len(grid)), len(places))
    return adj.Corners((640, 360), *joined, corner, len(places), 2)


def test_lens_and_shutter_come_out_of_the_corners_within_three_sigmas():
    found = adj.adjust(filmed_corners(), focal_px=FOCAL_PX * 1.01)

    for place, true in (
        (adj.FOCAL, FOCAL_PX),
        (adj.CX, 319.5),
        (adj.CY, 179.5),
        (adj.K1, K1),
        (adj.READOUT, READOUT_S),
    ):
        assert abs(found.common[place] - true) < 3 * found.sigma(place)
    assert found.sigma(adj.K1) < 0.01
    assert found.sigma(adj.READOUT) < 0.001
    assert found.sigma_px == pytest.approx(NOISE_PX, rel=0.1)
    assert not found.tells_k2


def test_a_lens_of_two_coefficients_comes_out_of_the_corners():
    """Together they know better what the picture does than each of them for itself: hence their covariance."""
    found = adj.adjust(filmed_corners(k2=0.1), focal_px=FOCAL_PX)

    assert found.tells_k2
    for place, true in ((adj.K1, K1), (adj.K2, 0.1)):
        assert abs(found.common[place] - true) < 3 * found.sigma(place)
    assert found.distortion_covariance < -0.5 * found.sigma(adj.K1) * found.sigma(adj.K2)


def test_corners_drawn_to_the_pixels_grid_tell_the_same_and_no_focal_length():
    """0.04 px at most, 0.028 px root mean square: unnoticed, it would add to the noise of 0.02 px."""
    found = adj.adjust(filmed_corners(grid_px=0.04), focal_px=FOCAL_PX)

    for place, true in ((adj.CX, 319.5), (adj.CY, 179.5), (adj.K1, K1), (adj.READOUT, READOUT_S)):
        assert abs(found.common[place] - true) < 3 * found.sigma(place)
    assert found.sigma_px == pytest.approx(NOISE_PX, rel=0.1)
    assert not found.tells_focal


def test_boards_that_face_the_camera_leave_the_focal_length_as_uncertain_as_it_was():
    found = adj.adjust(filmed_corners(), focal_px=FOCAL_PX)

    assert found.sigma(adj.FOCAL) > 0.8 * adj.FOCAL_PRIOR * FOCAL_PX


def test_few_corners_a_frame_scatter_as_much_as_many():
    """Of 16 coordinates a frame, its pose takes six for itself: what is left looks 0.79 times as scattered."""
    corners = filmed_corners()
    few = np.isin(corners.corner % 20, (0, 4, 15, 19))
    members = ("frame", "board", "plane_mm", "image_px", "row_share_mm_s", "corner")

    found = adj.adjust(
        replace(corners, **{name: getattr(corners, name)[few] for name in members}), focal_px=FOCAL_PX
    )

    assert found.sigma_px == pytest.approx(NOISE_PX, rel=0.1)


def test_a_board_that_nothing_shows_changes_nothing():
    corners = filmed_corners()
    known = adj.adjust(corners, focal_px=FOCAL_PX)

    found = adj.adjust(replace(corners, board=corners.board + 1, boards=4), focal_px=FOCAL_PX)

    for place in range(adj.SHARED):
        assert abs(found.common[place] - known.common[place]) < 0.01 * known.sigma(place)
    assert found.board_pose(1)[5] == pytest.approx(
        known.board_pose(0)[5], abs=0.01 * known.sigma(adj.board_at(0) + 5)
    )
    assert found.sigma(adj.K1) == pytest.approx(known.sigma(adj.K1), rel=1e-4)


def test_boards_that_no_frame_shows_together_still_tell_the_lens():
    """The first two sweeps show the upper board alone, the other two the lower one."""
    corners = filmed_corners(speeds_mm_s=(40.0, 80.0, 80.0, 40.0))
    shown = corners.board == (corners.frame >= 24)
    members = ("frame", "board", "plane_mm", "image_px", "row_share_mm_s", "corner")
    apart = replace(corners, **{name: getattr(corners, name)[shown] for name in members})

    found = adj.adjust(apart, focal_px=FOCAL_PX)

    for place, true in ((adj.CX, 319.5), (adj.CY, 179.5), (adj.K1, K1), (adj.READOUT, READOUT_S)):
        assert abs(found.common[place] - true) < 3 * found.sigma(place)


def test_a_tilted_board_is_as_large_as_its_middle_and_that_is_known_best():
    """At 0.35 rad the middle, 300 mm from the left edge, is 103 mm nearer than that edge's 1900: 5.7 % larger."""
    found = adj.adjust(filmed_corners(tilt_rad=0.35), focal_px=FOCAL_PX)

    middle, edge = found.sight(0, (300.0, 250.0)), found.sight(0, (0.0, 250.0))

    depth_mm = 1900 - 300 * np.sin(0.35)
    assert abs(middle.depth_mm[0] - depth_mm) < 3 * middle.depth_mm[1]
    assert abs(middle.px_per_mm[0] - FOCAL_PX / depth_mm) < 3 * middle.px_per_mm[1]
    assert abs(edge.px_per_mm[0] - FOCAL_PX / 1900) < 3 * edge.px_per_mm[1]
    assert middle.px_per_mm[1] < 0.001 * middle.px_per_mm[0]
    assert middle.px_per_mm[1] < edge.px_per_mm[1]


def test_one_speed_alone_does_not_tell_the_shutter_from_a_board_that_hangs_askew():
    """At two speeds it does; the sigma of one speed must say that it does not know."""
    one = adj.adjust(filmed_corners(speeds_mm_s=(40.0, 40.0)), focal_px=FOCAL_PX)
    several = adj.adjust(filmed_corners(), focal_px=FOCAL_PX)

    assert one.sigma(adj.READOUT) > 3 * several.sigma(adj.READOUT)


def test_boards_at_one_depth_do_not_tell_a_turn_from_a_shift():
    """A turn of 0.05 deg moves a board at 1.9 m as 1.7 mm of rail do; both boards must move differently."""
    yaw, roomy = 4, adj.adjust(filmed_corners(), focal_px=FOCAL_PX)
    flat = adj.adjust(filmed_corners(depths_mm=(1900.0, 1900.0)), focal_px=FOCAL_PX)

    known = np.sqrt(roomy.frame_covariance[:, yaw, yaw])
    unknown = np.sqrt(flat.frame_covariance[:, yaw, yaw])
    assert np.degrees(np.median(known)) < 0.01
    assert np.median(unknown) > 2 * np.median(known)


def test_scales_that_scatter_more_than_they_claim_are_believed_less():
    """Two takes of sigma 0.001 that lie 0.02 apart know their mean to 0.01, not to 0.0007."""
    found = mean_scale([RailScale(0.99, 0.001, 0.0, 10), RailScale(-1.01, 0.001, 0.0, 10)], slope_sigma=0.0)

    assert found.value == pytest.approx(1.0)
    assert found.sigma == pytest.approx(0.01, rel=0.01)


# The calibrated lens in the estimators.

LENS = Pinhole(620.0, 640, 360, k1=-0.05, k2=0.03)


def test_rays_and_pixels_of_a_distorting_lens_are_each_others_inverse():
    points = np.array([[0.0, 0.0], [639.0, 359.0], [100.0, 200.0]])

    assert LENS.pixels(LENS.rays(points)) == pytest.approx(points, abs=1e-4)
    assert LENS.rays(points) == pytest.approx(
        SimulatedLens(620.0, 640, 360, -0.05, 0.03).rays(points)[:, :2], abs=1e-7
    )


@pytest.mark.parametrize("model", ["rotation", "scale", "homography"])
def test_the_jacobian_of_a_distorting_lens_is_the_derivative_of_what_is_seen(model):
    """Central differences of the exact mapping: undistort, move, distort."""
    points, step = np.array([[30.0, 40.0], [600.0, 330.0]]), 1e-6
    numbers = jacobian(model, LENS, points)
    flat = Pinhole(1.0, 1, 1)  # rays are its pixels

    for k in range(numbers.shape[2]):
        ends = []
        for sign in (1, -1):
            parameters = np.zeros(numbers.shape[2])
            parameters[k] = sign * step
            ends.append(LENS.pixels(map_points(motion_matrix(model, flat, parameters), LENS.rays(points))))
        assert numbers[:, :, k] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=0.05)


def test_a_turn_by_a_pixel_behind_a_distorting_lens_is_a_homography_to_a_hundredth():
    turn = np.array([0.0, 1 / 620.0, 0.0])  # one pixel in the middle
    points = np.array([[0.0, 0.0], [320.0, 180.0], [639.0, 359.0]])
    moved = LENS.pixels(map_points(motion_matrix("rotation", Pinhole(1.0, 1, 1), turn), LENS.rays(points)))

    found = map_points(motion_matrix("rotation", LENS, turn), points)

    assert np.hypot(*(found - moved).T).max() < 0.01


def path_of(position_mm, *, depth_mm: float, y_px: float, way_mm) -> TargetTrack:
    """The anchor of a thing at a height of the picture while the camera moves, behind lens and rolling shutter."""
    share = (y_px - 179.5) / 359
    ideal = 320 - 620 / depth_mm * (position_mm - 20 + way_mm * share)
    rays = (np.column_stack([ideal, np.full(len(ideal), y_px)]) - LENS.centre_px) / 620
    count = len(position_mm)
    return TargetTrack(LENS.pixels(rays), np.full(count, 0.02), np.ones(count))


def test_a_calibrated_lens_and_shutter_make_targets_at_two_heights_agree():
    """At 80 mm/s and 15 ms the carriage goes 1.2 mm from the first row to the last: boards apart would disagree."""
    position, slow, fast = np.linspace(0, 40, 30), np.full(30, 0.3), np.full(30, 1.2)
    stretch = np.linalg.svd(LENS.stretch(LENS.rays(np.array([[320.0, 60.0]])))[0], compute_uv=False)[0]
    targets = [Target("markers", px_per_mm=[620 / 2000 * stretch]), Target("markers", px_per_mm=[620 / 2600])]
    heights = ((2000.0, 60.0), (2600.0, 300.0))
    gt = [path_of(position, depth_mm=z, y_px=y, way_mm=slow) for z, y in heights]
    lq = [path_of(position, depth_mm=z, y_px=y, way_mm=fast) for z, y in heights]
    datum = Datum.of(ReferenceTracks(targets, gt, standard_tone_curve("bt709")), lens=LENS, readout_mm=slow)
    time_s = np.arange(30.0)

    told = datum.positions(lq, time_s=time_s, readout_mm=fast).position_mm
    reference = datum.positions(gt, time_s=time_s, readout_mm=slow).position_mm

    assert told == pytest.approx(reference, abs=0.02)
    untold = datum.positions(lq, time_s=time_s).position_mm
    assert np.abs(untold - reference).max() > 0.1


# The twin.


def test_the_twin_of_a_rig_has_its_lens_shutter_noise_tone_and_bends(tmp_path: Path):
    from rig.profile import RigProfile
    from rig.sim.carriage import Carriage
    from rig.sim.sensor import develop
    from rig.sim.twin import twin_of

    bends = tuple(
        RailBend(
            position_mm=x,
            pitch_deg=measured(x / 1e4),
            yaw_deg=measured(0.0),
            roll_deg=measured(0.0),
            y_mm=measured(0.0),
            z_mm=measured(0.0),
        )
        for x in (0.0, 100.0, 200.0)
    )
    tone = ToneCalibration(
        kind="movie", base="bt709", codes=(0.0, 128.0, 255.0), log_light=(np.log(0.5), np.log(0.5), 0.0),
        sigma=(0.01,) * 3, measured_codes=(6.0, 250.0), exposures_s=(0.001, 0.002), count=50,
    )  # fmt: skip
    noise = NoiseCalibration(iso=200, electrons_at_white=measured(3000.0), read_noise_e=measured(5.0))
    found = some_calibration(
        rail=RailCalibration(mm_per_mm=measured(1.0), bends=bends, turn_scatter_deg=0.0),
        tone=tone,
        noise=(noise,),
    )
    stored = store_calibration(found, tmp_path)
    profile = RigProfile.load("sim")
    assert profile.simulation is not None
    named = profile.simulation.model_copy(update={"calibration": stored.hash})

    twin = twin_of(profile.model_copy(update={"simulation": named}), data=tmp_path)

    spec = twin.simulation
    assert spec is not None
    assert (spec.distortion_k1, spec.distortion_k2) == (-0.05, 0.03)
    assert (spec.readout_s, spec.read_noise_e) == (0.015, 5.0)
    assert spec.full_well_e == 6000.0  # 3000 at ISO 200
    assert twin.lens.focal_mm / twin.lens.sensor_width_mm * 640 == pytest.approx(620.0)
    pitch = Carriage(spec, lambda t: t, seed=1).bends_deg(np.array([50.0, 100.0]))[:, 0]
    assert pitch == pytest.approx([0.005, 0.01])
    # Code 128 now stands for half the light that BT.709 means by it.
    light = np.full(
        (1, 1, 3), standard_tone_curve("bt709").light(np.array([128.0], np.float32))[0] / 2, np.float32
    )
    assert develop(light, (1.0, 1.0, 1.0), "bt709", measured=spec.tone_codes["bt709"])[
        0, 0, 0
    ] == pytest.approx(128, abs=1)


def test_a_new_session_names_the_newest_calibration_of_its_rig(tmp_path: Path):
    from rig.engine.session import SessionOrder
    from rig.plan import CapturePlan
    from rig.profile import RigProfile

    old = store_calibration(some_calibration(), tmp_path)
    new = store_calibration(some_calibration(recorded_utc_us=1_800_000_000_000_000), tmp_path)
    plan = CapturePlan.load(Path(__file__).parents[2] / "hardware" / "plans" / "calibration.yaml")
    profile = RigProfile.load("sim")

    assert SessionOrder.new(plan, profile, data=tmp_path).calibration == new.hash
    assert SessionOrder.new(plan, profile, data=tmp_path, calibration=old.hash[:10]).calibration == old.hash


def test_a_damaged_calibration_is_passed_over_with_a_warning_unless_it_is_asked_for(tmp_path: Path):
    from rig.engine.session import SessionOrder
    from rig.plan import CapturePlan
    from rig.profile import RigProfile

    old = store_calibration(some_calibration(), tmp_path)
    new = store_calibration(some_calibration(recorded_utc_us=1_800_000_000_000_000), tmp_path)
    new.path.write_text("{}")
    plan = CapturePlan.load(Path(__file__).parents[2] / "hardware" / "plans" / "calibration.yaml")
    profile = RigProfile.load("sim")

    order = SessionOrder.new(plan, profile, data=tmp_path)

    assert order.calibration == old.hash
    assert order.warnings == (f"ignored {new.path}: the bytes are not those of the name",)
    assert f"warning: {order.warnings[0]}" in order.card_lines(homed=True)
    with pytest.raises(DamagedCalibrationError, match="not those of the name"):
        SessionOrder.new(plan, profile, data=tmp_path, calibration=new.hash[:10])
    with pytest.raises(DamagedCalibrationError):
        newest_calibration(tmp_path, "sim")
