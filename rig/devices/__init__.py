"""Drivers, one file per protocol; this module lists the settings a profile may name.

A new device touches three files: its driver, its line here, its protocol test.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rig.clock import SessionClock
from rig.devices.condition import OperatorConditionSettings, SimulatedConditionSettings
from rig.devices.gphoto2_camera import Gphoto2Settings
from rig.devices.grbl_rail import GrblRail, GrblSettings
from rig.devices.modbus_rail import ModbusRail, ModbusRailSettings
from rig.devices.modbus_relay import RelayConditionSettings
from rig.devices.opencv_camera import UvcSettings
from rig.devices.output import OutputConditionSettings
from rig.devices.rail import Rail

RailSettings = Annotated[GrblSettings | ModbusRailSettings, Field(discriminator="kind")]
CameraSettings = Annotated[Gphoto2Settings | UvcSettings, Field(discriminator="kind")]
ConditionSettings = Annotated[
    OperatorConditionSettings | OutputConditionSettings | RelayConditionSettings | SimulatedConditionSettings,
    Field(discriminator="kind"),
]

__all__ = ["CameraSettings", "ConditionSettings", "RailSettings", "rail_for"]


def rail_for(settings: RailSettings, clock: SessionClock) -> Rail:
    """Return the driver, not yet open, of the rail that a profile describes."""
    if isinstance(settings, ModbusRailSettings):
        return ModbusRail(settings, clock)
    return GrblRail(settings, clock)
