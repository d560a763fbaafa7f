"""The sync LED in the frames: where it is, and when the frames were exposed by the rail's clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alignment.clock_tie import ClockTie, Flash, disagreement_s, tie_clocks, with_tie
from alignment.motion import rejected_motion
from alignment.takes import TakeSource
from catalog.session_folder import CameraTake, ColourTags, ExposureSettings, RoundRecord, SweepRecord
from rig.profile import RigProfile
from rig.sim.encoder import MovieEncoder, to_yuv420
from rig.sim.led import PLACE, OutputLog
from rig.sim.world import Shot, World

RATE_HZ = 30.0
FRAMES = 90
EXPOSURE = ExposureSettings(iso=100, f_number=8, exposure_s=0.005)
WIDTH, HEIGHT = 320, 192
STARTED_S = 100.0
"""The rail's clock when the first exposure truly begins."""
FLASHES = (Flash(100.71, 100.81), Flash(102.2, 102.3))


@pytest.fixture(scope="module")
def world() -> World:
    """In this scene nothing bright passes behind the LED; in others it does, and nothing can be told."""
    profile = RigProfile.load("sim")
    assert profile.simulation is not None
    size = {"width": WIDTH, "height": HEIGHT, "frame_rate_hz": RATE_HZ}
    return World(profile.simulation.model_copy(update=size), profile.lens, profile.boards, "a-1")


def film(
    folder: Path, world: World, *, lit: tuple[Flash, ...], exposure_s: float, told_s: float
) -> TakeSource:
    """Record a sweep at 40 mm/s with the LED lit as given; the frame table says that it began at ``told_s``."""
    led = OutputLog()
    for flash in lit:
        led.note(flash.lit_s, on=True)
        led.note(flash.dark_s, on=False)
    settings = EXPOSURE.model_copy(update={"exposure_s": exposure_s, "iso": round(0.5 / exposure_s)})
    with MovieEncoder(folder / "main-01.mov", width=WIDTH, height=HEIGHT, rate_hz=RATE_HZ, crf=10) as movie:
        for k in range(FRAMES):
            begin_s = k / RATE_HZ
            poses = np.array([[100 + 40 * t_s, 0, 0, 0, 0, 0] for t_s in (begin_s, begin_s + exposure_s)])
            share = led.share(STARTED_S + begin_s, STARTED_S + begin_s + exposure_s)
            movie.write(to_yuv420(world.render(poses, Shot(settings), frame_seed=k, lit=share)))
    return source_of(folder, settings, told_s=told_s)


def source_of(folder: Path, settings: ExposureSettings, *, told_s: float) -> TakeSource:
    camera = CameraTake(
        kind="movie", files=("main-01.mov",), frames_csv="main.frames.csv", width=WIDTH, height=HEIGHT,
        frame_count=FRAMES, measured_rate_hz=RATE_HZ, settings_read=settings,
        colour=ColourTags(matrix="bt709", range="tv", transfer="bt709", primaries="bt709"),
    )  # fmt: skip
    sweep = SweepRecord(start_mm=100, end_mm=220, velocity_mm_s=40, acceleration_mm_s2=200)
    assert settings.exposure_s
    return TakeSource(
        round=RoundRecord(number=1, name="gt", role="gt", settings=settings, sweep=sweep),
        take=1, folder=folder, camera_name="main", camera=camera,
        time_s=np.arange(FRAMES) / RATE_HZ + settings.exposure_s / 2, start_t_host_s=told_s,
        telemetry_time_s=np.array([]), telemetry_mm=np.array([]), files_sha256=(),
    )  # fmt: skip


def test_four_edges_tie_the_clocks_to_milliseconds(tmp_path: Path, world: World):
    """The camera began 0.4 s after it was told to, which nothing but the light says.

    An edge between two exposures leaves 28 ms open; of four at phases 0.3, 0.3, 0 and 0 of a frame less remains.
    """
    source = film(tmp_path, world, lit=FLASHES, exposure_s=0.005, told_s=STARTED_S - 0.4)

    tie = tie_clocks(source, FLASHES)

    assert tie is not None
    assert abs(tie.offset_s - STARTED_S) <= tie.half_width_s + 1e-3
    assert tie.half_width_s <= 0.014
    assert tie.flashes == 2
    assert np.hypot(tie.place_px[0] - PLACE[0] * WIDTH, tie.place_px[1] - PLACE[1] * HEIGHT) <= 8


def test_a_frame_that_is_lit_in_part_tells_when_exactly(tmp_path: Path, world: World):
    """Exposed for 30 of 33 ms, nearly every edge falls into an exposure: its share tells it to a millisecond."""
    source = film(tmp_path, world, lit=FLASHES, exposure_s=0.03, told_s=STARTED_S - 0.4)

    tie = tie_clocks(source, FLASHES, near_s=STARTED_S + 0.1)

    assert tie is not None
    assert tie.half_width_s <= 0.003
    assert tie.offset_s == pytest.approx(STARTED_S, abs=0.003)


def test_a_sweep_without_a_lit_led_ties_nothing(tmp_path: Path, world: World):
    source = film(tmp_path, world, lit=(), exposure_s=0.005, told_s=STARTED_S - 0.4)

    assert tie_clocks(source, FLASHES) is None
    assert tie_clocks(source, ()) is None


def test_clocks_that_disagree_are_told_by_how_much():
    """The motion says 100.050 s, the light 100.000 ± 0.010 s: 40 ms beyond what fits."""
    motion = rejected_motion("gt", take=1, camera="main", reason="").model_copy(
        update={"clock_offset_s": 100.05}
    )
    tie = ClockTie(offset_s=100.0, half_width_s=0.01, flashes=2, place_px=(300, 15))

    tied = with_tie(motion, tie)

    assert disagreement_s(tied) == pytest.approx(0.04)
    assert tied.evidence == ("sync_led",)
    assert tied.clock_offset_s == 100.05
    assert disagreement_s(motion) == 0
    assert with_tie(motion.model_copy(update={"clock_offset_s": None}), tie).clock_offset_s == 100.0
    assert with_tie(motion, None) == motion
