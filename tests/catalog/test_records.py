"""Degradations and their names in other people's datasets."""

from __future__ import annotations

import pytest

from catalog.records import FOUNDIR_CLASSES, degradation_key, foundir_class


def test_a_class_is_named_by_its_sorted_degradations():
    assert degradation_key(["rain", "haze", "rain"]) == "haze+rain"
    assert degradation_key([]) == "clean"


def test_foundir_has_twenty_classes_in_the_order_of_their_numbers():
    assert [int(name[:2]) for name in FOUNDIR_CLASSES] == list(range(1, 21))


@pytest.mark.parametrize(
    ("degradations", "expected"),
    [
        (["motion_blur"], "01Blur"),
        (["defocus_blur"], "01Blur"),
        (["defocus_blur", "motion_blur", "noise"], "02Blur_Noise"),
        (["rain", "low_light"], "12NightRain"),
        (["low_light", "noise", "jpeg"], "20Lowlight_Noise_JPEG"),
        (["snow"], None),
        (["gaussian_blur"], None),
        (["rain", "noise"], None),
        ([], None),
    ],
)
def test_foundir_folder_of_a_set_of_degradations(degradations: list[str], expected: str | None):
    assert foundir_class(degradations) == expected


def test_an_unknown_degradation_is_an_error():
    with pytest.raises(ValueError, match="fog"):
        degradation_key(["fog"])
