"""CapturePlan: what to record, as frozen data; iterable, printable, no hardware.

A plan is one camera move repeated in rounds: a clean ground truth (`gt`), rounds with worse camera settings
(`internal`), rounds under worse conditions (`external`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from catalog.records import Degradation
from catalog.session_folder import ExposureSettings, Role, RoundRecord, SweepRecord
from catalog.yaml_document import Document, Name, load_yaml


def _word(value: object) -> object:
    """YAML 1.1 reads an unquoted ``on`` and ``off`` as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Level = Annotated[str, BeforeValidator(_word)]
"""Level of an external condition, e.g. ``light`` or ``off``."""


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


class StopAndShoot(Document):
    """Stills at standstill instead of a movie of the sweep: exact ground truth, slowly."""

    step_mm: float = Field(gt=0)
    """Distance between stills over the uniform part of the sweep, mm."""
    settle_s: float = Field(default=0.5, ge=0, le=30)
    """Standstill before each still, s."""


class RoundPlan(Document):
    """One round of the plan."""

    name: Name
    role: Role
    set: ExposureSettings = ExposureSettings()
    """Settings that differ from `base`."""
    conditions: dict[str, Level] = {}
    """External conditions by name, e.g. ``{rain: light}``; those not named are off."""
    degradations: tuple[Degradation, ...] = ()
    """What this round makes worse on purpose."""
    velocity_mm_s: float | None = Field(default=None, gt=0, le=1000)
    """Speed of this round; by default the sweep's, for role gt a third of it (dense ground truth)."""
    stop_and_shoot: StopAndShoot | None = None
    """Take stills at standstill instead of a movie."""
    passes: int = Field(default=1, ge=1, le=9)
    """Recorded so many times, as rounds ``name``, ``name-2``, …: a free-running camera samples each pass at another
    phase, so that two gt passes halve the distance between ground-truth frames."""

    @model_validator(mode="after")
    def _clean_or_degraded(self) -> Self:
        if self.role == "gt" and (self.degradations or self.conditions):
            raise ValueError("a gt round has no degradations and no conditions")
        return self


GuardName = Literal[
    "disk",
    "battery",
    "temperature",
    "light",
    "clipping",
    "focus",
    "markers",
    "camera_moved",
    "ripple",
    "settings",
    "frames",
]
GuardAction = Annotated[Literal["hold", "void", "warn", "off"], BeforeValidator(_word)]


class Guards(Document):
    """What is watched between and during rounds, and what happens when it fails."""

    min_free_gb: float = Field(default=2.0, ge=0)
    """disk: free space that must remain, GB."""
    min_battery_percent: int = Field(default=15, ge=0, le=100)
    """battery: charge below which no round starts, percent."""
    max_light_drift_percent: float = Field(default=5.0, gt=0)
    """light: largest change of brightness between the first and a later gt round, percent."""
    max_clipped_percent: float = Field(default=5.0, gt=0)
    """clipping: largest share of pixels at full scale in a gt round, percent."""
    min_sharpness_share: float = Field(default=0.5, gt=0, le=1)
    """focus: least sharpness of a later gt round, as a share of the first one's."""
    min_markers: int = Field(default=1, ge=0)
    """markers: fewest markers in view over the uniform part; checked only where the profile has boards."""
    max_camera_shift_px: float = Field(default=20.0, gt=0)
    """camera_moved: largest shift of the picture at rest against the first gt round's, px."""
    max_ripple_percent: float = Field(default=2.0, gt=0)
    """ripple: largest standard deviation of the speed over the uniform part, percent."""
    max_lost_frames: int = Field(default=0, ge=0)
    """frames: most frames that may be missing or doubled in one take."""
    on_fail: Literal["hold", "void", "warn"] = "hold"
    """For every guard that `actions` does not name: ``hold`` asks the operator, or ends the session resumably where
    there is none; ``void`` redoes the take once; ``warn`` records a warning."""
    actions: dict[GuardName, GuardAction] = {}
    """Action of single guards, e.g. ``{battery: warn, ripple: void}``; ``off`` switches one off."""

    def action(self, guard: GuardName) -> GuardAction:
        """Return what happens when a guard fails."""
        return self.actions.get(guard, self.on_fail)


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
    closing_gt: bool = False
    """Adds a last gt round ``gt-close`` like the first: it proves that nothing moved or dimmed."""
    longest_h: float = Field(default=24.0, gt=0, le=168)
    """Longest time that one run may take, h: then the session ends resumably after the take in progress, so that a
    rig that nobody looks after does not go on for days."""
    retake_spoiled: bool = True
    """Record a take again at once when the live check calls it spoiled (an operator is asked first)."""
    guards: Guards = Guards()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [r.name for r in self]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"round name '{twice[0]}' stands twice")
        if self.rounds[0].role != "gt":
            raise ValueError("the first round must have role gt: all others are compared with it")
        if len(names) > 99:
            raise ValueError(f"{len(names)} rounds with all passes; at most 99 are possible")
        return self

    @classmethod
    def load(cls, path: Path) -> CapturePlan:
        """Read a plan; raises `catalog.errors.InvalidDocumentError` with line and column."""
        return load_yaml(path, cls)

    def __iter__(self) -> Iterator[RoundPlan]:  # type: ignore[override]  # a plan is its rounds
        for round_ in self.rounds:
            yield round_
            for number in range(2, round_.passes + 1):
                yield round_.model_copy(update={"name": f"{round_.name}-{number}"})
        if self.closing_gt:
            yield self.rounds[0].model_copy(update={"name": "gt-close"})

    def velocity_mm_s(self, round_: RoundPlan) -> float:
        """Return the speed at which a round runs, mm/s."""
        if round_.velocity_mm_s is not None:
            return round_.velocity_mm_s
        return self.sweep.velocity_mm_s * (GT_SPEED_SHARE if round_.role == "gt" else 1.0)

    def settings(self, round_: RoundPlan) -> ExposureSettings:
        """Return the full camera settings of a round: base with the round's changes."""
        changes = round_.set.model_dump(exclude_none=True)
        return ExposureSettings.model_validate({**self.base.model_dump(), **changes})

    def round_records(
        self, *, acceleration_mm_s2: float, realised_mm_s: Callable[[float], float] = float
    ) -> tuple[RoundRecord, ...]:
        """Resolve the plan into the records that `session.json` keeps.

        Args:
            acceleration_mm_s2: Of the rail's ramps.
            realised_mm_s: Tells the speed that the rail makes of the one asked for.
        """
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
                    velocity_mm_s=realised_mm_s(self.velocity_mm_s(r)),
                    acceleration_mm_s2=acceleration_mm_s2,
                ),
                stops_mm=self.stops_mm(r),
                settle_s=0.0 if r.stop_and_shoot is None else r.stop_and_shoot.settle_s,
            )
            for number, r in enumerate(self, start=1)
        )

    def stops_mm(self, round_: RoundPlan) -> tuple[float, ...]:
        """Return where a stop-and-shoot round takes its stills, evenly spread with both ends; empty for a movie."""
        if round_.stop_and_shoot is None:
            return ()
        length_mm = abs(self.sweep.end_mm - self.sweep.start_mm)
        count = max(math.ceil(length_mm / round_.stop_and_shoot.step_mm), 1) + 1
        step_mm = (self.sweep.end_mm - self.sweep.start_mm) / (count - 1)
        return tuple(round(self.sweep.start_mm + k * step_mm, 4) for k in range(count))
