"""Movies of the simulated camera: what goes in comes out, with the right tags."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from alignment.decode import open_movie
from rig.sim.encoder import MovieEncoder, to_yuv420

WIDTH, HEIGHT, PATCH = 640, 360, 40
BT709 = 1


def chart() -> np.ndarray:
    """Nine rows of sixteen patches: greys, ramps of the primaries and a spread of muted colours."""
    rng = np.random.default_rng(3)
    grey = np.repeat(np.linspace(0, 255, 16)[:, None], 3, axis=1)
    primaries = [np.linspace(20, 235, 16)[:, None] * axis + 30 * (1 - axis) for axis in np.eye(3)]
    patches = np.concatenate([grey, *primaries, rng.uniform(40, 215, (80, 3))]).reshape(9, 16, 3)
    return np.round(patches).astype(np.uint8).repeat(PATCH, axis=0).repeat(PATCH, axis=1)


def recorded(path: Path, pictures: list[np.ndarray], *, rate_hz: float = 30.0, crf: int = 10) -> Path:
    height, width = pictures[0].shape[:2]
    with MovieEncoder(path, width=width, height=height, rate_hz=rate_hz, crf=crf) as movie:
        for picture in pictures:
            movie.write(to_yuv420(picture))
    return path


def full_range_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Decode by the frame's own tags with the inverse matrix of ITU-R BT.709, chroma repeated."""
    planes = frame.to_ndarray(format="yuv420p").astype(np.float64)
    height, width = frame.height, frame.width
    luma = (planes[:height] - 16) / 219
    quarter = planes[height:].reshape(2, height // 2, width // 2)
    blue, red = ((c.repeat(2, axis=0).repeat(2, axis=1) - 128) / 224 for c in quarter)
    r, b = luma + 1.5748 * red, luma + 1.8556 * blue
    g = (luma - 0.2126 * r - 0.0722 * b) / 0.7152
    return np.stack([r, g, b], axis=-1) * 255


def patch_means(picture: np.ndarray) -> np.ndarray:
    patches = picture.reshape(HEIGHT // PATCH, PATCH, WIDTH // PATCH, PATCH, 3)
    return patches[:, 8:-8, :, 8:-8].mean(axis=(1, 3))


def test_a_chart_survives_recording_within_two_codes(tmp_path: Path):
    path = recorded(tmp_path / "chart.mov", [chart()] * 5)

    with av.open(str(path)) as movie:
        frames = list(movie.decode(video=0))

    assert len(frames) == 5
    for frame in (frames[0], frames[-1]):
        error = patch_means(full_range_rgb(frame)) - patch_means(chart().astype(np.float64))
        assert np.abs(error).max() < 2


def test_a_chart_survives_the_products_own_decoder_within_two_codes(tmp_path: Path):
    path = recorded(tmp_path / "chart.mov", [chart()] * 2)

    with open_movie([path]) as movie:
        decoded = movie.read(1).rgb().astype(np.float64)

    assert np.abs(patch_means(decoded) - patch_means(chart().astype(np.float64))).max() < 2


def test_the_stream_says_bt709_limited_range_in_every_tag(tmp_path: Path):
    path = recorded(tmp_path / "chart.mov", [chart()])

    with av.open(str(path)) as movie:
        context = movie.streams.video[0].codec_context
        frame = next(movie.decode(video=0))

    tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
    assert [int(tag) for tag in tags] == [BT709, BT709, BT709, BT709]
    assert (int(frame.colorspace), int(frame.color_range)) == (BT709, BT709)


def test_colour_stays_where_its_luma_is():
    """A red bar on grey of the same luma-free kind: the centroid of its chroma, sampled on even columns,
    is the bar's middle, x = 40 (columns 32 to 48)."""
    picture = np.full((16, 80, 3), 120, np.uint8)
    picture[:, 32:49] = (180, 110, 110)

    planes = to_yuv420(picture)
    red = planes[20:24].reshape(8, 40).astype(np.float64)[4] - 128

    assert (red * np.arange(0, 80, 2)).sum() / red.sum() == pytest.approx(40.0, abs=0.3)


def test_luma_follows_bt709():
    """Y' = 16 + 219 (0.2126 R + 0.7152 G + 0.0722 B)/255: pure green 173, blue 32, white 235."""
    colours = np.array([[0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]], np.uint8)

    luma = [int(to_yuv420(np.tile(c, (2, 4, 1)).astype(np.uint8))[0, 0]) for c in colours]

    assert luma == [173, 32, 235, 16]


@pytest.mark.parametrize("rate_hz", [30.0, 29.97, 25.0])
def test_frames_come_at_a_constant_rate_in_order(tmp_path: Path, rate_hz: float):
    pictures = [np.full((128, 160, 3), 20 + 10 * i, np.uint8) for i in range(12)]

    path = recorded(tmp_path / "steps.mov", pictures, rate_hz=rate_hz)

    with av.open(str(path)) as movie:
        frames = list(movie.decode(video=0))
    times_s = [float(f.pts * f.time_base) for f in frames]
    np.testing.assert_allclose(times_s, np.arange(12) / rate_hz, atol=1e-4)
    levels = [full_range_rgb(f).mean() for f in frames]
    np.testing.assert_allclose(levels, 20 + 10 * np.arange(12), atol=1.5)


def test_a_recording_that_fails_passes_its_own_error_on(tmp_path: Path):
    movie = MovieEncoder(tmp_path / "broken.mov", width=160, height=128, rate_hz=30, crf=10)

    with pytest.raises(ValueError, match="shape"), movie:
        movie.write(np.zeros((10, 10), np.uint8))
