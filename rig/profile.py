"""RigProfile: which rail, which cameras, limits and what stands in front of them; read from YAML."""

from __future__ import annotations

from pydantic import Field

from catalog.yaml_document import Document


class SimulationSpec(Document):
    """The simulated rig: clock, sensor, mechanics. Optics come from the profile's `lens`."""

    rate: float = Field(default=1.0, ge=0.1, le=20)
    """Session seconds per second of the machine; above 1 the rig runs faster than real time."""
    seed: int = 1
    """Everything random follows from it and the plan's scene name."""
    width: int = Field(default=1280, ge=160, le=7680, multiple_of=8)
    """Picture width, px."""
    height: int = Field(default=720, ge=120, le=4320, multiple_of=8)
    """Picture height, px."""
    frame_rate_hz: float = Field(default=30.0, ge=5, le=240)
    full_well_e: float = Field(default=8000.0, gt=0)
    """Electrons at clipping, ISO 100."""
    read_noise_e: float = Field(default=4.0, ge=0)
    """Standard deviation of the read noise, electrons."""
    readout_s: float = Field(default=0.0, ge=0, le=0.05)
    """Rolling shutter: time from the first to the last row, s; 0 is a global shutter."""
    distortion_k1: float = Field(default=0.0, ge=-0.3, le=0.3)
    """First radial distortion coefficient (OpenCV's convention)."""
    repeatability_mm: float = Field(default=0.03, ge=0)
    """Standard deviation of the carriage's y and z offset and of the x datum from take to take, mm."""
    jitter_mm: float = Field(default=0.02, ge=0)
    """Standard deviation of the position along the rail about the commanded one while moving, mm."""
    pitch_yaw_deg: float = Field(default=0.006, ge=0)
    """Standard deviation of the camera's pitch and yaw along the rail, deg."""
    roll_deg: float = Field(default=0.003, ge=0)
    start_delay_s: tuple[float, float] = (0.15, 0.6)
    """Range of the delay from the start command to the first frame of a movie, s."""
    movie_crf: int = Field(default=10, ge=0, le=40)
    """x264 quality of the movies (0 lossless)."""
    board_depths_mm: tuple[float, ...] = (1900.0, 2700.0)
    """Depth of each board, in the order of the profile's boards."""
