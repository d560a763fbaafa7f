"""The twin of a real rig: a simulated one with the lens, shutter, noise, tone curve and bends of a calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from alignment.calibration.document import Calibration
from alignment.calibration.store import find_calibration
from rig.calibrated import calibrated_lens
from rig.profile import RigProfile

_TONE_NODES = 512
_LONGEST_READOUT_S = 0.05


def twin_of(profile: RigProfile, *, data: Path) -> RigProfile:
    """Put what a profile's calibration knows into its lens and simulation; without one it stays as it is.

    Args:
        profile: A simulated rig.
        data: Data folder, where calibrations are named by hash.

    Raises:
        CalibrationNotFoundError, DamagedCalibrationError: It names one that cannot be had.
    """
    if profile.simulation is None or profile.simulation.calibration is None:
        return profile
    name = profile.simulation.calibration
    found = find_calibration(name, data=data, rig=profile.name).calibration
    simulation = profile.simulation.model_copy(update=_simulated(found) | {"calibration": None})
    return profile.model_copy(update={"simulation": simulation, "lens": calibrated_lens(profile.lens, found)})


def _simulated(found: Calibration) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if found.lens is not None:
        changes["distortion_k1"] = found.lens.distortion_k1.value
        changes["distortion_k2"] = found.lens.k2
    if found.readout is not None:
        changes["readout_s"] = min(max(found.readout.readout_s.value, 0.0), _LONGEST_READOUT_S)
    if found.tone is not None:
        from alignment.calibration.curve import tone_curve  # loads compiled code

        light = np.linspace(0.0, 1.0, _TONE_NODES) ** 2
        codes = tone_curve(found.tone, "twin").codes(light.astype(np.float32))
        changes["tone_codes"] = {found.tone.base: tuple(float(c) for c in codes)}
    return changes | _noise(found) | _rail(found)


def _noise(found: Calibration) -> dict[str, float]:
    """Take the well from the lowest ISO, the read noise from the highest: each where 8 bits show it best."""
    if not found.noise:
        return {}
    lowest = found.noise[0]
    changes = {"full_well_e": lowest.electrons_at_white.value * lowest.iso / 100}
    read = [n.read_noise_e.value for n in found.noise if n.read_noise_e is not None]
    return changes | ({"read_noise_e": read[-1]} if read else {})


def _rail(found: Calibration) -> dict[str, Any]:
    if found.rail is None or not found.rail.bends:
        return {}
    bends = tuple(
        (b.position_mm, b.pitch_deg.value, b.yaw_deg.value, b.roll_deg.value) for b in found.rail.bends
    )
    changes: dict[str, Any] = {"rail_bends_deg": bends}
    if found.rail.turn_scatter_deg is not None:
        changes["pitch_yaw_deg"] = found.rail.turn_scatter_deg * float(np.sqrt(2))
    return changes
