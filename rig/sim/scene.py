"""The scene in front of the rail: a wall with pictures, things at several depths, marker boards.

Everything is a plane parallel to the sensor with an outline and a texture in linear light. Textures hold
`SAMPLES_PER_PX` samples per picture pixel: sampled bilinearly at that density, a texture that is limited to
the picture's bandwidth does not move by more than a few thousandths of a pixel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.session_folder import BoardSpec, LensSpec
from rig.errors import SceneError
from rig.profile import SimulationSpec
from rig.sim.boards import PAPER, board_size_mm, draw_board
from rig.sim.optics import nominal_focal_px
from rig.sim.photos import BUNDLED_WALLS, Photos
from rig.sim.shapes import SHAPES, Outline, rectangle

Image32 = NDArray[np.float32]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

SAMPLES_PER_PX = 2.0
_MARGIN_PX = 64
_BOARD_MARGIN_PX = 14
_POSTER_PX = (300, 230)
_THINGS_PER_VIEW = 7
_THING_SHARE = (0.30, 0.55)
_TRIES = 80
_BLACK, _WHITE = np.float32(0.008), np.float32(0.90)


@dataclass(frozen=True)
class ScenePlane:
    """One textured thing, parallel to the sensor."""

    name: str
    depth_mm: float
    """Distance from the rail's zero, mm."""
    outline_mm: Outline
    """Closed polygon (V, 2), world x and y, mm."""
    colour: Image32
    """Linear light, (h, w, 3), 1 clips the sensor at the metered exposure; not cut out."""
    corner_mm: tuple[float, float]
    """World x, y of the centre of texture sample (0, 0), mm."""
    pitch_mm: float
    """Distance of neighbouring texture samples, mm."""

    def opaque(self) -> Image32:
        """Draw the outline on the texture's grid: the share of each sample it covers, (h, w) float32."""
        import cv2

        fine, shift = 4, 6
        height, width = self.colour.shape[:2]
        mask = np.zeros((height * fine, width * fine), np.uint8)
        samples = (self.outline_mm - np.array(self.corner_mm)) / self.pitch_mm
        vertices = np.round(((samples + 0.5) * fine - 0.5) * (1 << shift)).astype(np.int32)
        cv2.fillPoly(mask, [vertices], (255,), lineType=cv2.LINE_8, shift=shift)
        share = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(share, np.float32) / np.float32(255)


