"""GRBL's lines are read strictly: exact ones count, everything else is noise."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rig.devices.grbl_protocol import LineKind, StatusReport, classify, parse_report, parse_settings

FULL = "<Run|MPos:-335.620,0.000,0.000|Bf:14,128|FS:1200,0|Pn:XZ|Ov:110,100,100|A:F>"


def test_a_full_report_is_read():
    assert parse_report(FULL) == StatusReport(
        state="Run",
        sub_state=None,
        x_mm=-335.62,
        axes=3,
        feed_mm_min=1200.0,
        free_blocks=14,
        pins="XZ",
        override_percent=110,
        rapid_percent=100,
        accessories="F",
    )


@pytest.mark.parametrize(
    "line",
    [
        "<Idle|MPos:0.000,0.000,0.000>",
        "<Hold:0|MPos:-1.000,0.000,0.000|FS:0,0>",
        "<Alarm|MPos:0.000,0.000,0.000|Bf:15,128|FS:0,0|WCO:0.000,0.000,0.000>",
        "<Idle|MPos:0.000|Bf:35,1024|F:0|H:1,7|T:0|SD:0.5,a.nc>",  # other dialects: one axis, fields of their own
    ],
)
def test_reports_of_all_shapes_are_read(line: str):
    assert parse_report(line) is not None


@pytest.mark.parametrize(
    "line",
    [
        "<Run|MPos:-35..620,0.000,0.000|FS:1200,0>",
        "<Run|MPos:-335.62,0.000,0.000|FS:1200,0>",
        "<Run|MPos:-335.620,0.000,0.000|FS:12",
        "Run|MPos:-335.620,0.000,0.000|FS:1200,0>",
        "<Run|MPos:-335.620,0.000,0.000|FS:1200,0><Run|MPos:-335.620,0.000,0.000|FS:1200,0>",
        "<Run|MPos:-335.620,0.000,0.000|FS:1200,0>ok",
        "<Run|MPos:-335.620,0.000,0.000|FS:1200,0|FS:1200,0>",
        "<Rn|MPos:-335.620,0.000,0.000|FS:1200,0>",
        "<Run|MPos:,0.000,0.000|FS:1200,0>",
        "<Run|WPos:-335.620,0.000,0.000|FS:1200,0>",
        "<Run|MPos:-335.620,0.000,0.000|FS:-1,0>",
        "<>",
        "",
    ],
)
def test_torn_merged_and_foreign_reports_are_noise(line: str):
    assert parse_report(line) is None
    assert classify(line) is LineKind.NOISE


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("ok", LineKind.OK),
        ("okok", LineKind.NOISE),
        ("k", LineKind.NOISE),
        ("error:20", LineKind.ERROR),
        ("error:", LineKind.NOISE),
        ("ALARM:1", LineKind.ALARM),
        ("ALARM:1ok", LineKind.NOISE),
        ("Grbl 1.1h ['$' for help]", LineKind.BANNER),
        ("GrblHAL 1.1f ['$' or '$HELP' for help]", LineKind.BANNER),
        ("Grbl 3.7 [FluidNC v3.7.8 (wifi) '$' for help]", LineKind.BANNER),
        ("[MSG:Reset to continue]", LineKind.INFO),
        ("[GC:G0 G54]", LineKind.INFO),
        ("$100=50.000", LineKind.INFO),
        (">G21:ok", LineKind.INFO),
        (FULL, LineKind.REPORT),
    ],
)
def test_lines_are_told_apart(line: str, kind: LineKind):
    assert classify(line) is kind


@given(st.text())
def test_any_text_is_classified_without_an_error(text: str):
    assert classify(text) in LineKind


@given(st.integers(0, len(FULL) - 1), st.integers(1, 20))
@example(14, 5)  # <Run|MPos:-3350.000,0.000|…
def test_a_report_with_a_hole_never_yields_more_than_fewer_digits_or_axes(start: int, length: int):
    """Lost bytes spoil the report, shorten a number, or make one of two, which leaves an axis too few.

    The link notices the last; a position that is plausible is left to the driver.
    """
    report = parse_report(FULL[:start] + FULL[start + length :])

    assert report is None or report.axes < 3 or len(f"{report.x_mm:.3f}") <= len("-335.620")


def test_settings_are_read_with_or_without_their_descriptions():
    lines = ["$10=3", "$110=7200.000", "$120=200.000 (x accel, mm/sec^2)", "[MSG:INFO: hello]", "$N0="]

    assert parse_settings(lines) == {10: 3.0, 110: 7200.0, 120: 200.0}
