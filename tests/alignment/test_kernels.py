"""Kernels beside plain implementations of the same: whole planes, double precision, one thing after the other."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import skimage.data
from numba.core.caching import FunctionCache
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, correlate1d, map_coordinates

from alignment.camera_motion import Pinhole, jacobian, map_points, motion_matrix
from alignment.kernels.colour import rgb_of_planes
from alignment.kernels.compiling import compiled
from alignment.kernels.reweighting import reweighted
from alignment.kernels.tables import looked_up, looked_up_by_root
from alignment.kernels.tile_products import tile_detail, tile_products
from alignment.tiles import IN_PLACE, TileGrid, compare_tiles, shifts_px

Array = NDArray[np.float64]
SIZE = (224, 160)
CAMERA = Pinhole(300.0, *SIZE)
PAD_PX = 8


@pytest.fixture(scope="module")
def frames() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two smoothed frames of the same photograph under noise of their own, three pixels apart."""
    rng = np.random.default_rng(1)
    photo = skimage.data.camera()[150:350, 100:360].astype(np.float32)
    first, second = photo[10:170, 12:236], photo[8:168, 9:233]
    noisy = [f + rng.normal(0, 4, f.shape).astype(np.float32) for f in (first, second)]
    return tuple(cv2.GaussianBlur(f, (7, 7), 0.866) for f in noisy)


def doubled(plane: NDArray[np.float32]) -> Array:
    """Zeros between the pixels, then 1-4-6-4-1 over 8 both ways; the last pixels go on beyond the border."""
    wide = np.pad(plane.astype(float), PAD_PX, mode="edge")
    fine = np.zeros((2 * wide.shape[0], 2 * wide.shape[1]))
    fine[::2, ::2] = wide
    for axis in (0, 1):
        fine = convolve1d(fine, np.array([1, 4, 6, 4, 1]) / 8, axis=axis, mode="nearest")
    return fine


def sampled(plane: NDArray[np.float32], to_plane: Array, grid: TileGrid) -> Array:
    """What a plane shows on the tiles and two pixels around them: bilinear in the doubled plane, pixel by pixel."""
    y, x = np.mgrid[-2 : grid.height + 2, -2 : grid.width + 2].astype(float)
    at = map_points(to_plane, np.column_stack([x.ravel() + grid.x0, y.ravel() + grid.y0]))
    found = map_coordinates(doubled(plane), 2 * (at.T[::-1] + PAD_PX), order=1, mode="nearest")
    return found.reshape(x.shape)


def in_line(grid: TileGrid) -> Array:
    """No tile beside where the map puts it."""
    return np.zeros((grid.rows * grid.columns, 2))


def plain_products(g: Array, l: Array, grid: TileGrid, *, upright: float = 1.0) -> Array:
    """The 22 means of every tile."""
    gradients = [
        [correlate1d(plane, np.array([0.1306, -0.7527, 0, 0.7527, -0.1306]), axis=axis) for axis in (1, 0)]
        for plane in (g, l)
    ]
    along, down = (correlate1d(g, np.array([1.0, -2.0, 1.0]), axis=axis) for axis in (1, 0))
    bend = along + upright * down
    rows = []
    for tile in range(grid.rows * grid.columns):
        top, left = (2 + grid.tile_px * i for i in divmod(tile, grid.columns))
        part = np.s_[top : top + grid.tile_px, left : left + grid.tile_px]
        means = g[part].mean(), l[part].mean()
        a, b = g[part] - means[0], l[part] - means[1]
        (x, y), (p, q) = ([d[part] for d in both] for both in gradients)
        factors = [
            (a, a),
            (a, b),
            (b, b),
            (x, a),
            (y, a),
            (x, b),
            (y, b),
            (x, x),
            (x, y),
            (y, y),
            (x, 1),
            (y, 1),
        ]
        c = bend[part]
        rows.append([
            *means, *((u * v).mean() for u, v in factors), (x * p + y * q).mean(), (p * p + q * q).mean(),
            *((u * c).mean() for u in (c, a, b, x, y, 1)),
        ])  # fmt: skip
    return np.array(rows)