def scene_rng(scene: str, seed: int) -> np.random.Generator:
    """Random numbers that follow from a scene's name and the simulation's seed."""
    digest = hashlib.sha256(scene.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def build_scene(
    spec: SimulationSpec, lens: LensSpec, *, boards: Sequence[BoardSpec], scene: str, photos: Photos
) -> tuple[ScenePlane, ...]:
    """Arrange a scene by its name: same name, seed and photographs, same scene.

    Returns:
        Planes from the farthest (the wall, which fills every view of the covered travel) to the nearest.

    Raises:
        SceneError: A board's depth lies behind the wall, or a photograph cannot be read.
    """
    builder = _Builder(spec, lens, scene_rng(scene, spec.seed), photos)
    builder.place_boards(boards)
    builder.place_things()
    return tuple(sorted([builder.wall(), *builder.planes], key=lambda p: -p.depth_mm))


class _Builder:
    """Places things by where they appear in the picture taken from the middle of the covered travel."""

    def __init__(
        self, spec: SimulationSpec, lens: LensSpec, rng: np.random.Generator, photos: Photos
    ) -> None:
        self._spec, self._rng, self._photos = spec, rng, photos
        self._focal_px = nominal_focal_px(lens, spec.width)
        self._near_mm, self._far_mm = lens.scene_depth_mm
        self._middle_mm = sum(spec.covered_travel_mm) / 2
        self._reach_mm = (spec.covered_travel_mm[1] - spec.covered_travel_mm[0]) / 2
        self._deck = list(rng.permutation(list(photos.names)))
        self._dealt = 0
        self._boards: list[tuple[float, Box]] = []
        self.planes: list[ScenePlane] = []

    def wall(self) -> ScenePlane:
        """The far plane: a plain surface hung with photographs."""
        half_width = self._spec.width / 2 + _MARGIN_PX + self._shift_px(self._far_mm)
        half_height = self._spec.height / 2 + _MARGIN_PX
        box = self._mm((-half_width, -half_height, half_width, half_height), self._far_mm)
        columns, rows = (
            round(2 * half_width * SAMPLES_PER_PX) + 1,
            round(2 * half_height * SAMPLES_PER_PX) + 1,
        )
        colour = self._plaster(columns, rows)
        for left, top, width, height in self._hanging(columns, rows):
            colour[top : top + height, left : left + width] = self._framed(width, height)
        return self._plane("wall", self._far_mm, rectangle(*box), colour, box)

    def place_boards(self, boards: Sequence[BoardSpec]) -> None:
        """Put the boards near the upper and lower edge, in view from everywhere on the covered travel."""
        for number, (board, depth_mm) in enumerate(zip(boards, self._spec.board_depths_mm, strict=False)):
            if depth_mm >= self._far_mm:
                raise SceneError(
                    f"board {number} at {depth_mm:g} mm would stand behind the wall at {self._far_mm:g} mm",
                    next_step="lower simulation.board_depths_mm or deepen lens.scene_depth_mm",
                )
            box_px = self._board_box_px(board, depth_mm, number)
            box_mm = self._mm(box_px, depth_mm)
            grey = draw_board(board, pitch_mm=self._pitch_mm(depth_mm))
            colour = np.repeat(grey[..., None], 3, axis=2)
            self._boards.append((depth_mm, box_px))
            self.planes.append(self._plane(f"board{number}", depth_mm, rectangle(*box_mm), colour, box_mm))

    def place_things(self) -> None:
        """Stand photographs cut to various outlines in front of the wall, none hiding a board."""
        span_px = self._spec.width + 2 * self._shift_px(self._near_mm)
        count = round(_THINGS_PER_VIEW * span_px / self._spec.width)
        depths_mm = self._thing_depths_mm(count)
        for number, depth_mm in enumerate(depths_mm):
            slot = ((number + 0.5) / count - 0.5) * span_px
            box_px = self._free_box_px(slot, span_px / count, depth_mm)
            if box_px is not None:
                self.planes.append(self._thing(f"thing{number}", depth_mm, box_px))

    def _thing_depths_mm(self, count: int) -> NDArray[np.float64]:
        share = (self._rng.permutation(count) + self._rng.uniform(0.0, 0.8, count)) / count
        nearness = 1 / self._near_mm + share * (1 / (0.85 * self._far_mm) - 1 / self._near_mm)
        return np.asarray(1 / nearness)

    def _thing(self, name: str, depth_mm: float, box_px: Box) -> ScenePlane:
        left, top, right, bottom = box = self._mm(box_px, depth_mm)
        shape = SHAPES[self._rng.integers(len(SHAPES))]
        size, middle = np.array([right - left, bottom - top]), np.array([left + right, top + bottom]) / 2
        outline = shape(self._rng) * size + middle
        columns, rows = (
            round((b - a) * SAMPLES_PER_PX) + 1 for a, b in zip(box_px[:2], box_px[2:], strict=True)
        )
        colour = self._picture(columns, rows) * np.float32(self._rng.uniform(0.75, 1.0))
        return self._plane(name, depth_mm, outline, colour, box)

    def _free_box_px(self, slot_px: float, slot_width_px: float, depth_mm: float) -> Box | None:
        for _ in range(_TRIES):
            height = self._rng.uniform(*_THING_SHARE) * self._spec.height
            width = height * self._rng.uniform(0.6, 1.3)
            x = slot_px + self._rng.uniform(-0.4, 0.4) * slot_width_px
            y = self._rng.uniform(-0.2, 0.5) * self._spec.height
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            if not any(self._may_hide(box, depth_mm, board, far) for far, board in self._boards):
                return box
        return None

    def _may_hide(self, box: Box, depth_mm: float, board: Box, board_depth_mm: float) -> bool:
        """Whether a nearer box could cover a board from somewhere on the covered travel."""
        if depth_mm >= board_depth_mm:
            return False
        slide = abs(self._shift_px(depth_mm) - self._shift_px(board_depth_mm)) + _BOARD_MARGIN_PX
        apart_x = box[0] - slide > board[2] or box[2] + slide < board[0]
        apart_y = box[1] - _BOARD_MARGIN_PX > board[3] or box[3] + _BOARD_MARGIN_PX < board[1]
        return not (apart_x or apart_y)

    def _board_box_px(self, board: BoardSpec, depth_mm: float, number: int) -> Box:
        width, height = (side * self._focal_px / depth_mm for side in board_size_mm(board))
        room = max(self._spec.width / 2 - _BOARD_MARGIN_PX - width / 2 - self._shift_px(depth_mm), 0.0)
        x = (-1) ** number * self._rng.uniform(0.35, 0.9) * room
        y = self._spec.height / 2 - _BOARD_MARGIN_PX - height / 2
        y = -y if number % 2 == 0 else y
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    def _plaster(self, columns: int, rows: int) -> Image32:
        import cv2

        tile = self._photos.wall(BUNDLED_WALLS[self._rng.integers(len(BUNDLED_WALLS))])
        size = (round(tile.shape[1] * SAMPLES_PER_PX), round(tile.shape[0] * SAMPLES_PER_PX))
        tile = np.asarray(cv2.resize(tile, size, interpolation=cv2.INTER_CUBIC))
        tint = np.asarray(self._rng.uniform(0.7, 1.0, 3), np.float32)
        across, down = -(-columns // size[0]), -(-rows // size[1])
        flipped = [[tile[:: (-1) ** j, :: (-1) ** i] for i in range(across)] for j in range(down)]
        surface = np.concatenate([np.concatenate(row, axis=1) for row in flipped])[:rows, :columns]
        return np.asarray(np.clip(surface, 0.0, 1.0) * tint, np.float32)

    def _hanging(self, columns: int, rows: int) -> list[tuple[int, int, int, int]]:
        """Left, top, width, height in samples of the pictures on the wall: a loose grid."""
        cell_x, cell_y = (round(side * SAMPLES_PER_PX * 1.12) for side in _POSTER_PX)
        places = []
        for top in range(0, rows - cell_y + 1, cell_y):
            for left in range(int(self._rng.integers(0, cell_x // 2)), columns - cell_x + 1, cell_x):
                scale = self._rng.uniform(0.75, 1.0, 2)
                width, height = (
                    round(s * p * SAMPLES_PER_PX) for s, p in zip(scale, _POSTER_PX, strict=True)
                )
                x, y = self._rng.integers(0, cell_x - width), self._rng.integers(0, cell_y - height)
                places.append((left + int(x), top + int(y), width, height))
        return places

    def _framed(self, width: int, height: int) -> Image32:
        frame, mat = round(4 * SAMPLES_PER_PX), round(9 * SAMPLES_PER_PX)
        colour = np.empty((height, width, 3), np.float32)
        colour[:] = self._rng.uniform(0.03, 0.12, 3)
        colour[frame:-frame, frame:-frame] = 0.85 * PAPER
        colour[mat:-mat, mat:-mat] = self._picture(width - 2 * mat, height - 2 * mat)
        return colour

    def _picture(self, width: int, height: int) -> Image32:
        """A part of the next photograph, about one of its pixels per picture pixel."""
        import cv2

        photo = self._next_photo()
        want = np.array([height, width]) / SAMPLES_PER_PX
        scale = min(self._rng.uniform(1.0, 1.4), *(np.array(photo.shape[:2]) / want))
        rows, columns = (max(int(s), 1) for s in want * scale)
        top = self._rng.integers(0, photo.shape[0] - rows + 1)
        left = self._rng.integers(0, photo.shape[1] - columns + 1)
        part = photo[top : top + rows, left : left + columns]
        part = np.ascontiguousarray(part[:, :: self._rng.choice((-1, 1))])
        print_ = cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC)
        return np.asarray(_BLACK + (_WHITE - _BLACK) * np.clip(print_, 0.0, 1.0), np.float32)

    def _next_photo(self) -> Image32:
        name = self._deck[self._dealt % len(self._deck)]
        self._dealt += 1
        return self._photos.load(str(name))

    def _plane(
        self, name: str, depth_mm: float, outline: Outline, colour: Image32, box_mm: Box
    ) -> ScenePlane:
        corner = (box_mm[0], box_mm[1])
        return ScenePlane(name, depth_mm, outline, colour, corner, self._pitch_mm(depth_mm))

    def _pitch_mm(self, depth_mm: float) -> float:
        return depth_mm / self._focal_px / SAMPLES_PER_PX

    def _shift_px(self, depth_mm: float) -> float:
        return self._focal_px * self._reach_mm / depth_mm

    def _mm(self, box_px: Box, depth_mm: float) -> Box:
        """World box of a picture box that is counted from the picture's centre."""
        left, top, right, bottom = (v * depth_mm / self._focal_px for v in box_px)
        return left + self._middle_mm, top, right + self._middle_mm, bottom
