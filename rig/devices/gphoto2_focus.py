"""Focus by distance on a lens that only knows steps: drive to the infinity stop, then count.

Steps are proportional to dioptres (a lens moves its group by an amount that goes with 1/distance), so one measured
constant per lens is enough. Coming from the same stop each time takes the slack of the gears out.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from catalog.yaml_document import Document
from rig.devices.gphoto2_link import CameraLink
from rig.errors import DeviceBusyError, DeviceError, SettingRefusedError


class FocusTable(Document):
    """How the focus motor's steps relate to distance: steps from the infinity stop = dioptres times a constant."""

    steps_per_dioptre: float = Field(default=600.0, gt=0)
    """Measured once per lens: steps from the infinity stop to a target at 1 m."""
    nearest_m: float = Field(default=0.4, gt=0)
    """Nearest distance the lens reaches, m."""
    stride_steps: int = Field(default=500, ge=1, le=32767)
    """Longest single move; the library gives up on one that takes longer than a second."""
    range_steps: int = Field(default=20000, ge=1)
    """More steps than from stop to stop: a lens that has met no stop by then has none."""

    def steps(self, focus_m: float) -> int:
        """Return the steps from the infinity stop for a distance in m.

        Raises:
            SettingRefusedError: Nearer than the lens reaches.
        """
        if focus_m < self.nearest_m:
            raise SettingRefusedError(
                f"focus at {focus_m:g} m is nearer than the lens reaches ({self.nearest_m:g} m)",
                next_step="raise focus_m in the plan",
            )
        return max(round(self.steps_per_dioptre / focus_m), 1)

    def focus_m(self, steps: int) -> float:
        """Return the distance in m of a position given in steps from the infinity stop."""
        return self.steps_per_dioptre / steps

    def strides(self, steps: int) -> list[int]:
        """Cut a move into single ones.

        >>> FocusTable(stride_steps=500).strides(1200)
        [500, 500, 200]
        """
        whole, rest = divmod(steps, self.stride_steps)
        return [self.stride_steps] * whole + [rest] * bool(rest)


@dataclass(frozen=True)
class FocusMove:
    """How the lens was driven."""

    to_stop_steps: int
    """Steps asked for until the infinity stop was met."""
    from_stop_steps: int
    """Steps from the stop to the distance."""


class FocusMotor:
    """The focus motor of the lens on a body.

    Args:
        link: The connection.
        table: Steps and distances of this lens.
    """

    def __init__(self, link: CameraLink, table: FocusTable) -> None:
        self._link, self._table = link, table
        self._entry = "manualfocusdrive"
        self._steps: int | None = None

    @property
    def focus_m(self) -> float | None:
        """The distance it was driven to, m; None while that is not known."""
        return None if self._steps is None else self._table.focus_m(self._steps)

    def require(self, focus_m: float) -> None:
        """Raise `SettingRefusedError` when the lens cannot be driven to this distance."""
        import gphoto2 as gp

        self._table.steps(focus_m)
        countable = self._link.has(self._entry) and (
            self._link.widget(self._entry).get_type() == gp.GP_WIDGET_RANGE
        )
        if not countable:
            raise SettingRefusedError(
                f"{self._link.name} moves its focus in no countable steps",
                next_step="focus by hand and leave focus_m out of the plan",
            )

    def drive(self, focus_m: float) -> FocusMove | None:
        """Focus at a distance in m; a lens that was driven there already is left alone and None returned."""
        steps = self._table.steps(focus_m)
        if self._steps == steps:
            return None
        self._steps = None  # unknown until the motor has arrived
        self._link.switch_live_view(True)
        move = FocusMove(self._to_infinity_stop(), steps)
        for stride in self._table.strides(steps):
            if not self._moves(-stride):
                raise DeviceError(
                    f"{self._link.name}: the lens met its near stop on the way to {focus_m:g} m",
                    next_step="measure focus.steps_per_dioptre of the profile again",
                )
        self._link.switch_live_view(False)
        self._steps = steps
        return move

    def _to_infinity_stop(self) -> int:
        stride = self._table.stride_steps
        for count in range(1, self._table.range_steps // stride + 2):
            if not self._moves(stride):
                return count * stride
        raise DeviceError(
            f"{self._link.name}: the lens met no stop within {self._table.range_steps} steps",
            next_step="focus by hand and leave focus_m out of the plan, or raise focus.range_steps in the profile",
        )

    def _moves(self, steps: int) -> bool:
        """Move by steps, towards infinity by positive ones; False when a stop ended the move."""
        import gphoto2 as gp

        try:
            self._link.write(self._entry, float(steps))
        except gp.GPhoto2Error as error:
            if error.code == gp.GP_ERROR_CAMERA_BUSY:
                raise DeviceBusyError(
                    f"{self._link.name}: the focus motor takes longer than a second for {abs(steps)} steps",
                    next_step="lower focus.stride_steps in the profile",
                ) from None
            if error.code != gp.GP_ERROR_CAMERA_ERROR:
                raise
            self._link.unhear()
            return False
        return True
