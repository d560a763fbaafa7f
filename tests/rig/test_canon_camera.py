"""The real libgphoto2 and our driver against the simulated Canon EOS body over TCP."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from camera_fault_story import Phase, scene
from PIL import Image
from small_camera import START_DELAY_S, Bench, SmallRawBackend, bench, count_frames, driver, small_body
from small_rig import run_rig, write_plan, write_profile
from test_camera_faults import ALL, KINDS, ON, PHASES, README, End, during, require_end, told

from catalog.session_folder import ExposureSettings, SessionFolder
from rig.devices.gphoto2_focus import FocusMove
from rig.errors import (
    DeviceBusyError,
    DeviceError,
    DeviceTimeoutError,
    OtherDeviceError,
    SettingRefusedError,
)
from rig.sim import ptp_canon_settings as eos
from rig.sim.ptp_recorder import CameraFaults

BUSY_AT_START = End("start_movie", DeviceTimeoutError, "no answer to 'start_movie' within 5 s", "lost")
ENDED_AT_ONCE = End("start_movie", DeviceError, "the movie did not start within 2 s")
TOO_HOT = End("start_movie", DeviceError, "starting the movie failed")
EOS_ENDS: dict[str, tuple[End, End, End, End]] = {
    "is_busy": (
        BUSY_AT_START,
        BUSY_AT_START,
        End("still", DeviceBusyError, "taking a picture failed: .*Device Busy"),
        ON,
    ),
    "card_fills": (
        ENDED_AT_ONCE,
        ENDED_AT_ONCE,
        End("still", DeviceError, "no picture can be taken: Card full"),
        ON,
    ),
    "hot": (TOO_HOT, TOO_HOT, told(during(hot=True)), ON),
}
"""Where an EOS body ends elsewhere than a Nikon body: what it does not tell is found out by trying."""
FAULTS = ALL if os.environ.get("CLEANPLATE_NIGHTLY") else [("restarts", "recording"), ("hot", "recording")]
SHORT_LENS = {"focus": {"range_steps": 2000}}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One opened camera for the tests below that leave nothing behind."""
    with bench(tmp_path_factory.mktemp("card"), maker="canon", settings=SHORT_LENS) as b:
        yield b


@pytest.fixture
def plain(opened: Bench) -> Bench:
    """The camera of this file, healthy, at ISO 100, f/8, 1/200 s and daylight."""
    opened.body.body.faults = CameraFaults()
    opened.camera.configure(ExposureSettings(iso=100, f_number=8, exposure_s=0.005, white_balance="daylight"))
    return opened


def number(b: Bench, code: int) -> int:
    value = b.body.body.settings.properties[code].value
    assert isinstance(value, int)
    return value


def test_opening_names_the_body_by_its_engraved_number_and_makes_it_manual(plain: Bench):
    """The body is delivered in program P, with autofocus in live view."""
    identity, capabilities = plain.camera.identity, plain.camera.capabilities

    assert (identity.maker, identity.serial) == ("Canon Inc.", "SIM0001")
    assert number(plain, eos.EXPOSURE_MODE) == 3
    assert number(plain, eos.CONTINUOUS_AF) == 0
    assert number(plain, eos.CAPTURE_DESTINATION) == eos.TO_CARD
    assert capabilities.movie
    assert capabilities.stills
    assert capabilities.live_view
    assert capabilities.focus_drive
    assert capabilities.settable == {"iso", "f_number", "exposure_s", "white_balance", "focus_m"}


@pytest.mark.parametrize("serial", ["000SIM0001", "c000000000000000000000000SIM0001"])
def test_both_of_its_serial_numbers_find_the_body(tmp_path: Path, serial: str):
    with small_body(tmp_path, maker="canon") as (body, _, clock):
        with driver(body, clock, serial=serial) as camera:
            assert camera.identity.serial == "SIM0001"


def test_a_body_with_another_serial_number_is_not_opened(tmp_path: Path):
    with small_body(tmp_path, maker="canon") as (body, _, clock):
        with pytest.raises(OtherDeviceError, match=r"SIM0001, but 6001234"):
            with driver(body, clock, serial="6001234"):
                pass


