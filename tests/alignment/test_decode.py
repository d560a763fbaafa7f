"""Decoding of real movie files and stills: colours, times, random access, damage."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alignment.decode import list_stills, open_movie, open_stills, probe, read_still
from alignment.errors import DecodeError
from catalog.session_folder import ColourTags

WEIGHTS = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114)}
CODES = {"bt709": 1, "smpte170m": 6}


def chart() -> NDArray[np.uint8]:
    """Sixteen grey steps, the corners of the RGB cube at two levels, and 40 patches of mixed colour."""
    greys = [(g, g, g) for g in range(0, 256, 17)]
    cube = [(r, g, b) for r in (16, 235) for g in (16, 235) for b in (16, 235)]
    mixed = np.random.default_rng(5).integers(0, 256, (40, 3)).tolist()
    patches = np.array(greys + cube + mixed, dtype=np.uint8).reshape(8, 8, 3)
    return np.kron(patches, np.ones((16, 32, 1), dtype=np.uint8)).astype(np.uint8)


def encode_planes(rgb: NDArray[np.uint8], matrix: str = "bt709", *, full: bool = False) -> NDArray[np.uint8]:
    """Convert RGB to the planes of 8-bit 4:2:0 by the definition of ITU-T H.273."""
    kr, kb = WEIGHTS[matrix]
    r, g, b = np.moveaxis(rgb.astype(float) / 255, -1, 0)
    luma = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - luma) / (2 * (1 - kb)), (r - luma) / (2 * (1 - kr))
    y = 255 * luma if full else 16 + 219 * luma
    chroma = [128 + (255 if full else 224) * c[::2, ::2] for c in (cb, cr)]
    planes = np.concatenate([p.ravel() for p in (y, *chroma)])
    return np.clip(np.rint(planes), 0, 255).astype(np.uint8).reshape(-1, rgb.shape[1])


def write_movie(
    path: Path,
    planes: Sequence[NDArray[np.uint8]],
    *,
    matrix: str | None = "bt709",
    full: bool = False,
    ticks: Sequence[int] | None = None,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Write YUV 4:2:0 frames as nearly lossless H.264."""
    with av.open(str(path), "w", options=container or {}) as movie:
        stream = movie.add_stream("libx264", rate=30)
        stream.width, stream.height = planes[0].shape[1], planes[0].shape[0] * 2 // 3
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "1", **(options or {})}
        stream.codec_context.time_base = Fraction(1, 30000)
        if rotation:
            stream.set_display_rotation(rotation)
        if matrix:
            stream.codec_context.colorspace = CODES[matrix]
            stream.codec_context.color_range = 2 if full else 1
        for i, plane in enumerate(planes):
            frame = av.VideoFrame.from_ndarray(plane, format="yuv420p")
            frame.pts, frame.time_base = (ticks[i] if ticks else i * 1001), Fraction(1, 30000)
            movie.mux(stream.encode(frame))
        movie.mux(stream.encode(None))
    return path


def numbered(count: int) -> list[NDArray[np.uint8]]:
    """Frames whose luma code is 20 + 3 i."""
    return [
        np.vstack([np.full((64, 96), 20 + 3 * i, np.uint8), np.full((32, 96), 128, np.uint8)])
        for i in range(count)
    ]


def number_of(grey: NDArray[np.uint8]) -> int:
    """Invert `numbered` from the decoded full-range luma."""
    return round((float(grey.mean()) / 255 * 219 + 16 - 20) / 3)


@pytest.mark.parametrize(
    ("matrix", "full"), [("bt709", False), ("bt709", True), ("smpte170m", False)], ids=str
)
def test_a_grey_and_colour_chart_survives_a_movie_within_two_codes(
    tmp_path: Path, matrix: str, full: bool
) -> None:
    planes = [encode_planes(chart(), matrix, full=full)] * 3
    path = write_movie(tmp_path / "c.mov", planes, matrix=matrix, full=full, options={"crf": "0"})

    with open_movie([path]) as movie:
        decoded = movie.read(1).rgb().astype(int)

    inner = np.zeros((16, 32), bool)
    inner[3:-3, 6:-6] = True  # away from patch borders, which 4:2:0 mixes
    error = np.abs(decoded - chart().astype(int))[np.tile(inner, (8, 8))]
    assert error.max() <= 2


