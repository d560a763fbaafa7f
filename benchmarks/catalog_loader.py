"""Random 256 x 256 crops of 2560 x 1440 pairs: our tile packs beside the loaders that training code uses today.

Rivals, written after the algorithms their documentation describes: A decodes both whole PNGs, converts them to float
and crops (BasicSR's paired loader); C does the same with 480-px sub-images at a step of 240, cut beforehand (what its
documentation advises). All draw the same crops from the same pairs in one process and give float RGB in CHW order;
`u8` gives what our loader hands over, bytes that the device converts. Cold: the files' pages are dropped first, and the
bytes that the disk read are counted. `wait`: see `benchmarks.catalog_loader_wait`.

Usage, on an otherwise idle machine: python -P -m benchmarks.catalog_loader [--pairs 12] [--crops 400] [--only wait]
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

from benchmarks.catalog_loader_wait import cold_reads, waits, write_export
from catalog.tile_pack import TileShard
from catalog.tile_pack_writer import PackPair, write_shard
from models.data import Turn

RESULT = Path(__file__).parent / "results" / "catalog_loader.json"
WIDTH, HEIGHT, CROP, SUB, STEP = 2560, 1440, 256, 480, 240
RUNS = 5
PARTS = ("8 bit", "16 bit", "wait")
Picture = NDArray[Any]
Window = tuple[int, int, int, tuple[bool, bool, bool]]
"""Pair, top, left, and how the crop is laid down."""


def photograph(seed: int, photos: Sequence[Picture]) -> Picture:
    """Fill a frame with pieces of photographs, unscaled, so that detail is real."""
    draw = np.random.default_rng(seed)
    frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    for top in range(0, HEIGHT, 240):
        for left in range(0, WIDTH, 320):
            photo = photos[int(draw.integers(len(photos)))]
            y, x = (
                int(draw.integers(0, n - m + 1)) for n, m in zip(photo.shape[:2], (240, 320), strict=True)
            )
            frame[top : top + 240, left : left + 320] = photo[y : y + 240, x : x + 320]
    return frame


def degraded(gt: Picture, seed: int) -> Picture:
    """Add noise of 6 code values, in 8 or 16 bits."""
    unit = 1 if gt.dtype == np.uint8 else 257
    noise = np.random.default_rng(seed).normal(0, 6 * unit, gt.shape)
    return np.clip(gt + noise, 0, np.iinfo(gt.dtype).max).astype(gt.dtype)


def make_pairs(count: int, *, deep: bool) -> list[PackPair]:
    """Make the pairs; the ground truth carries the little noise of a well lit frame."""
    photos = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    photos += [p for p in map(_rgb, sorted(_shared_photos())) if min(p.shape[:2]) >= 320]
    pairs = []
    for i in range(count):
        gt = np.clip(
            photograph(i, photos) + np.random.default_rng(i).normal(0, 1, (HEIGHT, WIDTH, 3)), 0, 255
        )
        gt = (gt * 257).astype(np.uint16) if deep else gt.astype(np.uint8)
        pairs.append(PackPair(f"{i:04d}", gt, degraded(gt, 1000 + i)))
    return pairs


def _shared_photos() -> list[Path]:
    return list((Path(__file__).parents[2] / "shared" / "data" / "photos" / "kodak").glob("*.png"))


def _rgb(path: Path) -> Picture:
    return np.asarray(cv2.imread(str(path)))[..., ::-1]


def draw_windows(count: int, pairs: int) -> list[Window]:
    """Draw crops that fit into a sub-image, so that every loader can give them."""
    draw = np.random.default_rng(7)
    windows: list[Window] = []
    for _ in range(count):
        sub_top, sub_left = (int(draw.integers(0, (n - SUB) // STEP + 1)) * STEP for n in (HEIGHT, WIDTH))
        top, left = (int(draw.integers(0, SUB - CROP + 1)) for _ in range(2))
        turn = tuple(bool(coin) for coin in draw.integers(0, 2, 3))
        windows.append((int(draw.integers(pairs)), sub_top + top, sub_left + left, turn))  # type: ignore[arg-type]
    return windows


def laid_down(crop: Picture, turn: tuple[bool, bool, bool]) -> Picture:
    """Mirror and transpose, as views."""
    crop = crop[:: -1 if turn[0] else 1, :: -1 if turn[1] else 1]
    return crop.swapaxes(0, 1) if turn[2] else crop


def as_float(crop: Picture) -> Picture:
    """Give float RGB in CHW order, as training code wants it."""
    return np.ascontiguousarray(crop.transpose(2, 0, 1), np.float32) / np.float32(np.iinfo(crop.dtype).max)


class WholePictures:
    """Rival A: decode both whole files, make them float, crop."""

    def __init__(self, folder: Path, pairs: Sequence[PackPair]) -> None:
        self._folder = folder
        for pair in pairs:
            for side, pixels in (("gt", pair.gt), ("lq", pair.lq)):
                cv2.imwrite(str(folder / f"{pair.id}_{side}.png"), pixels[..., ::-1])

    def reopened(self) -> WholePictures:
        """Hold nothing of the files; nothing is held."""
        return self

    def crop(self, window: Window) -> tuple[Picture, Picture]:
        """Load one crop pair as float."""
        number, top, left, turn = window
        wholes = (self._float(number, side) for side in ("gt", "lq"))
        gt, lq = (laid_down(w[top : top + CROP, left : left + CROP], turn) for w in wholes)
        return _chw(gt), _chw(lq)

    def _float(self, number: int, side: str) -> Picture:
        pixels = cv2.imread(str(self._folder / f"{number:04d}_{side}.png"), cv2.IMREAD_UNCHANGED)
        return np.asarray(pixels).astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


class SubPictures(WholePictures):
    """Rival C: the same with sub-images cut beforehand."""

    def __init__(self, folder: Path, pairs: Sequence[PackPair]) -> None:
        self._folder = folder
        for pair in pairs:
            for side, pixels in (("gt", pair.gt), ("lq", pair.lq)):
                for top in range(0, HEIGHT - SUB + 1, STEP):
                    for left in range(0, WIDTH - SUB + 1, STEP):
                        part = pixels[top : top + SUB, left : left + SUB, ::-1]
                        cv2.imwrite(str(folder / f"{pair.id}_{top}_{left}_{side}.png"), part)

    def crop(self, window: Window) -> tuple[Picture, Picture]:
        """Load one crop pair as float."""
        number, top, left, turn = window
        sub_top, sub_left = (min(at // STEP * STEP, n - SUB) for at, n in ((top, HEIGHT), (left, WIDTH)))
        sub_left = min(sub_left, (WIDTH - SUB) // STEP * STEP)
        sub_top = min(sub_top, (HEIGHT - SUB) // STEP * STEP)
        inside = (top - sub_top, left - sub_left)
        sides = []
        for side in ("gt", "lq"):
            pixels = cv2.imread(
                str(self._folder / f"{number:04d}_{sub_top}_{sub_left}_{side}.png"), cv2.IMREAD_UNCHANGED
            )
            whole = np.asarray(pixels).astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
            part = whole[inside[0] : inside[0] + CROP, inside[1] : inside[1] + CROP]
            sides.append(_chw(laid_down(part, turn)))
        return sides[0], sides[1]


class Tiles:
    """Ours."""

    def __init__(self, folder: Path, pairs: Sequence[PackPair], codec: Any, *, as_bytes: bool) -> None:
        path = folder / "pack-00000.tiles"
        if not path.exists():
            write_shard(path, pairs, codec=codec, tile_px=64, advance=lambda _: None)
        self._path, self._shard, self.as_bytes = path, TileShard(path), as_bytes

    def reopened(self) -> Tiles:
        """Hold nothing of the files: open them anew, index included."""
        self._shard = TileShard(self._path)
        return self

    def crop(self, window: Window) -> tuple[Picture, Picture]:
        """Load one crop pair."""
        number, top, left, turn = window
        found = self._shard.crop(number, top, left, CROP, CROP)
        if self.as_bytes:
            turned = Turn(mirror_x=turn[1], mirror_y=turn[0], transpose=turn[2])
            return turned.apply(found.gt), turned.apply(found.lq)
        return as_float(laid_down(found.gt, turn)), as_float(laid_down(found.lq, turn))


def _chw(crop_bgr: Picture) -> Picture:
    return np.ascontiguousarray(crop_bgr[..., ::-1].transpose(2, 0, 1))


def measure(crop: Callable[[Window], tuple[Picture, Picture]], windows: Sequence[Window]) -> dict[str, float]:
    """Crop pairs per CPU second and per second: least, median and most of five runs."""
    crop(windows[0])
    cpu, wall = [], []
    for _ in range(RUNS):
        began, began_cpu = time.monotonic(), _cpu_s()
        for window in windows:
            crop(window)
        cpu.append(len(windows) / (_cpu_s() - began_cpu))
        wall.append(len(windows) / (time.monotonic() - began))
    return {
        "pairs_per_cpu_s_min": round(min(cpu), 1),
        "pairs_per_cpu_s": round(median(cpu), 1),
        "pairs_per_cpu_s_max": round(max(cpu), 1),
        "pairs_per_s": round(median(wall), 1),
    }


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def disk_bytes(folder: Path) -> int:
    """Size of everything below a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def compare(pairs: Sequence[PackPair], crops: int, root: Path) -> dict[str, Any]:
    """Measure every way of loading, after seeing that all give the same pixels."""
    windows = draw_windows(crops, len(pairs))
    folders = {name: root / name for name in ("whole", "sub", "raw", "zstd")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    whole, sub = WholePictures(folders["whole"], pairs), SubPictures(folders["sub"], pairs)
    loaders: dict[str, tuple[Any, str, int]] = {
        "A whole pictures": (whole, "whole", max(crops // 20, 10)),
        "C sub-images": (sub, "sub", max(crops // 2, 10)),
        "tiles raw": (Tiles(folders["raw"], pairs, "raw", as_bytes=False), "raw", crops),
        "tiles raw, u8": (Tiles(folders["raw"], pairs, "raw", as_bytes=True), "raw", crops),
        "tiles zstd": (Tiles(folders["zstd"], pairs, "zstd", as_bytes=False), "zstd", crops),
        "tiles zstd, u8": (Tiles(folders["zstd"], pairs, "zstd", as_bytes=True), "zstd", crops),
    }
    _require_equal([loader for loader, _, _ in loaders.values()], windows[:20])
    pixels = len(pairs) * 2 * WIDTH * HEIGHT
    found = {
        name: {
            **measure(loader.crop, windows[:count]),
            "bytes_per_px": round(disk_bytes(folders[f]) / pixels, 3),
        }
        for name, (loader, f, count) in loaders.items()
    }
    for name, (loader, f, count) in loaders.items():
        files = [p for p in folders[f].rglob("*") if p.is_file()]
        found[name]["cold"] = cold_reads(files, lambda own=loader: own.reopened(), windows[: min(count, 100)])
    for row in found.values():
        row["over_A"] = round(row["pairs_per_cpu_s"] / found["A whole pictures"]["pairs_per_cpu_s"], 1)
        row["over_C"] = round(row["pairs_per_cpu_s"] / found["C sub-images"]["pairs_per_cpu_s"], 2)
        row["disk_of_C"] = round(row["bytes_per_px"] / found["C sub-images"]["bytes_per_px"], 3)
    return found


def _require_equal(loaders: Sequence[Any], windows: Sequence[Window]) -> None:
    for window in windows:
        crops = [_floats(loader.crop(window)) for loader in loaders]
        for gt, lq in crops[1:]:
            assert np.array_equal(gt, crops[0][0]), window
            assert np.array_equal(lq, crops[0][1]), window


def _floats(crops: tuple[Picture, Picture]) -> tuple[Picture, Picture]:
    gt, lq = (crop if crop.dtype == np.float32 else as_float(crop) for crop in crops)
    return gt, lq


def main() -> None:
    """Measure 8 and 16 bits, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--crops", type=int, default=400)
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, help="leave the other results as they are"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for part in options.only:
        with tempfile.TemporaryDirectory() as folder:
            pairs = make_pairs(options.pairs, deep=part == "16 bit")
            if part == "wait":
                kinds = ("files", "zstd", "raw")
                found = waits({k: write_export(Path(folder) / k, pairs, k) for k in kinds})
            else:
                found = compare(pairs, options.crops, Path(folder))
            result[part] = {"pairs": options.pairs, "crops": options.crops, **found}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
