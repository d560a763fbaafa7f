"""The conversation with a GRBL controller: one outstanding line, everything out of band noticed."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rig.clock import SessionClock
from rig.devices import grbl_protocol as protocol
from rig.devices.grbl_protocol import LineKind, StatusReport
from rig.devices.wire import Wire
from rig.errors import DeviceError, DeviceTimeoutError, RailLockedError

_BANNER_S = 3.0
_RESET_EVERY_S = 0.8
_RESET_ATTEMPTS = 6
_ANSWER_S = 2.0
_ASK_EVERY_S = 0.2
_QUIET_S = 0.05
_EEPROM_PAUSE_S = 0.05
_STEP_ATTEMPTS = 3
_DOUBT_S = 5.0
_WITNESS_S = 0.05
_WITNESSES = 3
"""Questions beyond the deadline while the controller does answer: it may be the host that stood still."""
_BABBLE_LINES = 1000
"""A device that says more than this at once is not listened to any longer."""

Answer = tuple[StatusReport, float, float]
"""A report with the session times of its request and its reply."""


@dataclass
class LinkStatistics:
    """What went wrong on the wire and was repaired; a healthy link stays at zero."""

    discarded_lines: int = 0
    """Torn, merged or garbled lines."""
    stale_answers: int = 0
    """``ok`` that belonged to nothing."""
    lost_answers: int = 0
    """Lines whose ``ok`` never came."""
    implausible_reports: int = 0
    """Well-formed reports that could not be true."""
    silences: int = 0
    """How often a moving rail let more than 250 ms pass without a report."""


class GrblRefusedError(DeviceError, ValueError):
    """The controller answered ``error:N``; `number` is N."""

    def __init__(self, number: int, line: str, name: str) -> None:
        super().__init__(
            f"{name}: '{line}' was refused with {protocol.error_text(number)}",
            kept="the line was not executed",
        )
        self.number = number


class GrblLink:
    """Sends lines one at a time and keeps watch over alarms and restarts.

    Deadlines are session seconds, yet never shorter than the same number of machine seconds: the host's
    scheduling does not run faster because a simulation does.

    Args:
        wire: The open transport.
        clock: The session clock.
        on_restart: Called when the controller has restarted or is about to.
    """

    def __init__(
        self, wire: Wire, clock: SessionClock, *, on_restart: Callable[[], None] = lambda: None
    ) -> None:
        self.wire = wire
        self.statistics = LinkStatistics()
        self.fault = ""
        """Why the position is no longer believed: an alarm or a restart; empty when there was none."""
        self.alarm = 0
        """Number of the alarm that came last and was not reset since; 0 for none."""
        self.deaf = False
        """True between a critical alarm and the next restart: nothing will be answered."""
        self._clock = clock
        self._on_restart = on_restart
        self._out_of_step = False
        self._doubt_until_s = -math.inf
        self._axes = self._other_axes = 0
        self._fastest_reply_s = math.inf
        """While the line was trusted."""
        self._turn = threading.RLock()

    def patience_s(self, duration_s: float) -> float:
        """Return a deadline that is fair to the host in accelerated time, session seconds."""
        return duration_s * max(1.0, self._clock.rate)

    @property
    def doubtful(self) -> bool:
        """Whether the line has lied within the last seconds."""
        return self._clock.now() < self._doubt_until_s

    def doubt(self) -> None:
        """Distrust the line for a while."""
        self._doubt_until_s = self._clock.now() + _DOUBT_S

    def connect(self) -> str:
        """Wait for the start-up banner, provoke it when none comes, and return it.

        Raises:
            DeviceTimeoutError: Nothing that answers like GRBL.
        """
        banner = self._await_banner(_BANNER_S) or self._reset_for_banner(attempts=1)
        if banner is None:
            with contextlib.suppress(RailLockedError):  # a banner that came late
                self.command("")
            banner = "Grbl (banner not seen)"
        self._drain_until_quiet()
        self._forget()
        return banner

    def restart(self) -> None:
        """Reset the controller, again and again until its banner: a reset right after an alarm gets lost.

        Raises:
            DeviceTimeoutError: It never came back.
        """
        with self._turn:
            self._restart()

    def _restart(self) -> None:
        self.listen()
        if self._reset_for_banner(attempts=_RESET_ATTEMPTS) is None:
            raise DeviceTimeoutError(
                f"{self.wire.name}: the controller does not come back from reset",
                next_step="switch the controller off and on, then connect again",
            )
        fault = self._drain_until_quiet()
        self._forget()
        self.fault = fault

    def command(self, line: str, *, timeout_s: float = _ANSWER_S, at_least_s: float = 0.0) -> list[str]:
        """Send one line and return the information that came before its ``ok``.

        Args:
            line: Without its end.
            timeout_s: Session seconds until the answer is given up.
            at_least_s: What the line takes at least: an ``ok`` before that is an older line's.

        Raises:
            GrblRefusedError: ``error:N``.
            RailLockedError: An alarm came instead, or the controller restarted.
            DeviceTimeoutError: No answer in time; whether the line was executed is unknown.
        """
        with self._turn:
            self._get_in_step()
            return self._exchange(line, timeout_s, at_least_s)

    def status(
        self, *, timeout_s: float = _ANSWER_S, accepts: Callable[[Answer], bool] = lambda _: True
    ) -> Answer:
        """Ask for a status report; returns it with the session times of its request and of the reply.

        Torn reports, and those that are not accepted, are asked for again.

        Args:
            timeout_s: Session seconds until it is given up.
            accepts: Judges whether a well-formed report can be true.

        Raises:
            RailLockedError: After a critical alarm nothing is answered before a restart.
            DeviceTimeoutError: No valid report in time.
        """
        with self._turn:
            deadline_s = self._clock.now() + self.patience_s(timeout_s)
            overdue = 0
            while True:
                answer = self._ask_once(deadline_s)
                if answer is not None and accepts(answer):
                    return answer
                overdue += self._clock.now() >= deadline_s
                if overdue > (0 if answer is None else _WITNESSES):
                    raise DeviceTimeoutError(
                        f"{self.wire.name}: no reply to '?' within {timeout_s:g} s",
                        next_step="is the controller powered and its cable plugged in?",
                    )

    def write_setting(self, number: int, value: float, *, pause: bool) -> None:
        """Write one setting at rest; a controller that writes its memory may lose what is sent meanwhile.

        Raises:
            GrblRefusedError: ``error:N``.
            DeviceError: The rail is not at rest.
        """
        state = self.status()[0].state
        if state not in {"Idle", "Alarm"}:
            raise DeviceError(f"{self.wire.name}: settings are written at rest only, the rail is in {state}")
        self.command(f"${number}={f'{value:.3f}'.rstrip('0').rstrip('.')}")
        if pause:
            self._clock.sleep(_EEPROM_PAUSE_S)

    def _ask_once(self, deadline_s: float) -> Answer | None:
        self.listen()  # a late report must not pass for the answer
        if self.deaf:
            raise RailLockedError(
                f"{self.wire.name}: {self.fault}", next_step="clear the fault, then home the rail"
            )
        asked_s = self._clock.now()
        self.wire.write_realtime(protocol.STATUS)
        grace_s = self.patience_s(_WITNESS_S)
        until_s = max(min(deadline_s, asked_s + self.patience_s(_ASK_EVERY_S)), asked_s + grace_s)
        report = self._await_report(until_s)
        if report is None or self._is_too_soon(self._clock.now() - asked_s):
            self.doubt()
            return None
        return report, asked_s, self._clock.now()

    def _is_too_soon(self, took_s: float) -> bool:
        """Tell whether a reply to an earlier question came late, or was doubled: no line is sent in less time."""
        if self.doubtful:
            return self._fastest_reply_s < math.inf and took_s < self._fastest_reply_s / 2
        self._fastest_reply_s = min(self._fastest_reply_s, took_s)
        return False

    def _exchange(self, line: str, timeout_s: float, at_least_s: float) -> list[str]:
        sent_s = self._clock.now()
        self.wire.write_line(line)
        deadline_s = sent_s + self.patience_s(timeout_s)
        information: list[str] = []
        for text in self._lines(deadline_s):
            kind = self._note(text)
            if kind is LineKind.OK and self._clock.now() < sent_s + at_least_s:
                self._note_stale(kind)
                continue
            if kind is LineKind.OK:
                return information
            if kind is LineKind.ERROR:
                raise GrblRefusedError(protocol.number_of(text), line, self.wire.name)
            if kind in {LineKind.ALARM, LineKind.BANNER}:
                raise RailLockedError(
                    f"{self.wire.name}: {self.fault} after '{line}'",
                    next_step="clear the fault, then home the rail",
                )
            if kind is LineKind.INFO and len(information) < _BABBLE_LINES:
                information.append(text)
        self._out_of_step = True
        self.doubt()
        self.statistics.lost_answers += 1
        raise DeviceTimeoutError(
            f"{self.wire.name}: no answer to '{line}' within {timeout_s:g} s",
            kept="the line is not sent again",
            next_step="is the controller powered? home the rail before going on",
        )

    def _get_in_step(self) -> None:
        """See that the next ``ok`` belongs to the next line: a late one may still be on its way."""
        self.listen()
        if not self._out_of_step:
            return
        for _ in range(_STEP_ATTEMPTS):
            self.wire.write_line("$G")
            modes = self._await(_answers_modes, _ANSWER_S, "the modes after '$G'")
            if modes.startswith("[GC:"):
                self._await(lambda text: text == "ok", _ANSWER_S, "'ok' after '$G'")
                self._out_of_step = False
                return
        raise DeviceTimeoutError(f"{self.wire.name}: the controller does not understand '$G'")

    def _await(self, wanted: Callable[[str], bool], timeout_s: float, what: str) -> str:
        deadline_s = self._clock.now() + self.patience_s(timeout_s)
        for text in self._lines(deadline_s):
            if wanted(text):
                return text
            self._note_stale(self._note(text))
        raise DeviceTimeoutError(f"{self.wire.name}: {what} did not come within {timeout_s:g} s")

    def _await_report(self, deadline_s: float) -> StatusReport | None:
        for text in self._lines(deadline_s):
            kind = self._note(text)
            if kind is LineKind.REPORT:
                return self._whole(protocol.parse_report(text))
            if kind is LineKind.NOISE:
                return None
            if self.deaf:
                return None
            self._note_stale(kind)
        return None

    def _whole(self, report: StatusReport | None) -> StatusReport | None:
        """Return a report that tells as many axes as the one before it; another is torn, unless it says so twice."""
        if report is None or report.axes not in {self._axes or report.axes, self._other_axes}:
            self._other_axes = 0 if report is None else report.axes
            self.statistics.discarded_lines += 1
            self.doubt()
            return None
        self._axes, self._other_axes = report.axes, 0
        return report

    def _await_banner(self, timeout_s: float) -> str | None:
        deadline_s = self._clock.now() + self.patience_s(timeout_s)
        for text in self._lines(deadline_s):
            if protocol.classify(text) is LineKind.BANNER:
                return text
            self._note(text)
        return None

    def _reset_for_banner(self, *, attempts: int) -> str | None:
        for _ in range(attempts):
            self.wire.write_realtime(protocol.RESET)
            self._on_restart()
            banner = self._await_banner(_RESET_EVERY_S)
            if banner is not None:
                return banner
        return None

    def _lines(self, deadline_s: float) -> Iterator[str]:
        """Yield lines until the deadline, and those that waited for a busy host; a device may babble, though."""
        overdue = 0
        while overdue < _BABBLE_LINES:
            text = self.wire.read_line(timeout_s=max(deadline_s - self._clock.now(), 0.0))
            if text is None:
                return
            overdue += self._clock.now() > deadline_s
            yield text

    def listen(self) -> None:
        """Note every line that is already there; an ``ok`` among them belongs to nothing."""
        for _ in range(_BABBLE_LINES):
            text = self.wire.read_line(timeout_s=0.0)
            if text is None:
                return
            self._note_stale(self._note(text))

    def _drain_until_quiet(self) -> str:
        """Note lines until none comes for a moment; returns the alarm among them, if any."""
        self.fault = ""
        for _ in range(_BABBLE_LINES):
            text = self.wire.read_line(timeout_s=self.patience_s(_QUIET_S))
            if text is None:
                break
            self._note(text)
        return self.fault

    def _forget(self) -> None:
        self._doubt_until_s = -math.inf
        self.fault = ""
        self.alarm, self.deaf = 0, False
        self._out_of_step = False

    def _note_stale(self, kind: LineKind) -> None:
        """Count an ``ok`` that nothing waits for; a line that repeats itself is not to be trusted."""
        if kind is LineKind.OK:
            self.statistics.stale_answers += 1
            self.doubt()

    def _note(self, text: str) -> LineKind:
        """Classify a line and remember what it means for the position."""
        kind = protocol.classify(text)
        if kind is LineKind.ALARM:
            self.alarm = protocol.number_of(text)
            self.fault = protocol.alarm_text(self.alarm)
            self.deaf = self.alarm in protocol.CRITICAL_ALARMS
        elif kind is LineKind.BANNER:
            self.fault = self.fault or "the controller restarted; the position is lost"
            self._on_restart()
            self.alarm, self.deaf = 0, False
            self._out_of_step = False
        elif kind is LineKind.NOISE:
            self.statistics.discarded_lines += 1
            self.doubt()
        return kind


def _answers_modes(text: str) -> bool:
    """An error is an answer as well: '$G' was appended to a line whose end had been lost, and spoiled it."""
    return text.startswith("[GC:") or protocol.classify(text) is LineKind.ERROR