def test_the_tags_of_a_stream_are_read_and_those_given_win(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "m.mov", [encode_planes(chart())] * 2)

    tags = probe(path).colour

    assert (tags.matrix, tags.range, tags.chroma_location) == ("bt709", "tv", "left")
    with open_movie([path], colour=ColourTags(range="pc")) as movie:
        assert movie.read(0).grey().min() == 16  # limited black read as full range stays at its code


def test_chroma_is_sited_left_of_its_luma_pair(tmp_path: Path) -> None:
    """A ramp of red chroma, one code per sample, is at sample i where luma is at 2 i."""
    ramp = np.tile((80 + np.arange(48)).astype(np.uint8), (32, 1))
    luma, blue = np.full((64, 96), 128, np.uint8), np.full((32, 48), 128, np.uint8)
    planes = np.concatenate([luma.ravel(), blue.ravel(), ramp.ravel()]).reshape(96, 96)
    path = write_movie(tmp_path / "ramp.mov", [planes] * 2, options={"crf": "0"})

    with open_movie([path]) as movie:
        red = movie.read(0).rgb()[..., 0].mean(axis=0)

    code = (red - 255 * 112 / 219) / 255 * 224 / 1.5748 + 128
    offset = np.arange(96)[8:-8] - 2 * (code[8:-8] - 80)
    assert np.abs(offset.mean()) < 0.1


def test_ten_bit_frames_become_eight_bits(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "ten.mov"), "w") as movie:
        stream = movie.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p10le"
        stream.options = {"crf": "0"}
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
        frame = av.VideoFrame(96, 64, "yuv420p10le")
        for plane, code in zip(frame.planes, (64 + 438, 512, 512), strict=True):
            plane.update(np.full(plane.buffer_size // 2, code, "<u2").tobytes())
        movie.mux(stream.encode(frame))
        movie.mux(stream.encode(None))

    with open_movie([tmp_path / "ten.mov"]) as movie:
        frame0 = movie.read(0)

    assert np.abs(frame0.rgb().astype(int) - 128).max() <= 1  # half of 876 codes is half of 255
    assert np.abs(frame0.grey().astype(int) - 128).max() <= 1


def test_times_are_the_containers_own_and_start_at_zero(tmp_path: Path) -> None:
    ticks = [3003, 4004, 6006, 6106, 9009]
    path = write_movie(tmp_path / "vfr.mov", numbered(5), ticks=ticks)

    info = probe(path)

    seconds = [float(t * info.time_base) for t in info.pts]
    assert seconds == pytest.approx([(t - 3003) / 30000 for t in ticks], abs=1e-9)
    assert info.frame_count == 5


@pytest.mark.parametrize("bframes", ["0", "3"])
def test_any_frame_can_be_asked_for_in_any_order(tmp_path: Path, bframes: str) -> None:
    path = write_movie(tmp_path / "n.mov", numbered(70), options={"g": "12", "bf": bframes})
    order = [0, 69, 3, 4, 30, 29, 28, 65, 2, 68]

    with open_movie([path]) as movie:
        read = [movie.read(i) for i in order]
        forward = [number_of(f.grey()) for f in movie.frames(10, 20)]

    assert [f.index for f in read] == order
    assert [number_of(f.grey()) for f in read] == order
    assert forward == list(range(10, 20))


def test_codecs_that_tell_motion_are_told_from_those_that_do_not(tmp_path: Path) -> None:
    motion = write_movie(tmp_path / "motion.mov", numbered(3))
    with av.open(str(tmp_path / "pictures.avi"), "w") as movie:
        stream = movie.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        movie.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(1)[0], format="yuvj420p")))
        movie.mux(stream.encode(None))
    Image.new("RGB", (96, 64)).save(tmp_path / "still.png")

    with open_movie([motion]) as movie:
        assert movie.motion_coded
    with open_movie([tmp_path / "pictures.avi"]) as movie:
        assert not movie.motion_coded
    with open_stills([tmp_path / "still.png"]) as stills:
        assert not stills.motion_coded


