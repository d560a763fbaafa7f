"""Relay boards on Modbus-RTU: lamps, pumps and fans by coil (function 05), read back after every change (01)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from rig.clock import SessionClock
from rig.devices.condition import OFF
from rig.devices.modbus_settings import ModbusLineSettings
from rig.devices.output import SwitchedCondition, on_off_levels
from rig.errors import DeviceError, DeviceTimeoutError

if TYPE_CHECKING:
    from rig.devices.modbus_link import ModbusLink

_WRITE_TRIES = 3


class RelayConditionSettings(ModbusLineSettings):
    """One coil of a relay board switches it, or several coils make levels."""

    kind: Literal["relay"]
    baud: int = Field(default=9600, ge=1200, le=1_000_000)
    """Bits per second; boards are delivered with 9600."""
    coil: int | None = Field(default=None, ge=0, le=255)
    """The coil, counted from 0, for the levels ``on`` and ``off``."""
    levels: dict[str, tuple[int, ...]] = {}
    """Instead of `coil`: the coils that are energised at each level; ``off`` is none of them."""
    settle_s: float = Field(default=0.0, ge=0, le=600)
    """Waiting time after a change until the scene is steady, s."""
    inverted: bool = False
    """True where energising `coil` takes the condition away."""

    @model_validator(mode="after")
    def _coil_or_levels(self) -> Self:
        if (self.coil is None) == (not self.levels):
            raise ValueError("give either coil or levels")
        if self.levels and (self.inverted or OFF in self.levels):
            raise ValueError("levels are what is energised; 'off' and inverted do not go with them")
        return self

    @property
    def coils_by_level(self) -> dict[str, frozenset[int]]:
        """The coils that are energised at each level."""
        if self.coil is None:
            return {OFF: frozenset(), **{level: frozenset(coils) for level, coils in self.levels.items()}}
        return {
            level: frozenset({self.coil} if keys else ())
            for level, keys in on_off_levels(inverted=self.inverted).items()
        }


class RelayCoil:
    """One coil of a board as a switch.

    Args:
        link: The board's line.
        unit: The board's address.
        coil: The coil, counted from 0.
    """

    def __init__(self, link: ModbusLink, unit: int, coil: int) -> None:
        self._link, self._unit, self._coil = link, unit, coil

    def set(self, *, on: bool) -> None:
        """Switch it and read it back; a lost reply is tried again, for a coil may be written twice.

        Raises:
            DeviceError: The board does not answer, or the coil reads back the other way.
        """
        for attempt in range(1, _WRITE_TRIES + 1):
            try:
                self._link.write_coil(self._unit, self._coil, on=on)
                break
            except DeviceTimeoutError:
                if attempt == _WRITE_TRIES:
                    raise
        if self._link.read_coils(self._unit, self._coil, count=1).values != (int(on),):
            raise DeviceError(
                f"{self._link.settings.port}: unit {self._unit}, coil {self._coil} reads back "
                f"{'off' if on else 'on'} after it was switched {'on' if on else 'off'}",
                next_step="check the board's supply and its mode: inching or interlock must be off",
            )


class RelayBoards:
    """The lines to all relay boards of a rig: conditions on one port share it.

    Args:
        clock: The session clock.
    """

    def __init__(self, clock: SessionClock) -> None:
        self._clock = clock
        self._links: dict[str, ModbusLink] = {}

    def condition(self, name: str, settings: RelayConditionSettings) -> SwitchedCondition:
        """Return a condition whose board answers.

        Raises:
            DeviceError: Port or board cannot be used, or two conditions differ on the speed of one port.
        """
        link = self._link(settings)
        levels = settings.coils_by_level
        coils = sorted(set().union(*levels.values()))
        link.read_coils(settings.unit, coils[0], count=1)
        switches = {coil: RelayCoil(link, settings.unit, coil) for coil in coils}
        return SwitchedCondition(name, switches, levels, settle_s=settings.settle_s, clock=self._clock)

    def close(self) -> None:
        """Release all lines. Safe to call twice."""
        for link in self._links.values():
            link.close()
        self._links.clear()

    def _link(self, settings: RelayConditionSettings) -> ModbusLink:
        from rig.devices.modbus_link import ModbusLink

        link = self._links.get(settings.port)
        if link is None:
            link = ModbusLink(settings, self._clock)
            link.open()
            self._links[settings.port] = link
        if (link.settings.baud, link.settings.parity) != (settings.baud, settings.parity):
            raise DeviceError(
                f"{settings.port}: two conditions name this port with different baud or parity",
                next_step="give both the same, and set the boards to it",
            )
        return link
