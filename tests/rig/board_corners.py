"""Where a printed sheet's chessboard corners lie, worked out from its measures alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from catalog.session_folder import BoardSpec
from rig.sim.boards import MARGIN_SQUARES


def inner_corners_mm(board: BoardSpec) -> NDArray[np.float64]:
    """Chessboard corners (N, 2) on the sheet in mm from its upper left corner, in the order of their ids."""
    across, down = np.arange(1, board.columns), np.arange(1, board.rows)
    grid = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
    return np.asarray((grid + MARGIN_SQUARES) * board.square_mm, np.float64)
