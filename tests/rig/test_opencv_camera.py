"""The UVC kind of camera: OpenCV's real capture code on an MJPEG stream over loopback."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
from numbered_frames import background, number_of, numbered
from v4l_device import V4lDevice

from alignment.decode import open_movie, open_stills, probe
from catalog.session_folder import ExposureSettings
from rig.clock import SessionClock
from rig.devices.camera import CardFile
from rig.devices.frame_audit import FrameGap, find_gaps
from rig.devices.opencv_camera import OpencvCamera, UvcSettings
from rig.errors import DeviceError, DeviceNotFoundError, DeviceTimeoutError, SettingRefusedError
from rig.sim.mjpeg import MjpegServer, paced

WIDTH, HEIGHT, RATE_HZ = 320, 192, 50.0
PICTURE = background(WIDTH, HEIGHT)
Frames = Callable[[], Iterator[bytes]]


def every(number: int) -> bytes:
    return numbered(PICTURE, number)


@pytest.fixture
def serve() -> Iterator[Callable[[Frames], str]]:
    servers: list[MjpegServer] = []

    def start(frames: Frames) -> str:
        servers.append(MjpegServer(frames))
        return servers[-1].address

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def open_camera(tmp_path: Path) -> Iterator[Callable[..., OpencvCamera]]:
    cameras: list[OpencvCamera] = []

    def start(path: str, **changes: object) -> OpencvCamera:
        settings = UvcSettings.model_validate(
            {
                "kind": "uvc",
                "path": path,
                "width": WIDTH,
                "height": HEIGHT,
                "frame_rate_hz": RATE_HZ,
                **changes,
            }
        )
        cameras.append(OpencvCamera(settings, SessionClock(), spool=tmp_path / "spool"))
        cameras[-1].open()
        return cameras[-1]

    yield start
    for camera in cameras:
        camera.close()


def record(camera: OpencvCamera, duration_s: float) -> tuple[CardFile, ...]:
    camera.start_movie()
    time.sleep(duration_s)
    return camera.stop_movie()


def numbers_in(files: tuple[CardFile, ...]) -> list[int]:
    paths = [Path(f.folder) / f.name for f in files]
    with open_movie(paths) as movie:
        return [number_of(frame.grey()) for frame in movie.frames()]


def test_frames_are_recorded_as_they_came_none_missing_none_twice(serve, open_camera):
    camera = open_camera(serve(lambda: paced(every, rate_hz=RATE_HZ, count=3000)))

    files = record(camera, 2.5)

    numbers = numbers_in(files)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) >= 100
    assert sum(len(f.arrivals.arrived_s) for f in files if f.arrivals) == len(numbers)


def test_a_segment_is_sealed_every_second(serve, open_camera):
    """2.5 s in segments of at most 1 s are 3."""
    camera = open_camera(serve(lambda: paced(every, rate_hz=RATE_HZ)))

    files = record(camera, 2.5)

    assert len(files) == 3
    assert all(probe(Path(f.folder) / f.name).codec == "mjpeg" for f in files)


def test_frames_that_the_source_dropped_or_sent_twice_are_found(serve, open_camera):
    """Numbers 60 to 62 never come; 100 comes twice in the place of 101."""

    def series(number: int) -> bytes:
        shown = number + 3 if number >= 60 else number
        return numbered(PICTURE, 100 if shown == 101 else shown)

    def frames() -> Iterator[bytes]:
        for number, jpeg in enumerate(
            paced(lambda k: series(k if k < 60 else k - 3), rate_hz=RATE_HZ, count=600)
        ):
            if not 60 <= number < 63:
                yield jpeg

    camera = open_camera(serve(frames))

    files = record(camera, 3.0)

    numbers = numbers_in(files)
    times = [t for f in files if f.arrivals for t in f.arrivals.arrived_s]
    duplicated = [numbers[at] for at in _duplicates(files)]
    assert [FrameGap(g.after, g.missing) for g in find_gaps(times, rate_hz=RATE_HZ)] == [
        FrameGap(numbers.index(59), 3)
    ]
    assert duplicated == [100]


def _duplicates(files: tuple[CardFile, ...]) -> list[int]:
    found, first = [], 0
    for file in files:
        assert file.arrivals is not None
        found += [first + k for k in file.arrivals.duplicated]
        first += len(file.arrivals.arrived_s)
    return found


def test_a_late_frame_is_no_missing_frame():
    """Frame 40 arrives 45 ms late with 41 and 42 in its wake; nothing is missing."""
    times = [k / 50 for k in range(100)]
    times[40:43] = [40 / 50 + 0.045, 40 / 50 + 0.0452, 40 / 50 + 0.0454]

    assert find_gaps(times) == []


@pytest.mark.parametrize("missing", [1, 2, 7])
def test_missing_frames_are_counted_where_they_are_missing(missing):
    times = [(k + (missing if k > 30 else 0)) / 50 for k in range(100)]

    assert find_gaps(times) == [FrameGap(30, missing)]


def test_two_gaps_are_two():
    times = [(k + (1 if k > 30 else 0) + (2 if k > 60 else 0)) / 50 for k in range(100)]

    assert find_gaps(times) == [FrameGap(30, 1), FrameGap(60, 2)]


def test_live_view_goes_on_while_recording(serve, open_camera):
    camera = open_camera(serve(lambda: paced(every, rate_hz=RATE_HZ)))
    camera.start_movie()

    seen = {camera.preview() for _ in range(5) if time.sleep(0.05) is None}

    assert len(seen) >= 4
    assert all(jpeg[:2] == b"\xff\xd8" for jpeg in seen)
    assert camera.stop_movie()


def test_a_fetched_segment_stands_at_its_place_with_its_hash(serve, open_camera, tmp_path):
    from catalog.session_folder import file_sha256

    camera = open_camera(serve(lambda: paced(every, rate_hz=RATE_HZ)))
    files = record(camera, 0.5)

    fetched = camera.fetch(files[0], tmp_path / "main-01.mov")
    camera.delete(files[0])

    assert fetched.sha256 == file_sha256(tmp_path / "main-01.mov")
    assert fetched.size_bytes == (tmp_path / "main-01.mov").stat().st_size
    assert not (Path(files[0].folder) / files[0].name).exists()


def test_a_fetch_never_replaces_a_file(serve, open_camera, tmp_path):
    camera = open_camera(serve(lambda: paced(every, rate_hz=RATE_HZ)))
    files = record(camera, 0.3)
    (tmp_path / "main-01.mov").write_bytes(b"mine")

    with pytest.raises(DeviceError, match="exists already"):
        camera.fetch(files[0], tmp_path / "main-01.mov")

    assert (tmp_path / "main-01.mov").read_bytes() == b"mine"


def test_a_burst_is_consecutive_frames(serve, open_camera):
    camera = open_camera(serve(lambda: paced(every, rate_hz=20)))

    files = camera.capture_burst(4)

    with open_stills([Path(f.folder) / f.name for f in files]) as stills:
        numbers = [number_of(frame.grey()) for frame in stills.frames()]
    assert numbers == list(range(numbers[0], numbers[0] + 4))


def test_a_source_that_ends_in_mid_take_is_reported_and_found_again(serve, open_camera):
    camera = open_camera(serve(lambda: paced(every, rate_hz=RATE_HZ, count=60)))
    camera.start_movie()
    time.sleep(2.0)

    with pytest.raises(DeviceError, match="the link broke"):
        camera.stop_movie()

    camera.reconnect(timeout_s=5)
    assert record(camera, 0.3)


def test_a_source_that_freezes_does_not_hang_anybody(serve, open_camera):
    def frames() -> Iterator[bytes]:
        yield from paced(every, rate_hz=RATE_HZ, count=20)
        time.sleep(20)

    camera = open_camera(serve(frames))
    time.sleep(1.6)

    assert "no frame for" in camera.status().movie_prohibited
    with pytest.raises(DeviceTimeoutError):
        camera.preview()


def test_another_size_than_asked_for_is_refused(serve, open_camera):
    address = serve(lambda: paced(every, rate_hz=RATE_HZ))

    with pytest.raises(SettingRefusedError, match="640x480 was asked for, it delivers 320x192"):
        open_camera(address, width=640, height=480)


def test_nothing_at_the_address_is_named(open_camera):
    with pytest.raises(DeviceNotFoundError, match="cannot be opened"):
        open_camera("http://127.0.0.1:9/none")


def test_settings_of_a_grabber_are_refused_unless_somebody_sets_them(serve, open_camera):
    address = serve(lambda: paced(every, rate_hz=RATE_HZ))

    with pytest.raises(SettingRefusedError, match="iso cannot be set from here"):
        open_camera(address).configure(ExposureSettings(iso=6400))
    assert open_camera(address, set_by_hand=True).configure(ExposureSettings(iso=6400)).iso == 6400


def test_segments_of_a_killed_engine_are_cleared_away(serve, open_camera, tmp_path):
    left_over = tmp_path / "spool" / "uvc-4194303" / "take-0001"
    left_over.mkdir(parents=True)
    (left_over / "segment-0001.mov").write_bytes(b"void")

    open_camera(serve(lambda: paced(every, rate_hz=RATE_HZ)))

    assert not left_over.parent.exists()


def test_a_movie_of_many_segments_holds_one_file_open_and_is_read_in_any_order(serve, open_camera):
    camera = open_camera(serve(lambda: paced(every, rate_hz=RATE_HZ)), segment_s=0.2)
    paths = [Path(f.folder) / f.name for f in record(camera, 2.0)]

    with open_movie(paths) as movie:
        numbers = [
            number_of(movie.read(k).grey()) for k in (movie.frame_count - 1, 0, movie.frame_count // 2)
        ]
        held = [p for p in Path("/proc/self/fd").iterdir() if p.exists() and p.resolve() in paths]

    assert len(paths) >= 8
    assert numbers == [numbers[1] + movie.frame_count - 1, numbers[1], numbers[1] + movie.frame_count // 2]
    assert len(held) == 1


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., V4lDevice]:
    def start(**ways: object) -> V4lDevice:
        device = V4lDevice(every, **{"size": (WIDTH, HEIGHT), **ways})
        monkeypatch.setattr(cv2, "VideoCapture", device)
        return device

    return start


def test_a_device_is_asked_for_its_own_jpeg_frames_and_the_kernels_stamps_count(plug_in, open_camera):
    device = plug_in()

    files = open_camera("/dev/video7").capture_burst(3)

    assert device.asked[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    assert (device.asked[cv2.CAP_PROP_FRAME_WIDTH], device.asked[cv2.CAP_PROP_FPS]) == (WIDTH, 50)
    arrived_s = [f.arrivals.arrived_s[0] for f in files if f.arrivals]
    assert len(arrived_s) == 3
    assert all(min(abs(s - k) for k in device.stamps_s) < 1e-6 for s in arrived_s)


def test_an_exposure_that_the_device_offers_is_set_and_read_back(plug_in, open_camera):
    """10 ms are 100 units of 100 µs."""
    device = plug_in(exposures=(50.0, 100.0, 200.0))
    camera = open_camera("/dev/video7")

    camera.configure(ExposureSettings(exposure_s=0.01))

    assert camera.capabilities.settable == {"exposure_s"}
    assert device.get(cv2.CAP_PROP_EXPOSURE) == 100.0


def test_an_exposure_that_the_device_rounds_is_refused(plug_in, open_camera):
    plug_in(exposures=(50.0, 100.0, 200.0))
    camera = open_camera("/dev/video7")

    with pytest.raises(SettingRefusedError, match=r"exposure_s 0\.014 was asked for, 0\.01 reads back"):
        camera.configure(ExposureSettings(exposure_s=0.014))


def test_uncompressed_frames_are_refused(plug_in, open_camera):
    device = plug_in(fourcc="YUYV")

    with pytest.raises(SettingRefusedError, match="it delivers YUYV, not MJPG"):
        open_camera("/dev/video7")

    assert device.released


def test_a_device_that_opens_and_gives_no_frame_is_named_and_let_go_of(plug_in, open_camera):
    device = plug_in(frames=0)

    with pytest.raises(DeviceTimeoutError, match="it opened, but no frame came"):
        open_camera("/dev/video7")

    assert device.released


def test_a_picture_of_a_device_that_is_gone_is_not_waited_for(plug_in, open_camera):
    plug_in(frames=1)
    camera = open_camera("/dev/video7")

    with pytest.raises(DeviceError, match="the link broke"):
        camera.capture_still()


def test_a_picture_of_a_device_that_is_silent_is_given_up(plug_in, open_camera):
    device = plug_in()
    camera = open_camera("/dev/video7")
    device.silent.set()
    assert device.waits.wait(20)

    with pytest.raises(DeviceTimeoutError, match="no frame within 2 s"):
        camera.capture_still()

    device.silent.clear()


def test_what_cannot_be_done_now_is_said(plug_in, open_camera):
    plug_in()
    camera = open_camera("/dev/video7")

    with pytest.raises(DeviceError, match="it is not recording"):
        camera.stop_movie()
    camera.close()
    with pytest.raises(DeviceError, match="not open"):
        camera.start_movie()


def test_closing_in_mid_take_keeps_what_was_sealed_and_lets_go(plug_in, open_camera, tmp_path):
    device = plug_in()
    camera = open_camera("/dev/video7", segment_s=0.2)
    camera.start_movie()
    sealed = wait_for(lambda: sorted((tmp_path / "spool").rglob("segment-*.mov")))

    camera.close()
    camera.close()

    assert device.released
    assert probe(sealed[0]).codec == "mjpeg"


def wait_for(look: Callable[[], list[Path]]) -> list[Path]:
    deadline_s = time.monotonic() + 20
    while not (found := look()):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return found


def test_a_disk_that_takes_no_segment_is_named_with_what_was_kept(plug_in, open_camera, tmp_path):
    plug_in()
    camera = open_camera("/dev/video7", segment_s=10.0)  # none is sealed before the movie is stopped
    camera.start_movie()
    folder = next((tmp_path / "spool").rglob("take-0001"))
    (folder / "segment-0001.mov.part").mkdir()  # nothing can be written there

    camera.capture_still()  # so that there is a frame to keep
    with pytest.raises(DeviceError, match="0 sealed segments"):
        camera.stop_movie()
