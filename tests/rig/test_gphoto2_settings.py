"""Choices, words, distances and error codes of gphoto2 cameras; no library, no camera."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.devices.gphoto2_errors import camera_holder, translated
from rig.devices.gphoto2_focus import FocusTable
from rig.devices.gphoto2_settings import nearest_choice, nearest_word, our_word, parse_choice
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

    assert type(translated("Canon EOS R8", "setting the exposure", -1, said=said)) is SettingRefusedError


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


def test_nobody_holds_the_camera_where_no_such_program_runs(tmp_path: Path):
    assert camera_holder(tmp_path) is None
