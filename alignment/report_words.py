"""How the report says things: numbers with sensible digits, and what a reject reason means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

NOTHING = "–"
"""Stands where a value is not known."""

_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")


def number(value: float | None, digits: int) -> str:
    """Write a value with a fixed count of decimals and a true minus sign; a dash where it is not known.

    >>> number(-0.0312, 2)
    '−0.03'
    """
    if value is None:
        return NOTHING
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def with_unit(value: float | None, digits: int, unit: str) -> str:
    """Write a value with its unit, joined by a space."""
    return NOTHING if value is None else f"{number(value, digits)} {unit}"


def exposure(seconds: float | None) -> str:
    """Write an exposure time as photographers do.

    >>> exposure(0.005)
    '1/200 s'
    """
    if seconds is None:
        return NOTHING
    if seconds >= 0.3:
        return f"{seconds:.3g} s"
    return f"1/{1 / seconds:.4g} s" if seconds > 1e-4 else f"1/{round(1 / seconds)} s"


def size(count: int) -> str:
    """Write a count of bytes in the largest fitting decimal unit.

    >>> size(1_234_567)
    '1.2 MB'
    """
    power = min(int(math.log10(max(count, 1)) / 3), len(_BYTE_UNITS) - 1)
    return f"{count / 1000**power:.{1 if power else 0}f} {_BYTE_UNITS[power]}"


def utc_time(microseconds: int) -> str:
    """Write a wall time as ISO 8601, UTC, to the second."""
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def counted(count: int, noun: str, plural: str = "") -> str:
    """Write a count with its noun.

    >>> counted(1, "pair"), counted(3, "pair")
    ('1 pair', '3 pairs')
    """
    return f"{thousands(count)} {noun if count == 1 else plural or noun + 's'}"


def thousands(count: int) -> str:
    """Write a count in groups of three digits, a thin space between them."""
    return f"{count:,}".replace(",", "\u202f")


def listed(words: Sequence[str]) -> str:
    """Join words as a sentence does.

    >>> listed(["gt", "rain", "haze"])
    'gt, rain and haze'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


@dataclass(frozen=True)
class Reason:
    """A reject reason in words."""

    title: str
    meaning: str
    advice: str


REASONS: Mapping[str, Reason] = MappingProxyType(
    {
        "not_uniform": Reason(
            "Not in uniform motion",
            "The frame was exposed while the carriage stood, sped up or slowed down.",
            "Expected at both ends of a sweep; a longer sweep gives more frames in between.",
        ),
        "marker_lost": Reason(
            "Markers lost",
            "Too few marker corners were found and the template did not match either.",
            "Check that a board stays in view and in light along the whole sweep.",
        ),
        "marker_occluded": Reason(
            "Markers covered",
            "Something stood in front of the board.",
            "Keep the line of sight between camera and board free, or add a second board.",
        ),
        "position_gap": Reason(
            "Too far apart along the rail",
            "The nearest ground-truth frame lies beyond the parallax limit, and no homography repairs parallax.",
            "Run the ground truth slower, or record several ground-truth rounds.",
        ),
        "low_overlap": Reason(
            "Too little in common",
            "The two frames share less than nine tenths of the view.",
            "Check that the camera was not turned between the rounds.",
        ),
        "low_information": Reason(
            "Too little to measure by",
            "The predicted error is larger than allowed: too dark, too noisy or too little texture.",
            "More light or more structure in the scene; a shorter blur.",
        ),
        "inconsistent": Reason(
            "Picture and rail disagree",
            "Registration found another shift than the positions along the rail foretell.",
            "Look for a repeating texture, a moved board or a slipped carriage.",
        ),
        "unstable": Reason(
            "Not the same both ways",
            "Registering A on B and B on A did not cancel out.",
            "Usually too little structure; see the predicted error of the neighbours.",
        ),
        "disagree": Reason(
            "Two halves disagree",
            "Two interleaved halves of the picture gave different alignments.",
            "Look for motion in the scene or for strong local blur.",
        ),
        "parallax": Reason(
            "Parallax left over",
            "What is left changes smoothly with depth: the camera stood at another place.",
            "Denser ground truth; check the mount and the carriage for play.",
        ),
        "moving_object": Reason(
            "Something moved",
            "A compact part of the picture moved by itself between the rounds.",
            "Keep people and loose things out of the scene.",
        ),
        "rig_disturbed": Reason(
            "Camera turned",
            "The camera's angle changed by more than a tenth of a degree.",
            "Tighten the mount; retake the round.",
        ),
        "bad_content": Reason(
            "Content does not match",
            "After matching blur the two frames still look different.",
            "Check that both rounds show the same scene.",
        ),
        "exposure": Reason(
            "Clipped or unsteady light",
            "Too much of the picture is clipped, or the light changed within the round.",
            "Lower the exposure; use steady lamps.",
        ),
        "no_structure": Reason(
            "Nothing to register by",
            "Registration found no structure that both frames share.",
            "More light or more structure in the scene.",
        ),
        "light_drift": Reason(
            "The light changed",
            "A closing ground truth is brighter or darker than the first one.",
            "Use steady lamps and keep daylight out; retake what was recorded in between.",
        ),
        "wrong_speed": Reason(
            "Not the commanded speed",
            "The carriage ran faster or slower than it was told to.",
            "Check the steps per mm and the load on the carriage.",
        ),
        "stick_slip": Reason(
            "Stick-slip",
            "The carriage stuck and slipped instead of gliding.",
            "Clean and oil the rail; run a little faster.",
        ),
        "lost_way": Reason(
            "Way was lost",
            "The boards show a sudden step or stall that the rail does not know of: lost steps.",
            "Home the rail; lower speed or acceleration, look for what blocks the carriage.",
        ),
        "no_valid_take": Reason(
            "No valid take", "The round was not recorded to its end.", "Resume the session."
        ),
        "no_motion": Reason(
            "No uniform motion",
            "No stretch of uniform motion could be made out.",
            "Check that the camera filmed the whole sweep.",
        ),
        "unreadable": Reason(
            "Not decodable", "The take's files cannot be decoded to their end.", "Retake the round."
        ),
        "no_target": Reason(
            "Nothing to follow",
            "Neither the boards nor the picture could be followed through the take.",
            "Bring a board into view, or more light onto it.",
        ),
    }
)


def reason_words(code: str) -> Reason:
    """Look a reason code up; an unknown one speaks for itself."""
    return REASONS.get(code, Reason(code.replace("_", " "), "", ""))
