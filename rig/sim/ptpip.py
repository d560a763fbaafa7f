"""A simulated camera on PTP/IP at loopback, which the unmodified libgphoto2 drives as it drives a real one.

One initiator at a time: a second one is refused while the first is connected, and a new one may follow.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

from rig.clock import SessionClock
from rig.profile import SimulationSpec
from rig.sim.ptp_canon import CanonEosBody
from rig.sim.ptp_nikon import NikonBody
from rig.sim.ptp_packets import Packet, PacketSocket
from rig.sim.ptp_recorder import CameraBackend, CameraFaults

_REFUSED_BUSY = 2
_LEAVING_S = 1.0
"""How long a new initiator waits for an old one whose end has not been noticed yet."""
_INIT_ACK = (
    struct.pack("<I16s", 1, b"cleanplate twin!") + "simulated camera\0".encode("utf-16-le") + b"\0\0\1\0"
)


class PtpIpCamera:
    """A camera body listening on loopback.

    Args:
        backend: Makes its pictures.
        clock: The session clock; movies start and end on it.
        spec: Maker of the body, start delay of movies, and the seed it is drawn with.
        serial: Serial number the body reports.
        faults: What goes wrong; `body` lets it change.

    Attributes:
        address: Port description for libgphoto2, as it is when first listened to.
        port: TCP port; changes where the faults move the body.
    """

    def __init__(
        self,
        backend: CameraBackend,
        clock: SessionClock,
        spec: SimulationSpec,
        *,
        serial: str = "SIM0001",
        faults: CameraFaults | None = None,
    ) -> None:
        maker = CanonEosBody if spec.camera_body == "canon" else NikonBody
        self.body = maker(backend, clock, spec, serial=serial, faults=faults or CameraFaults())
        self._session = threading.Lock()
        self._appearing, self._is_listening = threading.Lock(), False
        self._connections: set[PacketSocket] = set()
        self.port = 0
        self.appear()
        self.address = f"ptpip:127.0.0.1:{self.port}:{self.port}"

    def appear(self) -> None:
        """Listen, at the same address as before after `vanish`; does nothing while it listens."""
        with self._appearing:
            if not self._is_listening:
                self._listen_at_port()

    def _listen_at_port(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, args=(self._listener,), name="ptpip", daemon=True).start()
        self._is_listening = True

    def vanish(self) -> None:
        """Drop every connection and listen no more, as an unplugged cable does."""
        with contextlib.suppress(OSError):  # already gone
            self._listener.shutdown(socket.SHUT_RDWR)  # unlike close, this ends the accept under way
        self._listener.close()
        self._is_listening = False
        for connection in tuple(self._connections):
            connection.close()

    def _vanish_by_fault(self) -> None:
        """Vanish once, and come back when and as the faults say."""
        faults = self.body.faults
        self.body.faults = faults.model_copy(update={"vanishes_at": None})
        self.vanish()
        if faults.returns_after_s is not None:
            timer = threading.Timer(faults.returns_after_s, self._return, [faults])
            timer.daemon = True
            timer.start()

    def _return(self, faults: CameraFaults) -> None:
        self.body.return_from(faults)
        self.port = faults.returns_at_port or self.port
        self.appear()

    def close(self) -> None:
        """Switch the body off. Safe to call twice."""
        self.vanish()
        self.body.close()

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            packets = PacketSocket(connection)
            self._connections.add(packets)
            threading.Thread(target=self._attend, args=(packets,), daemon=True).start()

    def _attend(self, packets: PacketSocket) -> None:
        try:
            kind, _ = packets.receive()
            self.body.thaw.wait()
            if kind == Packet.INIT_EVENT_REQUEST:
                packets.send(Packet.INIT_EVENT_ACK, b"")
                packets.receive()  # nothing comes: events are polled; this waits for the peer to leave
            elif kind == Packet.INIT_COMMAND_REQUEST:
                self._admit(packets)
        except (EOFError, OSError, struct.error):
            pass  # a peer that leaves or talks nonsense ends its own connection and nothing else
        finally:
            self._connections.discard(packets)
            packets.close()

    def _admit(self, packets: PacketSocket) -> None:
        if self.body.faults.is_claimed or not self._session.acquire(timeout=_LEAVING_S):
            packets.send(Packet.INIT_FAIL, struct.pack("<I", _REFUSED_BUSY))
            return
        try:
            packets.send(Packet.INIT_COMMAND_ACK, _INIT_ACK)
            self._serve(packets)
        finally:
            self.body.initiator_left()
            self._session.release()

    def _serve(self, packets: PacketSocket) -> None:
        while True:
            operation = packets.receive_operation()
            data_out = packets.receive_data() if operation.has_data_out else b""
            if self.body.vanishes_at(operation, data_out):
                self._vanish_by_fault()
                return
            code, parameters, data_in = self.body.answer(operation, data_out)
            if data_in is not None:
                packets.send_data(operation.transaction, data_in)
            packets.send_response(operation, code, parameters)
