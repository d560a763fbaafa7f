"""What has to be so at a real rig and no software can see: a check list, and who confirmed it."""

from __future__ import annotations

import getpass
import time
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from catalog.session_folder import replace_file
from catalog.yaml_document import Document
from rig.devices import RailSettings
from rig.profile import RigProfile

SAFETY_CHECKLIST = (
    "an emergency stop within reach cuts the motor driver's enable",
    "end switches at both ends are wired to the controller and were pressed by hand once",
    "bumpers at both ends stop the carriage mechanically",
    "100 mm at both ends are guarded or marked: fingers stay out",
    "cables follow the carriage over the whole travel without catching",
)
USUAL_VELOCITY_MM_S, USUAL_ACCELERATION_MM_S2 = 120.0, 300.0
"""Caps for which margins, bumpers and ways to stop are usually made; above them a rig has to have been measured."""


class SafetyRecord(Document):
    """Who confirmed what no software can see; `safety.json` of a rig in the data folder."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    by: str
    utc: str
    confirmed: tuple[str, ...]
    """Lines of the check list."""
    max_velocity_mm_s: float = USUAL_VELOCITY_MM_S
    """Cap for which it was confirmed, as the next."""
    max_acceleration_mm_s2: float = USUAL_ACCELERATION_MM_S2

    def holds_for(self, rail: RailSettings) -> bool:
        """Tell whether a rail's caps are no higher than those it was confirmed for."""
        fast, steep = rail.max_velocity_mm_s, rail.max_acceleration_mm_s2
        return fast <= self.max_velocity_mm_s and steep <= self.max_acceleration_mm_s2


def safety_checklist(rail: RailSettings) -> tuple[str, ...]:
    """List what has to be so at a rig with this rail."""
    fast, steep = rail.max_velocity_mm_s, rail.max_acceleration_mm_s2
    if fast <= USUAL_VELOCITY_MM_S and steep <= USUAL_ACCELERATION_MM_S2:
        return SAFETY_CHECKLIST
    measured = (
        f"it was measured that the loaded carriage stops inside its travel and loses no steps at {fast:g} mm/s and "
        f"{steep:g} mm/s² (usual are {USUAL_VELOCITY_MM_S:g} and {USUAL_ACCELERATION_MM_S2:g} at most)"
    )
    return (*SAFETY_CHECKLIST, measured)


def confirmed_safety(profile: RigProfile, data: Path) -> SafetyRecord | None:
    """Read what was confirmed of a rig; None where nothing was, or nobody can read it."""
    try:
        return SafetyRecord.model_validate_json(_file(profile, data).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def keep_safety(profile: RigProfile, data: Path) -> Path:
    """Keep that whoever sits here confirmed the rig's check list; returns where."""
    path = _file(profile, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    utc = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    kept = SafetyRecord(
        by=getpass.getuser(),
        utc=utc,
        confirmed=safety_checklist(profile.rail),
        max_velocity_mm_s=max(profile.rail.max_velocity_mm_s, USUAL_VELOCITY_MM_S),
        max_acceleration_mm_s2=max(profile.rail.max_acceleration_mm_s2, USUAL_ACCELERATION_MM_S2),
    )
    replace_file(path, kept.model_dump_json(by_alias=True, indent=1).encode())
    return path


def _file(profile: RigProfile, data: Path) -> Path:
    return data / "rigs" / profile.name / "safety.json"
