"""One camera and several threads: it is closed under whoever still uses it, and nothing is left running."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from small_camera import bench, driver, small_body

from rig.devices.shared_camera import SharedCamera
from rig.errors import DeviceError

PATIENCE_S = 40.0


def await_call(call: Callable[[], object], begun: Callable[[], bool]) -> Future[object]:
    """Let another thread make a call; returns once it is under way."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call)
    pool.shutdown(wait=False)
    over = threading.Event()
    while not begun():
        assert not over.wait(0.01)
        assert not future.done()
    return future


def is_held(shared: SharedCamera) -> bool:
    """Tell whether another thread has the camera."""
    if not shared._lock.acquire(blocking=False):
        return True
    shared._lock.release()
    return False


def test_closing_ends_a_call_that_would_hang_and_nobody_opens_it_again(tmp_path: Path):
    """The body hangs in live view; the call would go on for 25 s, as the profile allows."""
    with small_body(tmp_path) as (body, _, clock), driver(body, clock) as camera:
        shared = SharedCamera(camera)
        body.body.thaw.clear()
        owner = camera._owner
        hanging = await_call(shared.preview, lambda: is_held(shared))

        shared.close()

        with pytest.raises(DeviceError, match="ended during 'preview'"):
            hanging.result(PATIENCE_S)
        with pytest.raises(DeviceError, match="was closed"):
            shared.reconnect(timeout_s=5.0)
        assert camera._owner is None
        assert owner is not None
        assert not owner.alive
        body.body.thaw.set()


def test_closing_ends_the_search_for_a_lost_camera(tmp_path: Path):
    """It would be looked for for a minute; whoever opens the rig next finds no other owner of it."""
    with small_body(tmp_path) as (body, _, clock), driver(body, clock) as camera:
        shared = SharedCamera(camera)
        body.vanish()
        before = camera._owner
        searching = await_call(
            lambda: shared.reconnect(timeout_s=60.0), lambda: camera._owner not in {before, None}
        )

        shared.close()

        with pytest.raises(DeviceError):
            searching.result(PATIENCE_S)
        assert camera._owner is None


def test_a_movie_that_a_stop_left_running_is_ended(tmp_path: Path):
    with bench(tmp_path) as b:
        shared = SharedCamera(b.camera)
        shared.end_leftover(unwanted=lambda: True)
        shared.start_movie()
        b.clock.sleep(0.2)

        shared.end_leftover(unwanted=lambda: False)  # it is that of an act which has just begun
        ended_before = list(b.backend.movies)
        shared.end_leftover(unwanted=lambda: True)

        assert ended_before == []
        assert b.backend.rendered.wait(PATIENCE_S)
        assert len(b.backend.movies) == 1
