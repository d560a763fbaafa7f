"""Focus by distance on a lens that only knows steps: drive to the infinity stop, then count.

Steps are proportional to dioptres (a lens moves its group by an amount that goes with 1/distance), so one measured
constant per lens is enough. Coming from the same stop each time takes the slack of the gears out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from catalog.yaml_document import Document
from rig.devices.gphoto2_link import CameraLink
from rig.devices.gphoto2_settings import NAMES
from rig.errors import DeviceBusyError, DeviceError, SettingRefusedError

_LARGEST_OF_SIZES = 7
"""A range that ends here numbers sizes of steps; one that goes farther counts steps."""
_SIZES_BY_NAME = ("Near 1", "Near 2", "Near 3"), ("Far 1", "Far 2", "Far 3")
_SIZES_BY_NUMBER = (-1.0, -4.0, -7.0), (1.0, 4.0, 7.0)


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

    size_steps: tuple[int, int, int] = (1, 8, 40)
    """How many of the smallest steps make a small, a medium and a large one, on bodies that know only these."""

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


class _Drive(Protocol):
    """How one maker's bodies move the lens."""

    def infinity_stop(self) -> int:
        """Drive to the infinity stop; returns the steps asked for."""

    def towards_near(self, steps: int) -> bool:
        """Drive from where the lens stands; False when a stop was felt on the way."""


class FocusMotor:
    """The focus motor of the lens on a body.

    Args:
        link: The connection.
        table: Steps and distances of this lens.
    """

    def __init__(self, link: CameraLink, table: FocusTable) -> None:
        self._link, self._table = link, table
        self._steps: int | None = None

    @property
    def focus_m(self) -> float | None:
        """The distance it was driven to, m; None while that is not known."""
        return None if self._steps is None else self._table.focus_m(self._steps)

    def is_there(self) -> bool:
        """Tell whether the lens can be driven from here in steps that can be counted."""
        return self._drive() is not None

    def require(self, focus_m: float) -> None:
        """Raise `SettingRefusedError` when the lens cannot be driven to this distance."""
        self._table.steps(focus_m)
        if not self.is_there():
            raise SettingRefusedError(
                f"{self._link.name} moves its focus in no countable steps",
                next_step="focus by hand and leave focus_m out of the plan",
            )

    def drive(self, focus_m: float) -> FocusMove | None:
        """Focus at a distance in m; a lens that was driven there already is left alone and None returned."""
        steps = self._table.steps(focus_m)
        drive = self._drive()
        if self._steps == steps or drive is None:
            return None
        self._steps = None  # unknown until the motor has arrived
        self._link.switch_live_view(True)
        move = FocusMove(drive.infinity_stop(), steps)
        if not drive.towards_near(steps):
            raise DeviceError(
                f"{self._link.name}: the lens met its near stop on the way to {focus_m:g} m",
                next_step="measure focus.steps_per_dioptre of the profile again",
            )
        self._link.switch_live_view(False)
        self._steps = steps
        return move

    def _drive(self) -> _Drive | None:
        """Tell by the kind of the body's entry how it moves the lens: none of this stands in a model's name."""
        import gphoto2 as gp

        entry = self._link.first(NAMES["focus_drive"])
        if entry is None:
            return None
        widget = self._link.widget(entry)
        if widget.get_type() == gp.GP_WIDGET_RANGE:
            if widget.get_range()[1] > _LARGEST_OF_SIZES:
                return _CountedDrive(self._link, self._table, entry)
            return _SizedDrive(
                self._link,
                self._table,
                entry,
                towards_near=_SIZES_BY_NUMBER[0],
                towards_far=_SIZES_BY_NUMBER[1],
            )
        names = [str(c) for c in widget.get_choices()]
        if not set(_SIZES_BY_NAME[0]) | set(_SIZES_BY_NAME[1]) <= set(names):
            return None
        return _SizedDrive(
            self._link, self._table, entry, towards_near=_SIZES_BY_NAME[0], towards_far=_SIZES_BY_NAME[1]
        )


class _CountedDrive:
    """Moves of any number of steps that end at a stop with a message (Nikon)."""

    def __init__(self, link: CameraLink, table: FocusTable, entry: str) -> None:
        self._link, self._table, self._entry = link, table, entry

    def infinity_stop(self) -> int:
        stride = self._table.stride_steps
        for count in range(1, self._table.range_steps // stride + 2):
            if not self._moves(stride):
                return count * stride
        raise DeviceError(
            f"{self._link.name}: the lens met no stop within {self._table.range_steps} steps",
            next_step="focus by hand and leave focus_m out of the plan, or raise focus.range_steps in the profile",
        )

    def towards_near(self, steps: int) -> bool:
        return all(self._moves(-stride) for stride in self._table.strides(steps))

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


class _SizedDrive:
    """Moves of three sizes, with no word from the stops (Canon EOS, Sony).

    The infinity stop is met by asking for more than the lens's whole range; the motor then slips or stands.
    """

    def __init__(
        self,
        link: CameraLink,
        table: FocusTable,
        entry: str,
        *,
        towards_near: Sequence[str | float],
        towards_far: Sequence[str | float],
    ) -> None:
        self._link, self._table, self._entry = link, table, entry
        self._near, self._far = towards_near, towards_far

    def infinity_stop(self) -> int:
        large = self._table.size_steps[-1]
        count = -(-self._table.range_steps // large)
        for _ in range(count):
            self._link.write_when_ready(self._entry, self._far[-1])
        return count * large

    def towards_near(self, steps: int) -> bool:
        for size, value in zip(reversed(self._table.size_steps), reversed(self._near), strict=True):
            count, steps = divmod(steps, size)
            for _ in range(count):
                self._link.write_when_ready(self._entry, value)
        return True