def test_split_files_read_as_one_movie(tmp_path: Path) -> None:
    parts = [
        write_movie(tmp_path / "a.mov", numbered(70)[:40]),
        write_movie(tmp_path / "b.mov", numbered(70)[40:]),
    ]

    with open_movie(parts) as movie:
        seen = [number_of(f.grey()) for f in movie.frames()]
        late = movie.read(55)

    assert seen == list(range(70))
    assert late.index == 55


def test_a_rotated_movie_is_shown_upright(tmp_path: Path) -> None:
    """The top left quarter is white; turned clockwise by 90 degrees it is at the top right."""
    planes = numbered(1)[0]
    planes[:64] = 16
    planes[:32, :48] = 235
    path = write_movie(tmp_path / "r.mov", [planes] * 2, rotation=-90)

    with open_movie([path]) as movie:
        grey, rgb = movie.read(0).grey(), movie.read(0).rgb()

    assert (probe(path).width, probe(path).height, probe(path).colour.rotation_deg) == (64, 96, 90)
    assert grey.shape == (96, 64)
    assert rgb.shape == (96, 64, 3)
    assert grey[:40, 36:].min() > 230
    assert grey[:, :28].max() < 25


def test_a_truncated_movie_names_the_frame_it_reaches(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(16, 235, (40, 96, 96)).astype(np.uint8)
    path = write_movie(tmp_path / "t.mov", list(noise), container={"movflags": "faststart"})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(DecodeError, match=r"t\.mov: only (1\d|2\d) of 40 frames"):
        probe(path)


@pytest.mark.parametrize("content", [b"", b"no movie at all" * 100])
def test_what_is_no_movie_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.mov"
    path.write_bytes(content)

    with pytest.raises(DecodeError, match=r"x\.mov: cannot be read as a movie, frame 0"):
        open_movie([path])


def test_stills_come_in_order_and_upright(tmp_path: Path) -> None:
    """EXIF orientation 6: the camera was turned, rotate clockwise for display."""
    for i in (2, 0, 1):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.full((20, 30, 3), 60 * i, np.uint8)).save(tmp_path / f"{i:06d}.png", exif=exif)
    (tmp_path / "times.csv").write_text("index,time_s\n")

    paths = list_stills(tmp_path)
    with open_stills(paths) as stills:
        pictures = [f.rgb() for f in stills.frames()]

    assert [p.name for p in paths] == ["000000.png", "000001.png", "000002.png"]
    assert [p.shape for p in pictures] == [(30, 20, 3)] * 3
    assert [int(p[0, 0, 0]) for p in pictures] == [0, 60, 120]


def test_a_still_that_ends_early_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.jpg"
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (90, 90, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])

    with pytest.raises(DecodeError, match=r"s\.jpg: cannot be read"):
        read_still(path)


def test_no_more_than_a_few_dozen_frames_are_held(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "long.mov", numbered(70))

    with open_movie([path]) as movie:
        for _ in movie.frames():
            pass
        held = len(movie._cache)

    assert held <= 36


def test_frames_that_are_kept_need_not_be_decoded_again(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "long.mov", numbered(70))

    with open_movie([path], cached_frames=70) as movie:
        first = list(movie.frames())
        path.write_bytes(b"")

        assert [movie.read(index) for index in range(69, -1, -1)] == first[::-1]


def test_a_frame_number_outside_the_movie_is_an_index_error(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "n.mov", numbered(3))

    with open_movie([path]) as movie, pytest.raises(IndexError, match="frame 3 of 3"):
        movie.read(3)
