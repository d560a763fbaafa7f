"""Drivers, one file per protocol; this module lists the settings a profile may name.

A new device touches three files: its driver, its line here, its protocol test.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rig.devices.condition import OperatorConditionSettings, SimulatedConditionSettings
from rig.devices.gphoto2_camera import Gphoto2Settings
from rig.devices.grbl_rail import GrblSettings

RailSettings = GrblSettings
CameraSettings = Gphoto2Settings
ConditionSettings = Annotated[
    OperatorConditionSettings | SimulatedConditionSettings, Field(discriminator="kind")
]

__all__ = ["CameraSettings", "ConditionSettings", "RailSettings"]
