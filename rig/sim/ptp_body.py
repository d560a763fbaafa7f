"""What the simulated bodies of all makers share: one operation at a time, the standard ones, a card, and faults."""

from __future__ import annotations

import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import ClassVar, Protocol

from catalog.errors import CleanplateError
from catalog.session_folder import ExposureSettings
from rig.clock import SessionClock
from rig.profile import SimulationSpec
from rig.sim.ptp_card import Card, CardObject
from rig.sim.ptp_packets import FileRange, Operation, ValueType, array, text
from rig.sim.ptp_recorder import CameraBackend, CameraFaults, Moment, Recorder, Shutter

NO_USABLE_CARD, CARD_PROTECTED = 0b111, 1 << 11
"""Bits of `CameraFaults.movie_prohibit_bits`, which are Nikon's."""
MIN_FREE_BYTES = 50_000_000
"""A body takes no picture with less space on its card."""
FOCUS_STEPS_PER_S = 6000.0
"""The lens crosses its whole range in 0.3 s."""
_JPEG, _MOV = 0x3801, 0x300D
_WHOLE_FILE = 0xFFFFFFFF
_GET_DEVICE_INFO = 0x1001

Answer = tuple["Reply", tuple[int, ...], "bytes | FileRange | None"]
"""Response code, response parameters, data of a data-in phase."""
Action = Callable[[Operation, bytes], Answer]


class Reply(IntEnum):
    """Response codes; from 0xA000 on they are the vendors' own."""

    OK = 0x2001
    GENERAL_ERROR = 0x2002
    UNSUPPORTED = 0x2005
    NO_SUCH_OBJECT = 0x2009
    NO_SUCH_PROPERTY = 0x200A
    STORE_FULL = 0x200C
    STORE_READ_ONLY = 0x200E
    NO_THUMBNAIL = 0x2010
    STORE_NOT_AVAILABLE = 0x2013
    BUSY = 0x2019
    BAD_VALUE = 0x201C
    INVALID_STATUS = 0xA004
    NOT_IN_LIVE_VIEW = 0xA00B
    FOCUS_STOP = 0xA00C
    NO_FRAME_YET = 0xA102


class Settings(Protocol):
    """What a body is set to."""

    focus_steps: int

    def exposure(self) -> ExposureSettings:
        """Return the settings in photographers' units."""


@dataclass(frozen=True)
class Identity:
    """Who a body says it is."""

    vendor: int
    """Vendor extension id."""
    maker: str
    model: str
    serial: str