def test_a_lens_whose_switch_stands_at_autofocus_is_not_opened(tmp_path: Path):
    """No command moves the switch; the library shows the mode as read-only."""
    with small_body(tmp_path, maker="canon", ignored=["focus_mode"]) as (body, _, clock):
        with pytest.raises(SettingRefusedError, match=r"focus is manual.*One Shot.*switch on lens"):
            with driver(body, clock):
                pass


@pytest.mark.parametrize(
    ("asked", "iso", "f_number", "exposure_s"),
    [
        (ExposureSettings(iso=6400, f_number=5.6, exposure_s=1 / 8000), 6400, 5.6, 1 / 8000),
        (ExposureSettings(iso=100, f_number=2, exposure_s=30), 100, 2.0, 30.0),
        (ExposureSettings(iso=25600, f_number=22, exposure_s=1 / 16000), 25600, 22.0, 1 / 16000),
        (ExposureSettings(iso=123, f_number=5.65, exposure_s=0.0166), 125, 5.6, 1 / 60),
    ],
)
def test_settings_reach_the_body_and_are_read_back(
    plain: Bench, asked: ExposureSettings, iso: int, f_number: float, exposure_s: float
):
    """The last row asks for values between the marked ones: 123 is 0.02 stops from 125."""
    read = plain.camera.configure(asked)

    body = plain.body.body.settings.exposure()
    assert (read.iso, read.f_number) == (body.iso, body.f_number) == (iso, f_number)
    assert read.exposure_s == body.exposure_s == pytest.approx(exposure_s, rel=1e-9)


def test_what_lies_between_its_fastest_shutters_is_refused(plain: Bench):
    """1/12500 s: 0.64 stops from 1/8000 and 0.36 from 1/16000, the electronic shutter's one step beyond."""
    with pytest.raises(SettingRefusedError, match=r"nearest are 1/16000 and 1/8000"):
        plain.camera.configure(ExposureSettings(exposure_s=1 / 12500))


@pytest.mark.parametrize(("word", "code"), [("auto", 0), ("shade", 8), ("tungsten", 3)])
def test_white_balance_is_spoken_in_our_words(plain: Bench, word: str, code: int):
    plain.camera.configure(ExposureSettings(white_balance=word))

    assert number(plain, eos.WHITE_BALANCE) == code


def test_a_colour_temperature_is_set_as_one(plain: Bench):
    read = plain.camera.configure(ExposureSettings(white_balance="3200 K"))

    assert read.white_balance == "3200 K"
    assert number(plain, eos.WHITE_BALANCE) == eos.BY_TEMPERATURE
    assert number(plain, eos.COLOUR_TEMPERATURE) == 3200
    assert plain.body.body.settings.exposure().white_balance == "tungsten"


@pytest.mark.parametrize("fault", ["refused", "ignored", "rounded"])
@pytest.mark.parametrize(
    ("name", "value"), [("iso", 6400), ("f_number", 4.0), ("exposure_s", 0.001), ("white_balance", "cloudy")]
)
def test_a_setting_that_the_body_does_not_keep_is_refused(plain: Bench, fault: str, name: str, value: object):
    plain.body.body.faults = CameraFaults.model_validate({fault: [name]})

    with pytest.raises(SettingRefusedError):
        plain.camera.configure(ExposureSettings.model_validate({name: value}))


def test_focus_is_counted_from_an_infinity_stop_that_nobody_feels(plain: Bench):
    """2 m are 300 steps: seven strides of 40, two of 8, four of 1. 50 strides of 40 reach the stop from anywhere."""
    plain.body.body.settings.focus_steps = 1800

    read = plain.camera.configure(ExposureSettings(focus_m=2.0))

    assert plain.body.body.settings.focus_steps == 300
    assert read.focus_m == pytest.approx(2.0)
    assert plain.camera.last_focus == FocusMove(2000, 300)
    assert number(plain, eos.LIVE_VIEW_OUTPUT) == 0


