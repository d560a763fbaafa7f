"""Settings of all makers through one table."""

from __future__ import annotations

import pytest

from rig.devices.gphoto2_settings import FocusTable, nearest_choice, nearest_word, parse_choice
from rig.errors import SettingRefusedError


@pytest.mark.parametrize(
    ("choice", "value"),
    [
        ("1/200", 0.005),
        ("0.0050s", 0.005),
        ("30", 30.0),
        ("10/13", 10 / 13),
        ("f/5.6", 5.6),
        ("6400", 6400.0),
        ("1.3s", 1.3),
        ("Bulb", None),
        ("Auto", None),
        ("1/0", None),
        ("0", None),
        ("", None),
    ],
)
def test_a_choice_is_read_as_a_number_or_not_at_all(choice: str, value: float | None):
    assert parse_choice(choice) == (None if value is None else pytest.approx(value))


def test_the_nearest_choice_is_taken_within_a_sixth_of_a_stop():
    """0.0051 s lies 0.03 stops from 1/200."""
    assert nearest_choice("exposure_s", 0.0051, ["Auto", "1/160", "1/200", "1/250"]) == "1/200"


def test_apertures_count_two_stops_per_doubling():
    """f/8.49 lies 0.172 stops from f/8 and 0.168 from f/9: refused, although the number is near."""
    with pytest.raises(SettingRefusedError, match=r"no f_number of 8\.49; nearest are f/9 and f/8"):
        nearest_choice("f_number", 8.49, ["f/8", "f/9"])


def test_a_camera_in_an_automatic_mode_lists_no_numbers():
    with pytest.raises(SettingRefusedError, match="automatic mode"):
        nearest_choice("iso", 100, ["Auto"])


def test_words_are_matched_whatever_their_case():
    assert nearest_word("white_balance", "daylight", ["Automatic", "Daylight"]) == "Daylight"
    with pytest.raises(SettingRefusedError, match="it has: Automatic, Daylight"):
        nearest_word("white_balance", "moonlight", ["Automatic", "Daylight"])


def test_focus_steps_are_proportional_to_dioptres():
    """At 600 steps per dioptre 0.9 m is 1.111 D or 667 steps."""
    table = FocusTable(steps_per_dioptre=600, nearest_m=0.4)

    assert table.steps(0.9) == 667
    assert table.focus_m(667) == pytest.approx(0.9, abs=0.001)
