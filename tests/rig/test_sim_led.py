"""The sync LED of the simulated rig: switched by the controller's output, seen by the camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from small_rig import run_rig, write_plan, write_profile

from alignment.clock_tie import flashes_of
from alignment.takes import TakeSource
from catalog.session_folder import SessionFolder
from rig.errors import DeviceError
from rig.sim.grbl import BOOT_S, GrblController
from rig.sim.led import PLACE, OutputLog, add_led
from rig.sim.truth import read_truth

TOGGLE_FLOOD = b"\xa0"


@pytest.mark.parametrize(
    ("begin_s", "end_s", "share"),
    [(0.0, 1.0, 0.0), (1.0, 2.0, 0.5), (1.5, 1.9, 1.0), (0.0, 4.0, 0.375), (2.5, 3.0, 0.0), (9.0, 10.0, 1.0)],
)
def test_an_exposure_sees_the_share_in_which_the_output_was_on(begin_s: float, end_s: float, share: float):
    """On from 1.5 to 2.5 and from 3.5 on: of 0 to 4 that is 1.5 of 4."""
    log = OutputLog()
    for t_s, on in [(0.5, False), (1.5, True), (1.6, True), (2.5, False), (3.5, True)]:
        log.note(t_s, on=on)

    assert log.share(begin_s, end_s) == pytest.approx(share)


def test_the_controllers_output_is_on_between_its_bytes_and_off_after_a_reset():
    """Unlocked first: a locked controller switches nothing. A byte takes 87 µs; a reset switches every output off."""
    controller = GrblController()
    flood = controller.output_log("flood")

    for data, t_s in [
        (b"$X\n", 1.0),
        (TOGGLE_FLOOD, 5.0),
        (TOGGLE_FLOOD, 6.0),
        (TOGGLE_FLOOD, 7.0),
        (b"\x18", 8.0),
    ]:
        controller.receive(data, BOOT_S + t_s)
    controller.advance(BOOT_S + 9.0)

    shares = [flood.share(BOOT_S + t_s, BOOT_S + t_s + 1) for t_s in (4.0, 5.0, 6.0, 7.0, 8.0)]
    assert shares == pytest.approx([0, 1, 0, 1, 0], abs=0.01)


def test_an_output_that_is_not_there_is_named():
    with pytest.raises(DeviceError, match="no output 'steam'"):
        GrblController().output_log("steam")


def test_half_an_exposure_gives_half_the_light_and_leaves_the_rest_of_the_picture():
    dark, half, full = (add_led(np.zeros((90, 160, 3), np.float32), share) for share in (0.0, 0.5, 1.0))

    row, column = round(PLACE[1] * 90), round(PLACE[0] * 160)
    assert not dark.any()
    assert full[row, column, 1] == pytest.approx(2 * half[row, column, 1])
    assert np.array_equal(np.unique(np.nonzero(full.sum(axis=2))[1] // 80), [1])


@pytest.mark.timeout(200)
def test_a_rig_flashes_at_both_ends_of_the_uniform_part_and_the_movie_shows_it(tmp_path: Path):
    """In real time; a busy machine switches late, by half a second at most."""
    profile = write_profile(tmp_path, rate=1, frame_rate_hz=30)
    document = yaml.safe_load(profile.read_text())
    profile.write_text(yaml.safe_dump({**document, "sync_led": "flood"}))
    plan = write_plan(tmp_path, rounds=[{"name": "gt", "role": "gt", "velocity_mm_s": 30}])

    done = run_rig("record", plan, "--profile", profile, "--data", tmp_path / "data", timeout_s=180)

    assert done.returncode == 0, done.stderr
    (session,) = (tmp_path / "data" / "sessions").iterdir()
    folder = SessionFolder(session)
    take = folder.valid_takes()["gt"]
    begin, end = flashes_of(folder, take)
    assert 0.5 < end.lit_s - begin.lit_s < 3.0  # 30 mm at 30 mm/s
    lit_s = exposed_while_lit_s(TakeSource.of(take, "main"), tmp_path / "data")
    assert all(any(f.lit_s - 0.05 < t < f.dark_s + 0.5 for f in (begin, end)) for t in lit_s)
    assert min(lit_s) < end.lit_s <= max(lit_s) + 0.05


def exposed_while_lit_s(source: TakeSource, data: Path) -> list[float]:
    """Session times of the frames in which the LED is bright, by the simulator's own account."""
    sha256 = next(h for h in source.files_sha256 if (data / "sim-truth" / f"{h}.jsonl").is_file())
    truth = read_truth(data, sha256)
    with source.open() as reader:
        greys = [reader.read(k).grey() for k in range(reader.frame_count)]
    height, width = greys[0].shape
    row, column = int(PLACE[1] * height), int(PLACE[0] * width)
    light = np.array([g[row - 1 : row + 2, column - 1 : column + 2].mean() for g in greys])
    return [truth[k].row.t_mid_s for k in np.flatnonzero(light > np.median(light) + 60)]