def test_live_view_is_a_jpeg(plain: Bench):
    assert Image.open(io.BytesIO(plain.camera.preview())).size == (64, 48)


def test_a_movie_comes_off_the_card_as_it_was_rendered(plain: Bench, tmp_path: Path):
    plain.camera.configure(ExposureSettings(iso=6400, exposure_s=0.0005))
    free_bytes = plain.camera.status().free_bytes
    requested_s = plain.camera.start_movie()
    plain.clock.sleep(0.5)
    shown = plain.camera.preview()
    (file,) = plain.camera.stop_movie()
    fetched = plain.camera.fetch(file, tmp_path / "main-01.mov")
    plain.camera.delete(file)

    settings, start_s, stop_s = plain.backend.movies[-1]
    assert settings.iso == 6400
    assert start_s > requested_s + START_DELAY_S[0]  # live view warms up before
    assert shown.startswith(b"\xff\xd8")
    assert count_frames(fetched.path) == round((stop_s - start_s) * 30)
    assert fetched.sha256 == hashlib.sha256(fetched.path.read_bytes()).hexdigest()
    assert plain.camera.status().free_bytes == free_bytes
    assert number(plain, eos.LIVE_VIEW_OUTPUT) == 0


def test_a_movie_that_does_not_start_is_noticed_before_the_carriage_moves(plain: Bench):
    plain.body.body.faults = CameraFaults(movie_never_starts=True)

    with pytest.raises(DeviceError, match="the movie did not start"):
        plain.camera.start_movie()


def test_a_movie_that_ended_by_itself_is_delivered(plain: Bench):
    plain.body.body.faults = CameraFaults(movie_ends_after_s=0.3)
    plain.backend.rendered.clear()

    plain.camera.start_movie()
    assert plain.backend.rendered.wait(10)
    (file,) = plain.camera.stop_movie()

    _, start_s, stop_s = plain.backend.movies[-1]
    assert stop_s - start_s == pytest.approx(0.3)
    assert file.size_bytes > 0


def test_a_split_movie_told_in_disorder_and_twice_comes_in_order(plain: Bench):
    """0.8 s in parts of 0.3 s, less the delay of the start: three files, one number after the other."""
    plain.body.body.faults = CameraFaults(
        movie_split_after_s=0.3, announced_twice=True, announced_in_disorder=True
    )

    files = plain.film(0.8)

    numbers = [int(f.name.removeprefix("CLN_").removesuffix(".MOV")) for f in files]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]


def test_a_setting_that_drifts_while_a_movie_runs_is_told(plain: Bench):
    """ISO 100 becomes the choice beside it."""
    plain.body.body.faults = CameraFaults(drifting=("iso",))

    plain.film(0.2)

    assert plain.camera.status().unasked_changes == ("iso was 100 and became 125",)


def test_a_busy_body_is_waited_for(plain: Bench):
    """Busy once more after each action: live view, start, stop and button."""
    plain.body.body.faults = CameraFaults(busy_answers=2)

    assert len(plain.film(0.2)) == 1
    assert len(plain.camera.capture_still()) == 1


def test_a_full_card_takes_no_movie_and_no_picture(plain: Bench):
    """An EOS body lists no reasons beforehand; its free space says it, and then its refusal."""
    plain.body.body.faults = CameraFaults(card_bytes=1_000_000)

    assert (plain.camera.status().free_bytes or 0) < 1_000_000
    with pytest.raises(DeviceError):
        plain.camera.start_movie()
    with pytest.raises(DeviceError):
        plain.camera.capture_still()


def test_a_full_card_does_not_keep_the_body_from_being_opened(tmp_path: Path):
    """The library first sends pictures to the host and waits, for ever, until the body counts free shots."""
    with bench(tmp_path, maker="canon", card_bytes=1_000_000) as b:
        assert b.camera.status().free_bytes == pytest.approx(1_000_000, abs=1024)


def test_a_battery_is_told_in_quarters(plain: Bench):
    plain.body.body.faults = CameraFaults(battery_percent=30)

    assert plain.camera.status().battery_percent == 25


