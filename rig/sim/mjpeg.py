"""A UVC camera for machines without video devices: JPEG frames over HTTP on loopback, opened by OpenCV as a stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_BOUNDARY = "frame"


class MjpegServer:
    """Sends frames to whoever connects; each connection starts the series anew.

    Args:
        frames: Makes the series; the iterator yields each JPEG at the moment it is to be sent (see `paced`).
    """

    def __init__(self, frames: Callable[[], Iterator[bytes]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
                self.end_headers()
                for jpeg in frames():
                    head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    try:
                        self.wfile.write(head.encode() + jpeg + b"\r\n")
                    except OSError:  # nobody watches any more
                        return

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """URL of the stream."""
        return f"http://127.0.0.1:{self._server.server_port}/stream.mjpg"

    def close(self) -> None:
        """Stop accepting; streams end with their iterators."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def paced(make: Callable[[int], bytes], *, rate_hz: float, count: int | None = None) -> Iterator[bytes]:
    """Yield frame 0, 1, 2 … of ``make``, each when it is due; late ones at once."""
    started_s = time.monotonic()
    number = 0
    while count is None or number < count:
        jpeg = make(number)
        time.sleep(max(started_s + number / rate_hz - time.monotonic(), 0.0))
        yield jpeg
        number += 1
