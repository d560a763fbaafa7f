"""CapturePlan: what to record, as frozen data; iterable, printable, no hardware.

A plan is one camera move repeated in rounds: a clean ground truth (`gt`), rounds with worse camera settings
(`internal`), rounds under worse conditions (`external`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from catalog.records import Degradation
from catalog.session_folder import ExposureSettings, Role, RoundRecord, SweepRecord
from catalog.yaml_document import Document, Name, load_yaml


class Sweep(Document):
    """The uniform part of the move; run-up and run-down are added by the rail."""

    start_mm: float
    """Where uniform motion begins, rail coordinates."""
    end_mm: float
    """Where uniform motion ends; may lie below `start_mm`."""
    velocity_mm_s: float = Field(gt=0, le=1000)
    """Speed of the uniform part, mm/s."""

    @model_validator(mode="after")
    def _has_a_length(self) -> Self:
        if self.start_mm == self.end_mm:
            raise ValueError("start_mm and end_mm are the same place")
        return self


class BaseSettings(Document):
    """The clean round's camera settings; every other round starts from them."""

    iso: int = Field(gt=0, le=1_000_000)
    f_number: float = Field(gt=0.5, le=64)
    exposure_s: float = Field(gt=0, le=60)
    """Exposure time, s."""
    focus_m: float = Field(gt=0.02, le=1000)
    """Focus distance, m."""
    white_balance: str | None = None
    """Name as the camera lists it, lower case; None leaves it as it is."""


class RoundPlan(Document):
    """One round of the plan."""

    name: Name
    role: Role
    set: ExposureSettings = ExposureSettings()
    """Settings that differ from `base`."""
    conditions: dict[str, str] = {}
    """External conditions by name, e.g. ``{rain: light}``; those not named are off."""
    degradations: tuple[Degradation, ...] = ()
    """What this round makes worse on purpose."""
    velocity_mm_s: float | None = Field(default=None, gt=0, le=1000)
    """Speed of this round; by default the sweep's, for role gt a third of it (dense ground truth)."""

    @model_validator(mode="after")
    def _clean_or_degraded(self) -> Self:
        if self.role == "gt" and (self.degradations or self.conditions):
            raise ValueError("a gt round has no degradations and no conditions")
        return self


class Guards(Document):
    """What is watched while recording and what happens when it fails."""

    min_free_gb: float = Field(default=2.0, ge=0)
    """Free disk space that must remain, GB."""
    max_light_drift_percent: float = Field(default=5.0, gt=0)
    """Largest change of brightness between the first and a later gt round."""
    on_fail: Literal["hold", "void", "warn"] = "hold"
    """``hold`` ends the session resumably, ``void`` redoes the take once, ``warn`` records a warning."""


GT_SPEED_SHARE = 1 / 3


class CapturePlan(Document):
    """A session's plan, read from YAML."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    scene: Name
    """Scene name; scenes never cross from training to test. In the simulation it seeds the arrangement."""
    sweep: Sweep
    base: BaseSettings
    rounds: tuple[RoundPlan, ...] = Field(min_length=1, max_length=99)
    rest_s: float = Field(default=2.0, ge=0.3, le=60)
    """Standstill recorded before and after each move, s; it measures the noise of the markers."""
    guards: Guards = Guards()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [r.name for r in self.rounds]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"round name '{twice[0]}' stands twice")
        if self.rounds[0].role != "gt":
            raise ValueError("the first round must have role gt: all others are compared with it")
        return self

    @classmethod
    def load(cls, path: Path) -> CapturePlan:
        """Read a plan; raises `catalog.errors.InvalidDocumentError` with line and column."""
        return load_yaml(path, cls)

    def __iter__(self) -> Iterator[RoundPlan]:  # type: ignore[override]  # a plan is its rounds
        return iter(self.rounds)

    def velocity_mm_s(self, round_: RoundPlan) -> float:
        """Return the speed at which a round runs, mm/s."""
        if round_.velocity_mm_s is not None:
            return round_.velocity_mm_s
        return self.sweep.velocity_mm_s * (GT_SPEED_SHARE if round_.role == "gt" else 1.0)

    def settings(self, round_: RoundPlan) -> ExposureSettings:
        """Return the full camera settings of a round: base with the round's changes."""
        changes = round_.set.model_dump(exclude_none=True)
        return ExposureSettings.model_validate({**self.base.model_dump(), **changes})

    def round_records(self, *, acceleration_mm_s2: float) -> tuple[RoundRecord, ...]:
        """Resolve the plan into the records that `session.json` keeps."""
        return tuple(
            RoundRecord(
                number=number,
                name=r.name,
                role=r.role,
                degradations=r.degradations,
                settings=self.settings(r),
                conditions=r.conditions,
                sweep=SweepRecord(
                    start_mm=self.sweep.start_mm,
                    end_mm=self.sweep.end_mm,
                    velocity_mm_s=self.velocity_mm_s(r),
                    acceleration_mm_s2=acceleration_mm_s2,
                ),
            )
            for number, r in enumerate(self.rounds, start=1)
        )