def test_a_picture_is_taken_with_the_settings_and_fetched(plain: Bench, tmp_path: Path):
    plain.camera.configure(ExposureSettings(iso=400, exposure_s=0.25))
    (file,) = plain.camera.capture_still()
    fetched = plain.camera.fetch(file, tmp_path / "000000.jpg")

    assert plain.backend.stills[-1].iso == 400
    assert Image.open(io.BytesIO(fetched.path.read_bytes())).size == (320, 240)


def test_a_burst_lasts_as_long_as_it_takes(plain: Bench):
    """The button is held until enough were announced; one beyond may lie on the card, and none is returned."""
    before = len(plain.backend.stills)

    files = plain.camera.capture_burst(4)

    assert len({f.name for f in files}) == 4
    assert len(plain.backend.stills) - before >= 4
    assert number(plain, eos.DRIVE_MODE) == eos.SINGLE


def test_pictures_that_end_in_memory_are_taken_out_of_it(plain: Bench, tmp_path: Path):
    plain.body.body.faults = CameraFaults(pictures_to_memory=True)

    first, second = (plain.camera.capture_still()[0] for _ in range(2))
    fetched = [plain.camera.fetch(f, tmp_path / f"{k}.jpg").path for k, f in enumerate((first, second))]

    assert first != second
    assert [Image.open(io.BytesIO(p.read_bytes())).size for p in fetched] == [(320, 240)] * 2


def test_raw_and_jpeg_of_one_picture_share_its_number(tmp_path: Path):
    with small_body(tmp_path, maker="canon", backend=SmallRawBackend(tmp_path)) as (body, _, clock):
        with driver(body, clock, still_format="raw+jpeg") as camera:
            jpeg, raw = sorted(camera.capture_still(), key=lambda f: f.name, reverse=True)
            fetched = camera.fetch(raw, tmp_path / "000000.cr3")

            assert (jpeg.name, raw.name) == ("CLN_0001.JPG", "CLN_0001.CR3")
            assert fetched.path.read_bytes() == SmallRawBackend.RAW


def test_raw_alone_is_not_taken_for_raw_with_a_jpeg_beside_it(tmp_path: Path):
    """A body that stands at raw and JPEG: what it calls that begins with what it calls raw."""
    with small_body(tmp_path, maker="canon", backend=SmallRawBackend(tmp_path)) as (body, _, clock):
        item = body.body.settings.properties[eos.IMAGE_FORMAT]
        item.value = next(c for c in item.choices if isinstance(c, tuple) and len(c) == 2)
        with driver(body, clock, still_format="raw") as camera:
            (file,) = camera.capture_still()

            assert file.name == "CLN_0001.CR3"


@pytest.mark.parametrize("fault", ["ignored", "rounded"])
def test_a_colour_temperature_that_the_body_does_not_keep_is_refused(plain: Bench, fault: str):
    """The step beside 5600 K is 5700 K, 3 millionths of an inverse kelvin away, which nobody sees and we tell."""
    plain.body.body.faults = CameraFaults.model_validate({fault: ["colour_temperature"]})

    with pytest.raises(SettingRefusedError, match="told white_balance 5600 K and reads back"):
        plain.camera.configure(ExposureSettings(white_balance="5600 K"))


def test_a_body_that_grows_hot_says_so(tmp_path: Path):
    """The library tells that the temperature status changed and not to what; a body that was opened anew is cool."""
    with bench(tmp_path, maker="canon") as b:
        assert not b.camera.status().hot
        b.body.body.faults = CameraFaults(is_hot=True)

        assert b.camera.status().hot
        b.camera.configure(ExposureSettings(iso=400))
        assert b.camera.status().hot


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"movie_prohibit_bits": 1}, "No card"),
        ({"movie_prohibit_bits": 1 << 11}, "Card protected"),
        ({"card_bytes": 1_000_000}, "Card full"),
    ],
)
def test_what_is_wrong_with_its_card_is_told_before_anything_is_recorded(
    plain: Bench, faults: dict[str, int], reason: str
):
    """The body lists no reasons; its card and the count of pictures left tell them."""
    plain.body.body.faults = CameraFaults.model_validate(faults)

    assert plain.camera.status().movie_prohibited == reason
    with pytest.raises(DeviceError, match=f"a movie cannot be recorded: {reason}"):
        plain.camera.start_movie()
    with pytest.raises(DeviceError, match=f"no picture can be taken: {reason}"):
        plain.camera.capture_still()