@pytest.mark.parametrize("tile_px", [16, 32])
@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param([0.0, 0.0, 0.0, 0.0], id="in place"),
        pytest.param([0.0021, -0.0013, 0.002, 0.0], id="turned"),
        pytest.param([0.001, 0.0004, 0.02, 0.01], id="turned by a degree, larger by 1 per cent"),
    ],
)
def test_products_of_tiles_are_those_of_whole_planes(frames, tile_px, parameters):
    """A thousandth of the products, or of what could be; at the border too, where both go on with the last pixel."""
    grid = TileGrid.over(SIZE, scale=1, tile_px=tile_px)
    to_gt = motion_matrix("scale", CAMERA, np.array(parameters))

    found = tile_products(frames[0], to_gt, frames[1], IN_PLACE, grid.layout, np.float32(0.25), in_line(grid))

    gt, lq = sampled(frames[0], to_gt, grid), sampled(frames[1], IN_PLACE, grid)
    expected = plain_products(gt, lq, grid, upright=0.25)
    size = np.sqrt(np.mean(expected**2, axis=0))
    size[19:21] = np.sqrt(size[[9, 11]] * size[16])  # of odd times even, which all but cancels
    assert np.all(np.abs(found - expected) < 4e-3 * np.maximum(size, np.abs(expected)) + 1e-3)
    assert np.all(np.sqrt(np.mean((found - expected) ** 2, axis=0)) < 1e-3 * size + 1e-4)


def test_a_tile_beside_the_others_is_compared_where_it_is(frames):
    """As if the whole ground truth had been moved by as much; its neighbours stay what they were."""
    grid, none = TileGrid.over(SIZE, scale=2, tile_px=16), np.eye(3)
    tile, way_px = grid.columns + 1, np.array([1.4, -0.6])
    beside_px = np.zeros((grid.rows * grid.columns, 2))
    beside_px[tile] = way_px
    moved = np.array([[1, 0, -way_px[0] / 2], [0, 1, -way_px[1] / 2], [0, 0, 1]])

    found = compare_tiles(frames[0], none, frames[1], IN_PLACE, grid, beside_px=beside_px)

    alone = compare_tiles(frames[0], moved, frames[1], IN_PLACE, grid)
    others = compare_tiles(frames[0], none, frames[1], IN_PLACE, grid)
    assert found.score[tile] == pytest.approx(alone.score[tile], rel=1e-5)
    assert np.array_equal(np.delete(found.score, tile, axis=0), np.delete(others.score, tile, axis=0))


@pytest.mark.parametrize("shift_px", [0.05, 0.1])
def test_fine_detail_is_told_to_two_hundredths_of_its_shift(shift_px):
    """White noise, smoothed as frames are: central differences would tell a fifth too much."""
    wave = np.fft.fft2(np.random.default_rng(4).normal(0, 400, (256, 256)))
    across, down = np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256))
    wave *= np.exp(-2 * (np.pi * 0.75**0.5) ** 2 * (across**2 + down**2))
    gt, lq = (
        np.fft.ifft2(wave * np.exp(-2j * np.pi * across * way)).real.astype(np.float32)
        for way in (0.0, shift_px)
    )

    tiles = compare_tiles(gt, IN_PLACE, lq, IN_PLACE, TileGrid.over((256, 256), scale=1, tile_px=32))

    assert np.median(shifts_px(tiles.information, tiles.score)[:, 0]) == pytest.approx(shift_px, rel=0.02)


def test_the_shift_of_a_tile_is_that_of_whole_planes(frames):
    """To a thousandth of a pixel, by equations written out for each tile."""
    grid = TileGrid.over(SIZE, scale=1, tile_px=32)
    to_gt = np.array([[1, 0, -3.2], [0, 1, -1.9], [0, 0, 1.0]])

    tiles = compare_tiles(frames[0], to_gt, frames[1], IN_PLACE, grid)

    rows = plain_products(sampled(frames[0], to_gt, grid), sampled(frames[1], IN_PLACE, grid), grid)
    for found, score, row in zip(tiles.information, tiles.score, rows, strict=True):
        gg, gl, on_gt, on_lq = row[2], row[3], row[5:7], row[7:9]
        bb, gb, lb, mean = row[16] - row[21] ** 2, row[17], row[18], row[21]
        nuisance = np.array([[gg, gb], [gb, bb]])
        gain, bend = np.linalg.solve(nuisance, [gl, lb])
        on_both = np.column_stack([on_gt, row[19:21] - row[12:14] * mean])
        moments = row[[9, 10, 10, 11]].reshape(2, 2) - np.outer(row[12:14], row[12:14])
        normal = gl / gg * (moments - on_both @ np.linalg.solve(nuisance, on_both.T))
        expected = -np.linalg.solve(normal, on_lq - on_both @ [gain, bend])
        assert np.linalg.solve(found, score) == pytest.approx(expected, abs=1e-3)


