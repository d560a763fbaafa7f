"""The words of GRBL 1.1: real-time bytes, answers, alarms and the status report, read strictly.

A line that does not match its pattern exactly is noise: on a cheap USB bridge torn and merged reports do occur,
and half a number is still a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

STATUS = b"?"
HOLD = b"!"
RESET = b"\x18"
JOG_CANCEL = b"\x85"
FEED_OVERRIDE_100 = b"\x90"
RAPID_OVERRIDE_100 = b"\x95"
TOGGLE_FLOOD = b"\xa0"
TOGGLE_MIST = b"\xa1"

CRITICAL_ALARMS = frozenset({1, 2})
"""After these the controller answers nothing at all until it is reset."""

ALARMS = {
    1: "hard limit hit; the position is lost",
    2: "the target lies outside the soft limits",
    3: "reset while moving; the position is lost",
    4: "probe was not in its initial state",
    5: "probe did not make contact",
    6: "homing was reset",
    7: "safety door opened during homing",
    8: "homing: the switch did not open on pull-off",
    9: "homing: the switch was not found",
    10: "homing: second switch of a dual axis not found",
}
ERRORS = {
    1: "letter missing",
    2: "bad number",
    3: "'$' command not recognised",
    4: "negative value",
    5: "homing is not enabled",
    6: "step pulse too short",
    7: "settings memory could not be read",
    8: "not idle",
    9: "locked by an alarm or a jog",
    10: "soft limits need homing",
    11: "line too long",
    12: "step rate too high",
    13: "safety door is open",
    14: "line too long for the settings memory",
    15: "jog leaves the travel",
    16: "jog command is invalid",
    17: "laser mode needs PWM",
    20: "unsupported command",
    22: "no feed rate",
}


class LineKind(StrEnum):
    """What a received line is."""

    OK = "ok"
    ERROR = "error"
    ALARM = "alarm"
    BANNER = "banner"
    REPORT = "report"
    INFO = "info"
    NOISE = "noise"


_KINDS = (
    (LineKind.OK, re.compile(r"ok")),
    (LineKind.ERROR, re.compile(r"error:\d{1,2}")),
    (LineKind.ALARM, re.compile(r"ALARM:\d{1,2}")),
    (LineKind.BANNER, re.compile(r"Grbl(HAL)? \d+\.\d+[ -~]*'\$'[ -~]* for help\]")),
    (LineKind.INFO, re.compile(r"\[[ -~]*\]|\$\w+=[ -~]*|>[ -~]*:(ok|error:\d+)")),
)
_COORDINATE = r"-?\d{1,5}\.\d{3,4}"
_AXES = rf"{_COORDINATE}(?:,{_COORDINATE}){{0,5}}"
_FIELD = (
    rf"Bf:(?P<blocks>\d{{1,3}}),(?P<bytes>\d{{1,5}})|FS:(?P<feed>\d{{1,6}}(?:\.\d{{1,3}})?),\d{{1,6}}(?:,\d+)?"
    rf"|F:(?P<feed_only>\d{{1,6}}(?:\.\d{{1,3}})?)|Pn:(?P<pins>[A-Z]+)|WCO:{_AXES}"
    r"|Ov:(?P<override>\d{1,3}),(?P<rapid>\d{1,3}),\d{1,3}|A:(?P<accessories>[A-Z]*)|Ln:\d{1,8}|(?!(?:MPos|WPos|Bf|FS|F|Pn|WCO|Ov|A|Ln):)[A-Z][A-Za-z]*:[\w.,:+-]*"
)
_REPORT = re.compile(
    r"<(?P<state>Idle|Run|Hold|Jog|Alarm|Door|Check|Home|Sleep|Tool)(?::(?P<sub>\d{1,2}))?"
    rf"\|MPos:(?P<axes>{_AXES})(?P<fields>(?:\|[^|<>]+)*)>"
)
_FIELD_PATTERN = re.compile(_FIELD)
_SETTING = re.compile(r"\$(?P<number>\d{1,3})=(?P<value>-?\d+(?:\.\d+)?)(?:\s*\(.*\))?")


@dataclass(frozen=True)
class StatusReport:
    """One ``<…>`` line; machine coordinates, as the controller counts its steps."""

    state: str
    sub_state: int | None
    x_mm: float
    """Machine position of the first axis, mm, zero or negative."""
    axes: int
    """How many coordinates it tells: fewer than before are those that a hole has made one of."""
    feed_mm_min: float | None = None
    free_blocks: int | None = None
    """Free places in the planner."""
    pins: str = ""
    """Letters of the inputs that are active."""
    override_percent: int | None = None
    """Feed override; only now and then in a report."""
    rapid_percent: int | None = None
    """Rapid override, together with the feed override."""
    accessories: str | None = None
    """Letters of the outputs that are on, told together with the overrides; None where nothing is told."""


def classify(line: str) -> LineKind:
    """Return what a line is; only exact matches count."""
    if line.startswith("<"):
        return LineKind.REPORT if parse_report(line) else LineKind.NOISE
    return next((kind for kind, pattern in _KINDS if pattern.fullmatch(line)), LineKind.NOISE)


def parse_report(line: str) -> StatusReport | None:
    """Read a status report; None when anything about it is not as it must be."""
    match = _REPORT.fullmatch(line)
    if match is None:
        return None
    values = _read_fields(match["fields"])
    if values is None:
        return None
    feed = values.get("feed") or values.get("feed_only")
    coordinates = match["axes"].split(",")
    return StatusReport(
        state=match["state"],
        sub_state=int(match["sub"]) if match["sub"] else None,
        x_mm=float(coordinates[0]),
        axes=len(coordinates),
        feed_mm_min=float(feed) if feed else None,
        free_blocks=int(values["blocks"]) if "blocks" in values else None,
        pins=values.get("pins", ""),
        override_percent=int(values["override"]) if "override" in values else None,
        rapid_percent=int(values["rapid"]) if "rapid" in values else None,
        accessories=values.get("accessories", "" if "override" in values else None),
    )


def _read_fields(text: str) -> dict[str, str] | None:
    """Return the named values of the fields, None when one is malformed or stands twice."""
    values: dict[str, str] = {}
    names: set[str] = set()
    for field in text.split("|")[1:]:
        match = _FIELD_PATTERN.fullmatch(field)
        name = field.partition(":")[0]
        if match is None or name in names:
            return None
        names.add(name)
        values.update({k: v for k, v in match.groupdict().items() if v is not None})
    return values


def parse_settings(lines: list[str]) -> dict[int, float]:
    """Read the lines of ``$$`` into numbers; lines of other shapes (dialects) are skipped."""
    matches = (_SETTING.fullmatch(line) for line in lines)
    return {int(m["number"]): float(m["value"]) for m in matches if m}


def number_of(line: str) -> int:
    """Return N of ``ALARM:N`` or ``error:N``."""
    return int(line.partition(":")[2])


def alarm_text(number: int) -> str:
    """Say what an alarm means."""
    return f"ALARM:{number} ({ALARMS.get(number, 'unknown alarm')})"


def error_text(number: int) -> str:
    """Say what an error number means."""
    return f"error:{number} ({ERRORS.get(number, 'G-code not accepted')})"