class CameraBody(ABC):
    """The body behind the port. It does one operation at a time, whoever asks.

    Args:
        backend: Makes its pictures.
        clock: The session clock.
        spec: Start delay of movies, and the seed it is drawn with.
        identity: Who it is.
        faults: What goes wrong; may be replaced at any time.

    Attributes:
        thaw: Cleared, the body answers nothing any more until it is set again.
    """

    moments: ClassVar[Mapping[int, Moment]]
    """What a person would call the vendor's operations; `CameraFaults` speaks of them."""
    events_announced: ClassVar[Sequence[int]]
    """Event codes that the body lists as its own."""
    settings: Settings

    def __init__(
        self,
        backend: CameraBackend,
        clock: SessionClock,
        spec: SimulationSpec,
        *,
        identity: Identity,
        faults: CameraFaults,
    ) -> None:
        self._backend, self._clock, self._identity = backend, clock, identity
        self.faults = faults
        self.thaw = threading.Event()
        self.thaw.set()
        self._card = Card(capacity_bytes=faults.card_bytes)
        self._aged_s = time.monotonic()
        self._recorder = Recorder(
            backend, clock, spec=spec, announce=self._announce, faults=lambda: self.faults
        )
        self._operations = self._standard_operations() | self._vendor_operations()

    def close(self) -> None:
        """Switch off: end what is going on."""
        self._recorder.close()
        self.thaw.set()

    @abstractmethod
    def initiator_left(self) -> None:
        """End live view and recording, as a body does when its cable is pulled; files stay on the card."""

    def vanishes_at(self, operation: Operation, data_out: bytes) -> bool:
        """Tell whether this operation finds the body gone."""
        moment = self._moment(operation, data_out)
        return moment is not None and moment == self.faults.vanishes_at

    def answer(self, operation: Operation, data_out: bytes) -> Answer:
        """Carry out one operation."""
        self._freeze_where_due(self._moment(operation, data_out))
        self.thaw.wait()
        self._age_card()
        action = self._operations.get(operation.code)
        try:
            return answer(Reply.UNSUPPORTED) if action is None else action(operation, data_out)
        except (CleanplateError, OSError):
            return answer(Reply.GENERAL_ERROR)

    def return_from(self, faults: CameraFaults) -> None:
        """Come back after having vanished by these faults; files stay on the card."""
        if faults.returns_as is not None:
            self._identity = replace(self._identity, serial=faults.returns_as)

    def _freeze_where_due(self, moment: Moment | None) -> None:
        faults = self.faults
        if moment is None or moment != faults.freezes_at:
            return
        self.thaw.clear()
        if faults.freeze_s is not None:
            self.faults = faults.model_copy(update={"freezes_at": None})  # one freeze, not one at every call
            timer = threading.Timer(faults.freeze_s, self.thaw.set)
            timer.daemon = True
            timer.start()

    def _age_card(self) -> None:
        """Let the card fill while a movie runs, as the faults say, and end a movie that finds it full."""
        faults, now_s = self.faults, time.monotonic()
        if self._recorder.state is Shutter.RECORDING:
            self._card.foreign_bytes += round(faults.card_fills_bytes_s * (now_s - self._aged_s))
        if not faults.card_fills_bytes_s:
            self._card.foreign_bytes = 0
        self._aged_s = now_s
        self._card.capacity_bytes, self._card.size_error_bytes = faults.card_bytes, faults.size_error_bytes
        self._card.is_in = not faults.movie_prohibit_bits & NO_USABLE_CARD
        self._card.is_protected = bool(faults.movie_prohibit_bits & CARD_PROTECTED)
        if faults.card_fills_bytes_s and not self._card.free_bytes:
            self._recorder.stop_movie()

    def _moment(self, operation: Operation, _data_out: bytes) -> Moment | None:
        return "open" if operation.code == _GET_DEVICE_INFO else self.moments.get(operation.code)

    @abstractmethod
    def _vendor_operations(self) -> dict[int, Action]:
        """Return what the body does for each operation beyond the common ones."""

    @abstractmethod
    def _announce(self, path: Path) -> None:
        """Put a finished file on the card and tell of it."""

    @abstractmethod
    def _listed_properties(self) -> Sequence[int]:
        """Return the property codes that the body's own description lists."""

    def _standard_operations(self) -> dict[int, Action]:
        return {
            _GET_DEVICE_INFO: lambda _op, _: answer(data=self._device_info()),
            0x1002: lambda _op, _: answer(),  # open session
            0x1003: lambda _op, _: answer(),  # close session
            0x1004: lambda _op, _: answer(data=array(self._card.storage_ids(), ValueType.UINT32)),
            0x1005: lambda _op, _: answer(data=self._card.storage_info()),
            0x1006: lambda op, _: answer(Reply.OK, (len(self._card.handles(op.parameter(2))),)),
            0x1007: lambda op, _: answer(data=array(self._card.handles(op.parameter(2)), ValueType.UINT32)),
            0x1008: self._get_object_info,
            0x1009: lambda op, _: self._get_bytes(op.parameter(0), 0, _WHOLE_FILE),
            0x100A: lambda _op, _: answer(Reply.NO_THUMBNAIL),
            0x100B: self._delete,
            0x101B: lambda op, _: self._get_bytes(op.parameter(0), op.parameter(1), op.parameter(2)),
        }

    def _device_info(self) -> bytes:
        u16 = ValueType.UINT16
        return (
            struct.pack("<HIH", 100, self._identity.vendor, 100)
            + text("simulated body")
            + struct.pack("<H", 0)
            + array(sorted(self._operations), u16)
            + array(self.events_announced, u16)
            + array(sorted(self._listed_properties()), u16)
            + array([_JPEG], u16)
            + array([_JPEG, _MOV], u16)
            + text(self._identity.maker)
            + text(self._identity.model)
            + text("1.0")
            + text(self._identity.serial)
        )

    def _get_object_info(self, operation: Operation, _: bytes) -> Answer:
        info = self._card.object_info(operation.parameter(0))
        return answer(Reply.NO_SUCH_OBJECT) if info is None else answer(data=info)

    def _get_bytes(self, handle: int, offset: int, count: int) -> Answer:
        item = self._card.file(handle)
        if item is None:
            return answer(Reply.NO_SUCH_OBJECT)
        data = self._file_range(item, offset, count)
        return answer(Reply.OK, (len(data),), data)

    def _file_range(self, item: CardObject, offset: int, count: int) -> FileRange:
        end = max(item.size_bytes - self.faults.bytes_missing, 0)
        return FileRange(item.path, offset, min(count, max(end - offset, 0)))

    def _delete(self, operation: Operation, _: bytes) -> Answer:
        return answer(Reply.OK if self._card.delete(operation.parameter(0)) else Reply.NO_SUCH_OBJECT)

    @property
    def _is_card_full(self) -> bool:
        return self._card.free_bytes < MIN_FREE_BYTES


def answer(
    code: Reply = Reply.OK, parameters: tuple[int, ...] = (), data: bytes | FileRange | None = None
) -> Answer:
    """Put an answer together.

    Args:
        code: Response code.
        parameters: Response parameters.
        data: What the data phase brings; None where there is none.
    """
    return code, parameters, data
