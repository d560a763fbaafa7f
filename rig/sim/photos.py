"""Photographs for the simulated world: scikit-image's bundled ones, or those of a folder; linear light."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rig.errors import SceneError

Image32 = NDArray[np.float32]

# Inside scikit-image's wheel; its other samples would have to be downloaded.
BUNDLED_PHOTOS = (
    "astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "ihc", "camera", "coins",
)  # fmt: skip
BUNDLED_WALLS = ("brick", "gravel", "grass")
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})


class Photos:
    """Photographs to texture a world with.

    Args:
        folder: Folder with photographs; None takes the bundled ones.

    Raises:
        SceneError: The folder holds no photograph.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._loaded: dict[str, Image32] = {}
        self.names: Sequence[str] = BUNDLED_PHOTOS if folder is None else _listed(folder)

    def load(self, name: str) -> Image32:
        """Read one photograph as linear light in [0, 1], (H, W, 3) float32 RGB."""
        if name not in self._loaded:
            self._loaded[name] = _bundled(name) if self._folder is None else _from_file(self._folder / name)
        return self._loaded[name]

    @staticmethod
    def wall(name: str) -> Image32:
        """Read one of `BUNDLED_WALLS` as linear light in [0, 1], (H, W, 3) float32."""
        return _bundled(name)


def _listed(folder: Path) -> list[str]:
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise SceneError(
            f"{folder}: no photograph in this folder",
            next_step=f"give a folder with {', '.join(sorted(_SUFFIXES))} files, or leave --scene out",
        )
    return [p.name for p in paths]


def _bundled(name: str) -> Image32:
    package = Path(str(files("skimage")))
    return _from_file(next((package / "data").glob(f"{name}.*")))


def _from_file(path: Path) -> Image32:
    import cv2

    codes = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if codes is None:
        raise SceneError(f"{path}: cannot be read as a photograph", next_step="remove or replace the file")
    return srgb_to_linear(np.asarray(codes, np.uint8))


def srgb_to_linear(codes: NDArray[np.uint8]) -> Image32:
    """Linear light in [0, 1] of 8-bit sRGB codes (IEC 61966-2-1)."""
    value = np.arange(256) / 255
    table = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.take(table.astype(np.float32), codes))
