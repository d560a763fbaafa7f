"""All calls to one camera from one thread, so that the carriage can be watched, moved and stopped meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from types import TracebackType
from typing import Self, TypeVar

from rig.devices.camera import Camera
from rig.errors import CameraLostError, DeviceError, SettingRefusedError, TakeStoppedError

T = TypeVar("T")

_GLANCE_S = 0.05


class CameraThread:
    """The owner of one camera while a session runs.

    Args:
        name: The camera's name in the profile.
        camera: An open camera.
        stopped: Tells whether the take in progress is to end now; waiting for the camera ends with it.
    """

    def __init__(self, name: str, camera: Camera, *, stopped: Callable[[], bool]) -> None:
        self.name = name
        self.camera = camera
        self._stopped = stopped
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"camera-{name}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A call that never returns is ended by the camera's own deadline, not by waiting for it here.
        self._thread.shutdown(wait=False, cancel_futures=True)

    def start(self, call: Callable[[Camera], T]) -> Future[T]:
        """Let the camera do something; calls are done one after the other."""
        return self._thread.submit(call, self.camera)

    def wait(self, future: Future[T]) -> T:
        """Return what a started call returned.

        Raises:
            CameraLostError: The call failed and the camera does not answer any more.
            DeviceError: The call failed and the camera is still there.
            TakeStoppedError: The take is to end now; the call goes on in its thread.
        """
        while True:
            try:
                return future.result(timeout=_GLANCE_S)
            except SettingRefusedError:
                raise
            except DeviceError as error:  # before the next one: a device's time-out is one of these, too
                self._require_alive(error)
                raise
            except NotYetError:
                if self._stopped():
                    raise TakeStoppedError("stopped by the operator") from None

    def call(self, call: Callable[[Camera], T]) -> T:
        """Start and wait. Raises as `wait`."""
        return self.wait(self.start(call))

    def comes_back(self, timeout_s: float) -> bool:
        """Look for the body with the same serial number for so long, and apply its settings again.

        Raises:
            SettingRefusedError: It is back and does not take its settings.
            TakeStoppedError: The session is to stop; the search goes on in its thread.
        """
        searching = self.start(lambda camera: camera.reconnect(timeout_s=timeout_s))
        while True:
            try:
                searching.result(timeout=_GLANCE_S)
            except SettingRefusedError:
                raise
            except DeviceError:
                return False
            except NotYetError:
                if self._stopped():
                    raise TakeStoppedError("stopped by the operator") from None
            else:
                return True

    def _require_alive(self, error: DeviceError) -> None:
        """Tell a camera that refused something from one that is gone, by a probe that no cache answers."""
        try:
            self.start(lambda camera: camera.status()).result()
        except DeviceError as gone:
            raise CameraLostError(
                f"camera {self.name} is gone: {error.message}",
                kept="every take recorded so far; the take in progress is void",
                next_step=f"switch it on, check cable and battery ({gone.message})",
            ) from error