def test_equal_input_gives_equal_bits(frames):
    grid = TileGrid.over(SIZE, scale=1, tile_px=32)
    to_gt = motion_matrix("rotation", CAMERA, np.array([0.001, 0.002, 0.003]))

    runs = [
        tile_products(
            frames[0].copy(), to_gt, frames[1].copy(), IN_PLACE, grid.layout, np.float32(1), in_line(grid)
        )
        for _ in range(3)
    ]

    assert runs[0].tobytes() == runs[1].tobytes() == runs[2].tobytes()


_HASH_OF_DETAIL = """
import hashlib
import numpy as np
from alignment.kernels.tile_products import tile_detail
frames = np.random.default_rng(0).normal(size=(2, 96, 128)).astype(np.float32)
found = tile_detail(frames[0], np.eye(3), frames[1], np.eye(3), (0, 0, 32, 4, 3))
print(hashlib.sha256(found.tobytes()).hexdigest())
"""


def test_code_just_compiled_gives_the_bytes_of_code_read_back(tmp_path):
    """Or a round's first run on a machine would be other bytes than its second, and a worker's than another's."""
    places = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    hashes = [
        subprocess.run(
            [sys.executable, "-P", "-c", _HASH_OF_DETAIL],
            env=places,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]

    assert list(tmp_path.rglob("*.nbc"))
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("row", [[1.0, 0.0, -100.0], [0.0, 0.0, 0.0], [np.nan, 0.0, 1.0]])
def test_a_map_through_the_horizon_reads_nothing_outside_of_the_plane(frames, row):
    """Columns left of 100 lie behind the camera; every tile gets some pixel of the frame."""
    grid = TileGrid.over(SIZE, scale=1, tile_px=32)
    to_gt = np.array([[1.0, 0, 0], [0, 1.0, 0], row])

    for kernel, more in ((tile_products, (np.float32(1), in_line(grid))), (tile_detail, ())):
        assert np.isfinite(kernel(frames[0], to_gt, frames[1], IN_PLACE, grid.layout, *more)).all()


def plain_fit(
    information: Array, score: Array, jacobians: Array, usable: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Tukey's biweight, cut at 16, by the normal equations of the tiles' own information."""
    weight = usable.astype(float)
    for _ in range(10):
        normal = np.einsum("k,kip,kij,kjq->pq", weight, jacobians, information, jacobians)
        right = np.einsum("k,kip,ki->p", weight, jacobians, score)
        parameters = np.linalg.solve(normal, right)
        rest = np.linalg.solve(information, score[..., None])[..., 0] - jacobians @ parameters
        misfit = np.einsum("ki,kij,kj->k", rest, information, rest)
        ordered = np.sort(misfit[usable])
        inflation = ordered[len(ordered) // 2] / 1.386
        previous, weight = weight, usable * np.maximum(1 - misfit / inflation / 16, 0) ** 2
        if np.abs(weight - previous).max() < 0.01:
            break
    return parameters, weight


@pytest.mark.parametrize("model", ["shift", "rotation", "homography"])
def test_a_reweighted_fit_is_that_of_the_plain_equations(model):
    """Three hundred tiles, a fifth of which moved on their own and a tenth of which must not be asked."""
    rng = np.random.default_rng(2)
    centres = rng.uniform(0, 1, (300, 2)) * SIZE
    jacobians = np.ascontiguousarray(jacobian(model, CAMERA, centres))
    root = rng.normal(0, 5, (300, 2, 2))
    information = root @ root.transpose(0, 2, 1) + 10 * np.eye(2)
    shift = jacobians @ rng.normal(0, 1e-3, jacobians.shape[2]) + rng.normal(0, 0.1, (300, 2))
    shift[:60] += 3.0
    score = np.einsum("kij,kj->ki", information, shift)
    usable = np.arange(300) % 10 > 0

    good, parameters, _, _, weight, _ = reweighted(
        information, score, jacobians, usable, np.zeros(jacobians.shape[2]), (16.0, 1.386)
    )

    expected, weights = plain_fit(information, score, jacobians, usable)
    assert good
    assert parameters == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert weight == pytest.approx(weights, abs=1e-6)
    assert np.mean(weight[:60] == 0) > 0.9


def test_tiles_that_tell_nothing_determine_nothing():
    information, score = np.zeros((50, 2, 2)), np.zeros((50, 2))
    jacobians = np.ascontiguousarray(
        jacobian("rotation", CAMERA, np.random.default_rng(3).uniform(0, 100, (50, 2)))
    )

    assert not reweighted(
        information, score, jacobians, np.ones(50, bool), np.zeros(jacobians.shape[2]), (16.0, 1.386)
    )[0]


def test_a_kernel_that_cannot_be_kept_is_compiled_all_the_same():
    """Code without a file has no place beside it, as in an installation nobody may write to."""
    names: dict[str, object] = {}
    exec("def twice(x):\n    return 2 * x", names)  # noqa: S102

    assert compiled("float64(float64)")(names["twice"])(21.0) == 42.0


def test_a_full_disk_keeps_no_machine_code_and_costs_nothing_else(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def twice(x: float) -> float:
        return 2 * x

    monkeypatch.setattr(FunctionCache, "save_overload", full)

    assert compiled("float64(float64)")(twice)(21.0) == 42.0


def test_codes_that_are_no_numbers_read_nothing_outside_of_the_table():
    """They come out as black, as the least code does."""
    codes = np.array([np.nan, -np.inf, np.inf, 0.0], np.float32)
    table = np.linspace(0, 1, 65536).astype(np.float32)

    assert looked_up(codes, table).tolist() == [0.0, 0.0, 1.0, 0.0]
    assert looked_up_by_root(codes, np.float32(1.0), table).tolist() == [0.0, 0.0, 1.0, 0.0]


def interpolated(
    plane: NDArray[np.integer], size: tuple[int, int], step: tuple[int, int], offset: tuple[float, float]
) -> Array:
    """Samples of a plane under every pixel, bilinear, the last ones going on beyond the border."""
    y, x = np.mgrid[: size[1], : size[0]].astype(float)
    at = [(y - offset[1]) / step[1], (x - offset[0]) / step[0]]
    return map_coordinates(plane.astype(float), at, order=1, mode="nearest")


@pytest.mark.parametrize(
    ("bits", "step", "offset"),
    [(8, (2, 2), (0.0, 0.5)), (8, (2, 2), (0.5, 0.5)), (10, (2, 1), (0.0, 0.0)), (12, (1, 1), (0.0, 0.0))],
    ids=str,
)
def test_pixels_are_the_nearest_to_what_the_planes_say(
    bits: int, step: tuple[int, int], offset: tuple[float, float]
) -> None:
    """Any three samples and any matrix: half a code off at most, and cut off at black and at white."""
    rng = np.random.default_rng(bits)
    size, dtype = (37, 23), np.uint8 if bits == 8 else np.uint16
    chroma_size = -(-size[0] // step[0]), -(-size[1] // step[1])
    planes = tuple(
        rng.integers(0, 2**bits, (height, width + 11)).astype(dtype)
        for width, height in (size, chroma_size, chroma_size)
    )
    matrix = np.array([[1.2, 0.3, -0.9, 40], [1, -0.2, 0.5, -30], [1.1, 1.9, 0, -90]]) / 2 ** (bits - 8)

    found = rgb_of_planes(planes, (size, chroma_size), step, offset, matrix.astype(np.float32))

    full = [planes[0][:, : size[0]].astype(float)]
    full += [interpolated(p[:, : chroma_size[0]], size, step, offset) for p in planes[1:]]
    expected = np.clip(np.stack(full, axis=-1) @ matrix[:, :3].T + matrix[:, 3], 0, 255)
    assert np.abs(found - expected).max() <= 0.5 + 1e-3
    assert found.min() == 0
    assert found.max() == 255
