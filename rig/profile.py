"""RigProfile: which rail, which cameras, limits and what stands in front of them; read from YAML."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from catalog.profile_files import find_profile, shipped_profiles
from catalog.session_folder import BoardSpec, LensSpec
from catalog.yaml_document import Document, Name, load_yaml
from rig.devices import CameraSettings, ConditionSettings, RailSettings

__all__ = [
    "Exposure",
    "MovieFormat",
    "RigProfile",
    "SimulationSpec",
    "find_profile",
    "shipped_profiles",
]


class Exposure(Document):
    """A complete set of camera settings."""

    iso: int = Field(default=100, gt=0)
    f_number: float = Field(default=8.0, gt=0)
    exposure_s: float = Field(default=0.005, gt=0)
    focus_m: float = Field(default=2.0, gt=0.1)
    white_balance: str = "daylight"


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
    distortion_k2: float = Field(default=0.0, ge=-0.3, le=0.3)
    """Second one."""
    repeatability_mm: float = Field(default=0.03, ge=0)
    """Standard deviation of the carriage's y and z offset and of the x datum from take to take, mm."""
    jitter_mm: float = Field(default=0.02, ge=0)
    """Standard deviation of the position along the rail about the commanded one while moving, mm."""
    pitch_yaw_deg: float = Field(default=0.006, ge=0)
    """Standard deviation of the camera's pitch and yaw along the rail, deg."""
    roll_deg: float = Field(default=0.003, ge=0)
    start_delay_s: tuple[float, float] = (0.15, 0.6)
    """Range of the delay from the start command to the first frame of a movie, s."""
    rail_faults: dict[str, JsonValue] = {}
    """What goes wrong with the rail, as `rig.sim.grbl_faults.RailFaults` names it, e.g. ``{lost_oks: [3]}``."""
    camera_faults: dict[str, JsonValue] = {}
    """What goes wrong with the camera, as `rig.sim.ptp_recorder.CameraFaults` names it, e.g. ``{refused: [iso]}``."""
    camera_body: Literal["nikon", "canon"] = "nikon"
    """Whose camera the simulated body plays: its settings, file names and habits towards libgphoto2."""
    movie_crf: int = Field(default=10, ge=0, le=40)
    """x264 quality of the movies (0 lossless)."""
    board_depths_mm: tuple[float, ...] = (1900.0, 2700.0)
    """Depth of each board, in the order of the profile's boards."""
    covered_travel_mm: tuple[float, float] = (0.0, 400.0)
    """Rail positions from which the scene fills the view and every board is in it, mm."""
    metered: Exposure = Exposure()
    """The exposure for which the scene is lit; other settings come out brighter or darker."""
    focus_breathing: float = Field(default=0.0, ge=0, le=1)
    """Share of a thin lens's change of picture scale with focus: 0 none, 1 all of it."""
    calibration: str | None = None
    """Path of a calibration, or the hash of one of this profile's name in the data folder: the simulated rig becomes
    the twin of the calibrated one, in lens, shutter, noise, tone curve and the rail's bends."""
    tone_codes: dict[Literal["bt709", "srgb"], tuple[float, ...]] = {}
    """A camera's own tone curve in place of a standard one: codes 0..255 at even steps of the square root of light."""
    rail_bends_deg: tuple[tuple[float, float, float, float], ...] = ()
    """The rail's own bends: position in mm; pitch, yaw, roll in deg there. Empty makes them up from the seed."""

    def __hash__(self) -> int:
        """Hash as equal simulations do: the render processes keep their world by it, and faults are dictionaries."""
        return hash(self.model_dump_json())


class MovieFormat(Document):
    """What the camera's movie mode is set to; forecasts rest on it, takes are measured."""

    width: int = Field(default=1920, gt=0)
    height: int = Field(default=1080, gt=0)
    frame_rate_hz: float = Field(default=30.0, gt=0)
    bitrate_mbit_s: float = Field(default=100.0, gt=0)


class RigProfile(Document):
    """One rig: its devices, their limits, the optics and the printed boards."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    name: Name
    """Name of the rig; the word that `--arm` must repeat on a real one."""
    simulated: bool = False
    """True runs everything against the simulated rig; such a profile never opens a real port."""
    rail: RailSettings
    cameras: dict[Name, CameraSettings] = Field(min_length=1, max_length=1)
    """Cameras by name; the name stands in front of every file of that camera."""
    lens: LensSpec
    """What is known of the lens, for forecasts and first guesses until a calibration exists."""
    movie: MovieFormat = MovieFormat()
    """Movie mode of a real camera; a simulated rig's format stands in `simulation`."""
    boards: tuple[BoardSpec, ...] = ()
    """Printed marker boards in view; `board` is the short form for one."""
    board: BoardSpec | None = Field(default=None, exclude=True)
    conditions: dict[Name, ConditionSettings] = {}
    """External conditions this rig can set, by name."""
    sync_led: str | None = None
    """Rail output (``flood``, ``mist``) with a LED in view; flashed at the ends of the uniform part, it ties the
    camera's clock to the rail's."""
    on_client_lost: Literal["finish-round", "hold", "stop"] = "finish-round"
    """What the engine does when the last operator's terminal goes away."""
    simulation: SimulationSpec | None = None
    """Needed exactly when `simulated` is true."""

    @model_validator(mode="before")
    @classmethod
    def _one_board(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("board") is not None and not values.get("boards"):
            return {**values, "boards": [values["board"]]}
        return values

    @model_validator(mode="after")
    def _simulated_or_real(self) -> Self:
        if self.simulated != (self.simulation is not None):
            raise ValueError("simulated: true and a simulation block belong together")
        if self.simulation is not None and len(self.simulation.board_depths_mm) < len(self.boards):
            raise ValueError("simulation.board_depths_mm needs one depth for each board")
        return self

    @property
    def movie_format(self) -> MovieFormat:
        """The format to expect: the simulation's on a simulated rig."""
        if self.simulation is None:
            return self.movie
        sim = self.simulation
        return MovieFormat(
            width=sim.width, height=sim.height, frame_rate_hz=sim.frame_rate_hz, bitrate_mbit_s=60.0
        )

    @property
    def focal_px(self) -> float:
        """Focal length by the lens's data sheet, px."""
        return self.lens.focal_mm / self.lens.sensor_width_mm * self.movie_format.width

    @classmethod
    def load(cls, name_or_path: str) -> RigProfile:
        """Read a profile by path, or by the name of a file that ships in `hardware/profiles`.

        Raises:
            InvalidDocumentError: No such profile (the message lists those that ship), or it does not fit.
        """
        return load_yaml(find_profile(name_or_path), cls)
