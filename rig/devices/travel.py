"""The part of a profile's rail that every rail has: how far, how fast and how steeply its carriage may move."""

from __future__ import annotations

import math
from typing import Self

from pydantic import Field, model_validator

from catalog.session_folder import SweepRecord
from catalog.yaml_document import Document
from rig.devices.arrival import SLACK_S
from rig.devices.envelope import Envelope, Motion, check_sweep
from rig.errors import EnvelopeError


class TravelSettings(Document):
    """Travel, caps and margins of a rail in a profile."""

    travel_mm: tuple[float, float]
    """Lower and upper end, rail coordinates; the home switch acts at the lower one."""
    max_velocity_mm_s: float = Field(gt=0, le=1000)
    """Cap on every motion, mm/s."""
    max_acceleration_mm_s2: float = Field(gt=0, le=10_000)
    """Cap on the acceleration, mm/s²."""
    acceleration_mm_s2: float = Field(gt=0, le=10_000)
    """Acceleration of every ramp, mm/s²."""
    end_margin_mm: float = Field(default=5.0, ge=0, le=100)
    """No motion ends nearer than this to an end of the travel, mm."""
    run_up_margin_mm: float = Field(default=5.0, ge=0, le=100)
    """Uniform motion added before and after a sweep, beyond the ramps, mm."""

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.travel_mm[1] - self.travel_mm[0] <= 2 * self.end_margin_mm:
            raise ValueError("travel_mm must ascend and be longer than both end margins")
        if self.acceleration_mm_s2 > self.max_acceleration_mm_s2:
            raise ValueError("acceleration_mm_s2 is above max_acceleration_mm_s2")
        return self

    @property
    def envelope(self) -> Envelope:
        """The limits that every motion is checked against."""
        return Envelope(
            lower_mm=self.travel_mm[0],
            upper_mm=self.travel_mm[1],
            max_velocity_mm_s=self.max_velocity_mm_s,
            max_acceleration_mm_s2=self.max_acceleration_mm_s2,
            end_margin_mm=self.end_margin_mm,
            run_up_margin_mm=self.run_up_margin_mm,
        )

    @property
    def stopping_s(self) -> float:
        """Longest time to come to rest from the highest speed, with what controller and line take, s."""
        return self.max_velocity_mm_s / self.acceleration_mm_s2 + SLACK_S

    def realised_velocity_mm_s(self, velocity_mm_s: float) -> float:
        """Return the speed at which the rail will do a sweep that is asked for at another; steppers do any."""
        return velocity_mm_s

    def sweep_motion(self, sweep: SweepRecord) -> Motion:
        """Return the one motion that a sweep is, run-up and run-down included.

        Raises:
            EnvelopeError: It leaves the envelope, or was planned with another acceleration than the rail has.
        """
        if not math.isclose(sweep.acceleration_mm_s2, self.acceleration_mm_s2, rel_tol=1e-6):
            raise EnvelopeError(
                f"the sweep's acceleration {sweep.acceleration_mm_s2:g} mm/s² is not the "
                f"{self.acceleration_mm_s2:g} mm/s² that the profile set",
                kept="nothing moved",
                next_step="plan with the profile's acceleration_mm_s2",
            )
        return check_sweep(sweep, self.envelope)
