"""Choices, words, distances and error codes of gphoto2 cameras; no library, no camera."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.devices.gphoto2_errors import camera_holder, translated
from rig.devices.gphoto2_focus import FocusTable
from rig.devices.gphoto2_settings import (
    NAMES,
    PREPARATIONS,
    kelvin,
    nearest_choice,
    nearest_format,
    nearest_word,
    our_word,
    parse_choice,
    still_format,
)
from rig.errors import DeviceBusyError, DeviceError, DeviceNotFoundError, SettingRefusedError


@pytest.mark.parametrize(
    ("choice", "value"),
    [
        ("1/12500", 1 / 12500),
        ("0.0050s", 0.005),
        ("10/13", 10 / 13),
        ("30", 30.0),
        ("2.5", 2.5),
        ("f/8", 8.0),
        ("f/1.8", 1.8),
        ("6400", 6400.0),
        ("Bulb", None),
        ("Auto", None),
        ("1/0", None),
        ("0", None),
        ("", None),
        ("-1", None),
    ],
)
def test_choices_are_read_as_the_makers_print_them(choice: str, value: float | None):
    assert parse_choice(choice) == value


@pytest.mark.parametrize(
    ("name", "wanted", "choices", "chosen"),
    [
        ("exposure_s", 0.00008, ["1/8000", "1/10000", "1/12500", "Bulb"], "1/12500"),
        ("exposure_s", 0.005, ["0.0062s", "0.0050s", "0.0040s"], "0.0050s"),
        ("f_number", 8, ["7.1", "8", "9"], "8"),
        ("f_number", 8, ["f/7.1", "f/8", "f/9"], "f/8"),
        ("iso", 6400, ["Auto", "5000", "6400", "8000"], "6400"),
    ],
)
def test_the_nearest_choice_is_taken(name: str, wanted: float, choices: list[str], chosen: str):
    assert nearest_choice(name, wanted, choices) == chosen


@pytest.mark.parametrize(
    ("name", "wanted", "choices"),
    [
        ("iso", 140, ["100", "200"]),  # log2(140/100) = 0.49 stops from the nearer one
        ("exposure_s", 1 / 12500, ["1/8000"]),  # 0.64 stops
        ("f_number", 8, ["f/9", "f/7.1"]),  # 2 log2(9/8) = 0.34 stops
    ],
)
def test_a_value_farther_than_a_sixth_of_a_stop_is_refused(name: str, wanted: float, choices: list[str]):
    with pytest.raises(SettingRefusedError, match="nearest are"):
        nearest_choice(name, wanted, choices)


def test_a_setting_without_numbers_is_in_automatic_mode():
    with pytest.raises(SettingRefusedError, match="lists no values for iso"):
        nearest_choice("iso", 100, ["Auto"])


@pytest.mark.parametrize(
    ("wanted", "choices", "chosen"),
    [
        ("daylight", ["Automatic", "Daylight"], "Daylight"),
        ("daylight", ["Auto", "Sunny"], "Sunny"),
        ("auto", ["Automatic", "Daylight"], "Automatic"),
        ("automatic", ["Auto", "Daylight"], "Auto"),
        ("Preset", ["Auto", "Preset"], "Preset"),
    ],
)
def test_a_white_balance_is_found_in_the_makers_words(wanted: str, choices: list[str], chosen: str):
    assert nearest_word("white_balance", wanted, choices) == chosen


def test_an_unknown_white_balance_is_refused_with_what_there_is():
    with pytest.raises(SettingRefusedError, match="no white_balance 'green'; it has: Auto, Daylight"):
        nearest_word("white_balance", "green", ["Auto", "Daylight"])


def test_words_of_our_own_come_back():
    assert our_word("Sunny") == "daylight"
    assert our_word("Color Temperature") == "colour temperature"


@pytest.mark.parametrize(
    ("choice", "files"),
    [
        ("NEF (Raw)", "raw"),
        ("NEF+Fine", "raw+jpeg"),
        ("JPEG Fine", "jpeg"),
        ("RAW + Large Fine JPEG", "raw+jpeg"),
        ("cRAW", "raw"),
        ("Large Fine JPEG", "jpeg"),
        ("Extra Fine", "jpeg"),
        ("TIFF (RGB)", None),
        ("Unknown 0x0012", None),
    ],
)
def test_picture_formats_are_read_as_the_makers_print_them(choice: str, files: str | None):
    assert still_format(choice) == files


@pytest.mark.parametrize(
    ("wanted", "choices", "chosen"),
    [
        ("jpeg", ["JPEG Basic", "JPEG Normal", "JPEG Fine", "NEF (Raw)"], "JPEG Fine"),
        ("jpeg", ["Small Fine JPEG", "Large Normal JPEG", "Large Fine JPEG", "RAW"], "Large Fine JPEG"),
        ("raw", ["cRAW", "RAW", "RAW + Large Fine JPEG"], "RAW"),
        ("raw+jpeg", ["NEF+Basic", "NEF+Normal", "NEF+Fine"], "NEF+Fine"),
        ("raw+jpeg", ["cRAW + Large Fine JPEG", "RAW + Small Fine JPEG", "RAW + Large Fine JPEG"], None),
    ],
)
def test_the_format_with_the_least_loss_is_taken(wanted: str, choices: list[str], chosen: str | None):
    """None stands for the last of the list."""
    assert nearest_format(wanted, choices) == (chosen or choices[-1])  # type: ignore[arg-type]


def test_a_format_that_is_not_there_is_refused_with_what_there_is():
    with pytest.raises(SettingRefusedError, match=r"no picture format 'raw'; it has: Fine, Normal"):
        nearest_format("raw", ["Fine", "Normal"])


@pytest.mark.parametrize(
    ("word", "temperature_k"), [("5600 K", 5600), ("3200K", 3200), ("daylight", None), ("K", None)]
)
def test_a_white_balance_in_kelvin_is_one_with_four_digits(word: str, temperature_k: int | None):
    assert kelvin(word) == temperature_k


@pytest.mark.parametrize(
    ("what", "choices", "chosen"),
    [
        ("exposure is manual", ["P", "A", "S", "M"], "M"),
        ("exposure is manual", ["AV", "Manual", "Bulb"], "Manual"),
        ("exposure is manual", ["Movie", "Macro"], None),
        ("files go to the card", ["Internal RAM", "Memory card"], "Memory card"),
        ("files go to the card", ["sdram", "card", "card+sdram"], "card"),
        ("focus is manual", ["AF-S", "Manual"], "Manual"),
        ("focus is manual", ["One Shot", "MF (fixed)"], "MF (fixed)"),
        ("one picture at a time", ["Burst", "Single Shot"], "Single Shot"),
    ],
)
def test_what_must_be_so_is_found_in_the_makers_words(what: str, choices: list[str], chosen: str | None):
    preparation = next(p for p in PREPARATIONS if p.what == what)

    assert preparation.best_of(choices) == chosen
    assert chosen is None or preparation.is_met_by(chosen)


@pytest.mark.parametrize(
    ("maker", "entries"),
    [
        ("Nikon", "iso f-number shutterspeed2 whitebalance focusmode manualfocusdrive expprogram imagequality "
                  "capturemode burstnumber viewfinder bulb capturetarget batterylevel datetime"),
        ("Canon EOS", "iso aperture shutterspeed whitebalance colortemperature focusmode manualfocusdrive "
                      "autoexposuremode imageformat drivemode viewfinder bulb capturetarget batterylevel datetimeutc"),
        ("Sony", "iso f-number shutterspeed whitebalance colortemperature focusmode manualfocus expprogram "
                 "imagequality capturemode capturetarget batterylevel"),
        ("Fuji", "iso aperture shutterspeed whitebalance colortemperature focusmode manualfocusdrive expprogram "
                 "imageformat capturemode batterylevel"),
    ],
)  # fmt: skip
def test_the_table_knows_every_entry_of_every_maker(maker: str, entries: str):
    known = {entry for names in NAMES.values() for entry in names}

    assert set(entries.split()) <= known, maker


@given(st.floats(min_value=0.5, max_value=1000))
def test_a_distance_survives_its_steps_to_half_a_step(focus_m: float):
    """Half a step of 1/600 dioptre; beyond 600 m the lens stands one step from its stop."""
    table = FocusTable(steps_per_dioptre=600, nearest_m=0.4)

    back_m = table.focus_m(table.steps(focus_m))

    assert abs(1 / back_m - 1 / focus_m) <= 1 / 600 / 2 + 1e-12 or focus_m > 600


@given(st.integers(min_value=0, max_value=20000), st.integers(min_value=1, max_value=32767))
def test_strides_add_up_and_none_is_too_long(steps: int, stride: int):
    strides = FocusTable(stride_steps=stride).strides(steps)

    assert sum(strides) == steps
    assert all(0 < s <= stride for s in strides)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (-1, DeviceError),
        (-2, SettingRefusedError),
        (-52, DeviceNotFoundError),
        (-110, DeviceBusyError),
        (-999, DeviceError),
    ],
)
def test_a_code_becomes_an_error_that_says_what_next(code: int, kind: type[DeviceError]):
    error = translated("Nikon Z 6", "taking a picture", code)

    assert type(error) is kind
    assert error.message.startswith("Nikon Z 6: taking a picture failed: ")
    assert f"(code {code})" in error.message
    assert error.next_step


def test_the_librarys_own_words_come_before_ours():
    error = translated("camera", "starting the movie", -1, said=["Movie recording cannot start: Card full."])

    assert "Movie recording cannot start: Card full." in error.message


def test_a_value_that_an_eos_body_refuses_is_a_refused_setting():
    said = ["The property 'ISO Speed' / 0xd103 was not set (0x201c: PTP Invalid Device Prop Value)."]
    protected = ["The property 'Recording Destination' / 0xd1b8 was not set (0x200e: PTP Store Read Only)."]

    assert type(translated("Canon EOS R8", "setting the exposure", -1, said=said)) is SettingRefusedError
    assert type(translated("Canon EOS R8", "starting the movie", -1, said=protected)) is DeviceError


def test_the_program_that_holds_the_camera_is_named_with_what_frees_it(tmp_path: Path):
    """The kernel cuts names to 15 characters."""
    for pid, name in {"1": "init", "77": "gvfs-gphoto2-vo", "78": "bash"}.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "comm").write_text(name + "\n")
    (tmp_path / "self").mkdir()

    assert camera_holder(tmp_path) == (
        "gvfs-gphoto2-volume-monitor",
        "systemctl --user stop gvfs-gphoto2-volume-monitor.service",
    )


def test_a_claimed_camera_is_told_with_the_command_that_frees_it(tmp_path: Path):
    """A program by the name of one that is known to hold cameras; the code is the library's -53."""
    program = tmp_path / "entangle"
    program.symlink_to("/bin/cat")
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as holder:
        assert holder.stdin
        assert holder.stdout
        holder.stdin.write(b"!")
        holder.stdout.read(1)  # it bears its name only once it runs
        error = translated("Nikon Z 6", "connecting", -53)
        holder.stdin.close()

    assert isinstance(error, DeviceBusyError)
    assert "entangle holds the camera" in error.message
    assert error.next_step == "free it with: close entangle"


def test_nobody_holds_the_camera_where_no_such_program_runs(tmp_path: Path):
    assert camera_holder(tmp_path) is None
