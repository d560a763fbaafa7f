"""What a calibration session tells about a rig: lens, rail, shutter, tone curve, noise; how it is kept and used."""

from __future__ import annotations