def test_a_body_without_raw_files_refuses_them(tmp_path: Path):
    with small_body(tmp_path, maker="canon") as (body, _, clock):
        with pytest.raises(SettingRefusedError, match="raw"):
            with driver(body, clock, still_format="raw"):
                pass


@pytest.mark.parametrize("without", [(), (0x9125, 0x9126, 0x9151, 0x9152)])
def test_an_exposure_longer_than_listed_is_held_open_by_hand(tmp_path: Path, without: tuple[int, ...]):
    """The list is cut to half a second, so that one of a second is beyond it.

    Bodies of the R series have no operations for bulb and for live view: the button is held there, and a property set.
    """
    with small_body(tmp_path, maker="canon") as (body, backend, clock):
        for code in without:
            del body.body._operations[code]
        listed = [c for c, s in eos.SECONDS_BY_CODE.items() if s <= 0.5]
        body.body.settings.properties[eos.SHUTTER].choices = (eos.BULB, *listed)
        with driver(body, clock) as camera:
            read = camera.configure(ExposureSettings(exposure_s=1.0))
            (file,) = camera.capture_still()

            assert read.exposure_s == 1.0
            assert backend.stills[-1].exposure_s >= 1.0
            assert file.name == "CLN_0001.JPG"
            assert body.body.settings.exposure().exposure_s == 1 / 200
            assert camera.preview().startswith(b"\xff\xd8")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "phase"), FAULTS)
def test_an_eos_body_that_goes_wrong_ends_in_the_documented_state(tmp_path: Path, name: str, phase: Phase):
    """The table of `test_camera_faults`, in which `EOS_ENDS` replaces some rows."""
    ends = EOS_ENDS.get(name, KINDS[name].ends)
    with scene(tmp_path, looks_elsewhere=name == "moves", maker="canon") as s:
        story = s.play(phase, KINDS[name].spoil)

        require_end(s, name, ends[PHASES.index(phase)], story)


def test_the_readme_holds_the_rows_in_which_an_eos_body_differs():
    rows = [row.strip() for row in README.read_text(encoding="utf-8").splitlines()]

    for name, ends in EOS_ENDS.items():
        assert f"| {KINDS[name].what} | {' | '.join(map(str, ends))} |" in rows


@pytest.mark.timeout(120)
def test_a_session_is_recorded_with_an_eos_body(tmp_path: Path):
    """The same plan, drivers and engine as with a Nikon body; of the profile one word differs, and the lens."""
    profile = write_profile(tmp_path, camera_body="canon")
    document = yaml.safe_load(profile.read_text())
    document["cameras"]["main"]["focus"] = {"range_steps": 400}  # the lens wakes up 300 steps from its stop
    profile.write_text(yaml.safe_dump(document))
    base = {"iso": 200, "f_number": 5.6, "exposure_s": 0.000125, "focus_m": 2.0}
    plan = write_plan(tmp_path, base=base, rounds=[{"name": "gt", "role": "gt", "velocity_mm_s": 40}])

    done = run_rig("record", plan, "--profile", profile, "--data", tmp_path / "data", timeout_s=110)

    assert done.returncode == 0, done.stderr
    (session,) = (tmp_path / "data" / "sessions").iterdir()
    camera = SessionFolder(session).valid_takes()["gt"].record().cameras["main"]
    assert (camera.model, camera.serial) == ("Canon EOS simulated body", "SIM0001")
    assert camera.settings_read.iso == 200
    assert camera.settings_read.exposure_s == 0.000125
    assert camera.settings_read.focus_m == 2.0
    assert camera.files == ("main-01.mov",)
