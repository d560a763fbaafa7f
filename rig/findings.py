"""What each guard and each finding of the live check means and how to mend it, for `rig help NAME`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Explanation:
    """What an operator needs to know of one thing that is watched."""

    meaning: str
    mend: str


EXPLANATIONS: Mapping[str, Explanation] = MappingProxyType({
    "velocity": Explanation(
        "The speed measured by the marker boards, against the speed that was commanded; the motion must be uniform.",
        "Look for something that rubs or holds the carriage, a loose belt, or a motor that skips at this speed. "
        "The rail is homed before the retake.",
    ),
    "length": Explanation(
        "How much of the planned uniform motion the pictures show. It is short when the carriage stalled, the movie "
        "began late, or the boards were out of sight.",
        "Lengthen rest_s so that the camera has begun before the carriage does; clear the view of the boards.",
    ),
    "markers": Explanation(
        "The live check: in which share of the uniform motion a board was followed. The guard: how many boards were.",
        "Clear the view of the boards, light them, or move them so that they stay in view along the whole sweep.",
    ),
    "travel": Explanation(
        "How far the camera went by the boards, against how far the rail says it went. A difference is lost steps.",
        "Lower speed or acceleration, check the coupling. The rail is homed before the retake.",
    ),
    "position": Explanation(
        "Where the carriage stands before and after the motion, and how the camera points, against the first ground "
        "truth.",
        "Steps lost between rounds: homing mends it. A turned or knocked camera: fix it and begin a new session.",
    ),
    "motion": Explanation(
        "No uniform motion could be measured at all.",
        "Check that the carriage moved, that the camera recorded it, and that a board is in view. Where the plan "
        "leaves fewer than a dozen frames of uniform motion, lengthen the sweep or slow it down.",
    ),
    "places": Explanation(
        "Stills at standstill: how far the boards' places lie from those the rail was sent to.",
        "Let the carriage settle longer (settle_s), check that it is clamped and that nothing shakes the room.",
    ),
    "movie": Explanation(
        "The recording cannot be decoded to its end.",
        "Check card and cable; the retake replaces the take.",
    ),
    "light": Explanation(
        "The light of a ground truth: the live check wants a picture that is not black, the guard one that differs "
        "little from the first ground truth's.",
        "Lens cap, lamps, daylight through a window; wait until lamps are warm.",
    ),
    "focus": Explanation(
        "How sharp a ground truth is: the edges of the sharpest board, and sharpness against the first ground truth.",
        "Set the focus on the boards' depth, switch autofocus and stabiliser off, clean the lens.",
    ),
    "exposure": Explanation(
        "The light of a take against what its settings predict from the ground truth, in stops (EV).",
        "Check that the body took ISO, time and aperture (automatic ISO off) and that no lamp has gone out.",
    ),
    "pairs": Explanation(
        "How many frames have a ground truth near enough that parallax stays small.",
        "Record the ground truth more slowly, or both over the same part of the rail.",
    ),
    "registration": Explanation(
        "Three frames of the take aligned with the ground truth at half size: turn of the camera, and how much of the "
        "picture shows something else.",
        "A turned camera: fix it and begin a new session. Something else in view: clear it and record again.",
    ),
    "disk": Explanation(
        "Free room on the disk that takes the session.", "Free some room, or use another --data."
    ),
    "battery": Explanation("What the camera's battery says.", "Change it, or use a mains adapter."),
    "temperature": Explanation("The camera says that it is too hot.", "Let it cool; switch its display off."),
    "settings": Explanation(
        "A setting of the camera changed without being asked to.",
        "Lock the dials, switch automatic modes off.",
    ),
    "clipping": Explanation(
        "Share of a ground truth's picture at full scale: what is clipped cannot be restored or learned.",
        "Expose less, or dim the lamp.",
    ),
    "camera_moved": Explanation(
        "How far the boards lie from where they lay in the first ground truth, at rest, the rail accounted for.",
        "Tighten the camera; what was recorded before it moved is still good, the rest belongs in a new session.",
    ),
    "ripple": Explanation(
        "How much the speed varies over the uniform part.",
        "Clean and grease the rail, try another speed: some excite a resonance.",
    ),
    "frames": Explanation(
        "Frames that are missing from a movie or are there twice.",
        "A faster card, a shorter cable, fewer programs beside the recording.",
    ),
})  # fmt: skip
"""By the names that findings and guards carry."""
