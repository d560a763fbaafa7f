"""The simulated Canon EOS body: what each operation of Canon's extension does, as libgphoto2 uses it.

An EOS body speaks of its settings through a stream of records that the initiator polls: everything once when event
mode is switched on, later what changed. The initiator keeps what it was told, so a change that the stream leaves out
does not exist for it.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from catalog.session_folder import ExposureSettings
from rig.clock import SessionClock
from rig.profile import SimulationSpec
from rig.sim import ptp_body
from rig.sim import ptp_canon_settings as eos
from rig.sim.ptp_body import Action, Answer, CameraBody, Identity, Reply, answer
from rig.sim.ptp_canon_records import (
    EosEvent,
    focus_info,
    folder_listing,
    object_added,
    object_in_memory,
    record,
    stream,
)
from rig.sim.ptp_card import MEMORY_OBJECT, STORAGE_ID
from rig.sim.ptp_packets import Operation, ValueType, array
from rig.sim.ptp_recorder import CameraBackend, CameraFaults, Moment, RawBackend, Shutter

_CANON = 0x0B
_SET = 0x9110
_JPEG_BLOB = 1
_HALF, _FULL = 1, 2
_FAR = 0x8000
_LENS_STEPS = (1, 8, 40)
"""Motor steps of the three strides that the lens can be told to make."""
_BYTES_PER_SHOT, _MANY_SHOTS = 30_000_000, 9999
_SUFFIXES = {eos.JPEG_FILE: ".jpg", eos.RAW_FILE: ".cr3"}
_BUSY_STATES = frozenset({Shutter.EXPOSING, Shutter.WRITING})


class CanonEosBody(CameraBody):
    """An EOS body.

    Args:
        backend: Makes its pictures.
        clock: The session clock.
        spec: Start delay of movies, and the seed it is drawn with.
        serial: Serial number that is engraved on the body; PTP's own description tells another, longer one.
        faults: What goes wrong; may be replaced at any time.
    """

    moments: ClassVar[Mapping[int, Moment]] = {
        0x1009: "fetch", 0x101B: "fetch", 0x9104: "fetch", 0x9107: "fetch", _SET: "set", 0x910F: "capture",
        0x9116: "events", 0x911D: "ready", 0x9125: "capture", 0x9128: "capture", 0x9153: "preview",
    }  # fmt: skip
    events_announced: ClassVar[Sequence[int]] = tuple(EosEvent)
    settings: eos.EosSettings

    def __init__(
        self,
        backend: CameraBackend,
        clock: SessionClock,
        spec: SimulationSpec,
        *,
        serial: str,
        faults: CameraFaults,
    ) -> None:
        self._with_raw = isinstance(backend, RawBackend)
        self._written: list[int] = []
        self._events: deque[bytes] = deque()
        self._status = 0
        self._busy_left = 0
        self._lens_ready_s = 0.0
        self.settings = self._delivered(serial)
        identity = Identity(_CANON, "Canon Inc.", "Canon EOS simulated body", _long_serial(serial))
        super().__init__(backend, clock, spec, identity=identity, faults=faults)

    def initiator_left(self) -> None:
        """End live view and recording, as a body does when its cable is pulled; files stay on the card."""
        self._recorder.release()
        self._recorder.stop_movie()
        self.settings.properties[eos.MOVIE_TARGET].value = eos.RECORD_NOTHING
        self.settings.properties[eos.LIVE_VIEW_OUTPUT].value = 0

    def return_from(self, faults: CameraFaults) -> None:
        """Come back as at power-up; files stay on the card."""
        self.settings = self._delivered(faults.returns_as or self.settings.serial)
        told = None if faults.returns_as is None else _long_serial(faults.returns_as)
        super().return_from(faults.model_copy(update={"returns_as": told}))
        self._events.clear()
        self._busy_left = 0

    def _delivered(self, serial: str) -> eos.EosSettings:
        settings = eos.EosSettings(serial)
        if not self._with_raw:
            settings.properties[eos.IMAGE_FORMAT].choices = eos.JPEG_FORMATS
        return settings

    def _moment(self, operation: Operation, data_out: bytes) -> Moment | None:
        if operation.code == _SET and len(data_out) >= 12:
            _, code, value = struct.unpack_from("<III", data_out)
            if code == eos.MOVIE_TARGET:
                return "start_movie" if value == eos.RECORD_TO_CARD else "stop_movie"
        return super()._moment(operation, data_out)

    def _listed_properties(self) -> Sequence[int]:
        return ()  # an EOS body describes its settings in the event stream alone

    def _vendor_operations(self) -> dict[int, Action]:
        return {
            0x9101: lambda _op, _: answer(data=array([STORAGE_ID], ValueType.UINT32)),
            0x9102: lambda _op, _: answer(data=self._card.storage_info()),
            0x9103: self._get_object_info,
            0x9104: lambda op, _: self._get_bytes(op.parameter(0), 0, 0xFFFFFFFF),
            0x9105: self._delete,
            0x9107: lambda op, _: self._get_bytes(op.parameter(0), op.parameter(1), op.parameter(2)),
            0x9109: lambda op, _: answer(data=folder_listing(self._card.entries(op.parameter(1)))),
            0x910F: lambda _op, _: self._release_once(),
            _SET: self._set_property,
            0x9114: lambda _op, _: answer(),  # remote mode
            0x9115: lambda op, _: self._set_event_mode(op.parameter(0)),
            0x9116: lambda _op, _: self._get_events(),
            0x9117: lambda _op, _: answer(),  # transfer complete
            0x911A: lambda _op, _: answer(),  # room on the host
            0x911B: lambda _op, _: answer(),  # lock the body's buttons
            0x911C: lambda _op, _: answer(),  # free them
            0x911D: lambda _op, _: answer(),  # keep awake
            0x9125: lambda _op, _: self._open_shutter(),
            0x9126: lambda _op, _: self._release_button(_FULL),
            0x9127: self._request_value,
            0x9128: lambda op, _: self._press_button(op.parameter(0)),
            0x9129: lambda op, _: self._release_button(op.parameter(0)),
            0x9133: lambda _op, _: answer(),  # movie mode on: this body has no such switch to obey
            0x9134: lambda _op, _: answer(),
            0x9151: lambda _op, _: self._switch_live_view(eos.TO_HOST_SCREEN),
            0x9152: lambda _op, _: self._switch_live_view(0),
            0x9153: lambda _op, _: self._live_view_frame(),
            0x9154: lambda _op, _: answer(),  # autofocus: this lens has none to drive
            0x9155: lambda op, _: self._drive_lens(op.parameter(0)),
            0x9160: lambda _op, _: answer(),  # cancel autofocus
        }

    @property
    def _is_live(self) -> bool:
        return bool(self.settings.number(eos.LIVE_VIEW_OUTPUT) & eos.TO_HOST_SCREEN)

    def _set_event_mode(self, mode: int) -> Answer:
        self._events.clear()
        if mode:
            spoiled = self.faults.refused + self.faults.ignored + self.faults.rounded
            at = eos.AUTOFOCUS if "focus_mode" in spoiled else eos.MANUAL_FOCUS
            self.settings.properties[eos.FOCUS_MODE].value = at  # the switch on the lens; no command moves it
            self._status = 0
            self.settings.tell_time(self.faults.clock_off_s)
            for item in self.settings.properties.values():
                self._tell_value(item)
                self._tell_choices(item)
        return answer()

    def _tell_value(self, item: eos.EosProperty) -> None:
        self._events.append(record(EosEvent.VALUE_CHANGED, item.value_record()))

    def _tell_choices(self, item: eos.EosProperty) -> None:
        payload = item.choices_record()
        if payload is not None:
            self._events.append(record(EosEvent.CHOICES_CHANGED, payload))

    def _change(self, code: int, value: eos.Value) -> None:
        item = self.settings.properties[code]
        if item.value != value:
            item.value = value
            self._tell_value(item)

    def _get_events(self) -> Answer:
        self._refresh()
        waiting = [self._events.popleft() for _ in range(len(self._events))]
        return answer(data=stream(waiting))

    def _refresh(self) -> None:
        """Tell what changed by itself."""
        self._drift()
        self._tell_of_files()
        state = self._recorder.state
        self._tell_status(int(state in _BUSY_STATES))
        if state is not Shutter.RECORDING:
            self._change(eos.MOVIE_TARGET, eos.RECORD_NOTHING)
        self._change(eos.AVAILABLE_SHOTS, self._shots_left())
        self._change(eos.TEMPERATURE_STATUS, int(self.faults.is_hot))
        if self.faults.battery_percent is not None:
            self._change(eos.BATTERY, eos.battery_code(self.faults.battery_percent))

    def _tell_status(self, status: int) -> None:
        """Tell that the body is busy (1) or done (0), where that is new."""
        if status != self._status:
            self._status = status
            self._events.append(record(EosEvent.STATUS_CHANGED, struct.pack("<I", status)))

    def _shots_left(self) -> int:
        """Count by the card; with pictures going to the host by that, or the library would wait for ever."""
        to_host = self.settings.number(eos.CAPTURE_DESTINATION) == eos.TO_HOST
        return _MANY_SHOTS if to_host else min(self._card.free_bytes // _BYTES_PER_SHOT, _MANY_SHOTS)

    def _drift(self) -> None:
        """Change a setting while a movie runs, once, and tell so."""
        names = self.faults.drifting
        if not names or self._recorder.state is not Shutter.RECORDING:
            return
        self.faults = self.faults.model_copy(update={"drifting": ()})
        for code in (code for name in names for code in eos.CODES_BY_SETTING[name]):
            item = self.settings.properties[code]
            self._change(code, item.neighbour(item.value))

    def _tell_of_files(self) -> None:
        """Tell of the files that were written; in disorder only when all are."""
        disorder = self.faults.announced_in_disorder
        if disorder and self._recorder.state is not Shutter.IDLE:
            return
        handles, self._written = self._written, []
        entries = [e for handle in handles if (e := self._card.entry(handle))]
        for entry in reversed(entries) if disorder else entries:
            in_memory = entry.handle == MEMORY_OBJECT
            told = (
                record(EosEvent.TRANSFER_WANTED, object_in_memory(entry))
                if in_memory
                else record(EosEvent.OBJECT_ADDED, object_added(entry))
            )
            self._events.extend([told] * (2 if self.faults.announced_twice else 1))

    def _request_value(self, operation: Operation, _: bytes) -> Answer:
        item = self.settings.properties.get(operation.parameter(0))
        if item is None:
            return answer(Reply.GENERAL_ERROR)
        self._tell_value(item)
        return answer()

    def _set_property(self, _: Operation, data: bytes) -> Answer:
        item = self.settings.properties.get(struct.unpack_from("<I", data, 4)[0]) if len(data) >= 12 else None
        if item is None:
            return answer(Reply.NO_SUCH_PROPERTY)
        value = item.read(data[8:])
        if not item.accepts(value) or self._is_among(item.code, self.faults.refused):
            return answer(Reply.BAD_VALUE)
        if self._is_still_busy():
            return answer(Reply.BUSY)
        if item.code == eos.MOVIE_TARGET:
            return self._switch_movie(value == eos.RECORD_TO_CARD)
        if item.code == eos.LIVE_VIEW_OUTPUT and isinstance(value, int):
            return self._switch_live_view(value)
        return self._take_over(item, value)

    def _take_over(self, item: eos.EosProperty, value: eos.Value) -> Answer:
        if self._is_among(item.code, self.faults.rounded):
            value = item.neighbour(value)
        if not self._keeps_its_own(item.code):
            item.value = value
        self._tell_value(item)  # also where the body keeps its own: that is how the initiator learns of it
        return answer()

    def _keeps_its_own(self, code: int) -> bool:
        is_clock = code in {eos.CAMERA_TIME, eos.UTC_TIME}
        return self._is_among(code, self.faults.ignored) or (is_clock and bool(self.faults.clock_off_s))

    @staticmethod
    def _is_among(code: int, names: tuple[str, ...]) -> bool:
        return any(code in eos.CODES_BY_SETTING[name] for name in names)

    def _act(self) -> Answer:
        self._busy_left = self.faults.busy_answers
        return answer()

    def _is_still_busy(self) -> bool:
        if self._clock.now() < self._lens_ready_s:
            return True
        self._busy_left, was_left = max(self._busy_left - 1, 0), self._busy_left
        return bool(was_left)

    def _switch_live_view(self, output: int) -> Answer:
        if output and self.faults.is_hot:
            return answer(Reply.GENERAL_ERROR)
        self._change(eos.LIVE_VIEW_OUTPUT, output)
        return self._act()

    def _live_view_frame(self) -> Answer:
        if not self._is_live:
            return answer(Reply.NO_FRAME_YET)
        jpeg = self._recorder.cut(self._backend.preview(self.settings.exposure()))
        return answer(data=struct.pack("<II", 8 + len(jpeg), _JPEG_BLOB) + jpeg)

    def _drive_lens(self, stride: int) -> Answer:
        size = stride & ~_FAR
        if not self._is_live or not 1 <= size <= len(_LENS_STEPS):
            return answer(Reply.BAD_VALUE)
        if self._is_still_busy():
            return answer(Reply.BUSY)
        steps = _LENS_STEPS[size - 1] * (-1 if stride & _FAR else 1)
        before = self.settings.focus_steps
        self.settings.drive_focus(steps)  # a stop is met in silence
        moved = abs(self.settings.focus_steps - before)
        self._lens_ready_s = self._clock.now() + moved / ptp_body.FOCUS_STEPS_PER_S
        return self._act()

    def _press_button(self, depth: int) -> Answer:
        if depth == _HALF:
            payload = struct.pack("<I", eos.FOCUS_INFO) + focus_info()
            self._events.append(record(EosEvent.VALUE_CHANGED, payload))
            return answer()
        if self.settings.number(eos.SHUTTER) == eos.BULB:
            return self._open_shutter()
        if self.settings.number(eos.DRIVE_MODE) != eos.SINGLE:
            return self._capture(self._recorder.expose_until_released)
        return self._capture(self._recorder.expose)

    def _open_shutter(self) -> Answer:
        if self.settings.number(eos.SHUTTER) != eos.BULB:
            return answer(Reply.GENERAL_ERROR)
        return self._capture(self._recorder.hold_open)

    def _release_button(self, depth: int) -> Answer:
        if depth != _HALF:
            self._recorder.release()
        return answer()

    def _release_once(self) -> Answer:
        code, _, _ = self._press_button(_FULL)
        self._recorder.release()
        return answer(code, (0,))

    def _capture(self, expose: Callable[[ExposureSettings], None]) -> Answer:
        if (hindrance := self._hindrance()) is not None:
            return answer(hindrance)
        if self._recorder.state is not Shutter.IDLE or self._is_still_busy():
            return answer(Reply.BUSY)
        self._recorder.suffixes = tuple(_SUFFIXES[kind] for kind, _, _ in self.settings.files)
        expose(self.settings.exposure())
        self._tell_status(1)
        return self._act()

    def _hindrance(self) -> Reply | None:
        """Say what keeps the body from writing to its card; it lists no reasons beforehand, unlike Nikon's."""
        if not self._card.is_in:
            return Reply.STORE_NOT_AVAILABLE
        if self._card.is_protected:
            return Reply.STORE_READ_ONLY
        return Reply.STORE_FULL if self._is_card_full else None

    def _switch_movie(self, on: bool) -> Answer:
        if not on:
            if self._recorder.stop_movie():  # a body that is not recording says yes all the same
                self._tell_status(1)
            self._change(eos.MOVIE_TARGET, eos.RECORD_NOTHING)
            return self._act()
        if (hindrance := self._hindrance()) is not None:
            return answer(hindrance)
        if not self._is_live or self._recorder.state is not Shutter.IDLE:
            return answer(Reply.BUSY)
        self._recorder.start_movie(self.settings.exposure())
        self._change(eos.MOVIE_TARGET, eos.RECORD_TO_CARD)
        return self._act()

    def _announce(self, path: Path) -> None:
        to_host = self.settings.number(eos.CAPTURE_DESTINATION) == eos.TO_HOST
        in_memory = (to_host or self.faults.pictures_to_memory) and path.suffix != ".mov"
        item = self._card.keep_in_memory(path) if in_memory else self._card.add(path)
        self._written.append(item.handle)


def _long_serial(serial: str) -> str:
    """Return what PTP's own description tells: longer than the number that is engraved on the body."""
    return f"c{serial.rjust(31, '0')}"
