"""Which marker boards to print, and from how far they can be read: sizes, ids, and modules against blur."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Self

import cv2
from pydantic import BaseModel, ConfigDict, Field, model_validator

from alignment.errors import BoardPrintError
from alignment.markers import MarkerBoard
from catalog.profile_files import find_profile
from catalog.session_folder import BoardSpec, LensSpec
from catalog.yaml_document import load_yaml

LEAST_MODULE_PX = 6.0
"""A module must cover so many pixels to be read at all."""
MODULES_PER_BLUR_RADIUS = 3.0
"""And so many times the radius of a defocus disc, and once the length of a motion blur."""


@dataclass(frozen=True)
class View:
    """What is known of the camera that will look at the boards."""

    name: str
    """Of the rig, or what the numbers rest on."""
    focal_px: float
    distances_mm: tuple[float, ...]
    """Distances at which boards may stand, near to far."""


@dataclass(frozen=True)
class Reading:
    """How well one board can be read at one distance."""

    distance_mm: float
    module_px: float

    @property
    def readable(self) -> bool:
        """The markers can be decoded in a sharp picture."""
        return self.module_px >= LEAST_MODULE_PX

    @property
    def blur_radius_px(self) -> float:
        """Largest defocus radius at which they still can."""
        return self.module_px / MODULES_PER_BLUR_RADIUS

    @property
    def motion_px(self) -> float:
        """Longest motion blur at which they still can."""
        return self.module_px


class _Picture(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    width: int = Field(default=1920, gt=0)


class _ProfileExcerpt(BaseModel):
    """The few keys of a rig profile that matter here; the rig reads and checks it whole."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    lens: LensSpec
    boards: tuple[BoardSpec, ...] = ()
    board: BoardSpec | None = None
    movie: _Picture = _Picture()
    simulation: _Picture | None = None

    @model_validator(mode="after")
    def _some_board(self) -> Self:
        if not self.boards and self.board is None:
            raise ValueError("the profile names no board to print; add boards, or print without --profile")
        return self


def profile_boards(name_or_path: str) -> tuple[tuple[BoardSpec, ...], View]:
    """Take boards and optics from a rig profile.

    Raises:
        InvalidDocumentError: There is no such profile, or it does not fit.
    """
    profile = load_yaml(find_profile(name_or_path), _ProfileExcerpt)
    width = (profile.simulation or profile.movie).width
    near, far = profile.lens.scene_depth_mm
    focal_px = profile.lens.focal_mm / profile.lens.sensor_width_mm * width
    boards = profile.boards or ((profile.board,) if profile.board else ())
    return boards, View(profile.name, focal_px, (near, (near + far) / 2, far))


@dataclass(frozen=True)
class Geometry:
    """What boards that are planned together have in common."""

    columns: int
    rows: int
    square_mm: float
    marker_mm: float | None = None
    """Three quarters of a square if not given."""
    dictionary: str = "DICT_4X4_50"


def uniform_boards(geometry: Geometry, count: int, *, first_id: int = 0) -> tuple[BoardSpec, ...]:
    """Plan boards of one geometry, each with the next slice of the dictionary."""
    step = geometry.columns * geometry.rows // 2
    return tuple(
        BoardSpec(
            columns=geometry.columns,
            rows=geometry.rows,
            square_mm=geometry.square_mm,
            marker_mm=geometry.marker_mm or 0.75 * geometry.square_mm,
            dictionary=geometry.dictionary,
            first_id=first_id + k * step,
        )
        for k in range(count)
    )


def check_boards(boards: Sequence[BoardSpec]) -> None:
    """Refuse boards that could not be told apart or read by every version of OpenCV.

    Raises:
        BoardPrintError: Even rows, overlapping ids, markers that do not fit, or too small a dictionary.
    """
    for number, board in enumerate(boards, start=1):
        if board.rows % 2 == 0:
            raise BoardPrintError(
                f"board {number} has {board.rows} rows; OpenCV 4.6 changed the pattern of even row counts",
                next_step=f"print {board.rows - 1} or {board.rows + 1} rows",
            )
        try:
            MarkerBoard(board)
        except ValueError as error:
            raise BoardPrintError(
                f"board {number}: {error}", next_step="fewer squares, smaller markers or another dictionary"
            ) from error
    for (i, one), (k, other) in combinations(enumerate(boards, start=1), 2):
        shared = sorted(set(ids(one)) & set(ids(other)))
        if one.dictionary == other.dictionary and shared:
            raise BoardPrintError(
                f"boards {i} and {k} share the markers {shared[0]} to {shared[-1]}; in one picture they could"
                " not be told apart",
                next_step=f"give board {k} first_id {ids(one)[-1] + 1}",
            )


def ids(board: BoardSpec) -> range:
    """Return the ids of a board's markers."""
    return range(board.first_id, board.first_id + board.columns * board.rows // 2)


def module_mm(board: BoardSpec) -> float:
    """Return the side of a marker's smallest cell; a marker has its bits and a border of one on either side."""
    return board.marker_mm / modules(board)


def modules(board: BoardSpec) -> int:
    """Return how many modules a marker is wide."""
    return int(marker_dictionary(board).markerSize) + 2


def marker_dictionary(board: BoardSpec) -> Any:
    """Return OpenCV's dictionary of a board that was checked."""
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, board.dictionary))


def readings(board: BoardSpec, view: View) -> tuple[Reading, ...]:
    """Say how well a board can be read at every distance of a view."""
    side_mm = module_mm(board)
    return tuple(Reading(d, view.focal_px * side_mm / d) for d in view.distances_mm)


def reach_mm(board: BoardSpec, view: View) -> float:
    """Return the distance up to which a board can be read in sharp pictures."""
    return view.focal_px * module_mm(board) / LEAST_MODULE_PX


def warnings(boards: Sequence[BoardSpec], view: View) -> Iterator[str]:
    """Name the boards that cannot be read everywhere in the scene."""
    for number, board in enumerate(boards, start=1):
        far = readings(board, view)[-1]
        if not far.readable:
            yield (
                f"board {number}: its modules cover {far.module_px:.1f} px at {far.distance_mm:.0f} mm, fewer than"
                f" {LEAST_MODULE_PX:.0f}; keep it within {reach_mm(board, view):.0f} mm or print it larger"
            )
