"""Thirty ways in which a camera goes wrong, each beginning at four phases of a session: never a hang, one known end.

A fault is there from the beginning of its phase on. The session goes on to the first error; then the body is mended
and the driver must stand as the table says, find the files that were recorded, and record again. The table is also
the one in ``rig/devices/README.md``. By default each kind is tried at its most telling phase; with
``CLEANPLATE_NIGHTLY=1`` all 120 pairs run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from camera_fault_story import MOMENTS, SERIAL, Phase, Scene, State, Step, Story, scene
from small_camera import count_frames

from rig.errors import (
    DeviceBusyError,
    DeviceError,
    DeviceTimeoutError,
    OtherDeviceError,
    SettingRefusedError,
)

PHASES: tuple[Phase, ...] = get_args(Phase)
README = Path(__file__).parents[2] / "rig" / "devices" / "README.md"
Spoil = Callable[[Scene, Phase], None]
Look = Callable[[Story], bool]


@dataclass(frozen=True)
class End:
    """How a session ends."""

    step: Step = "done"
    error: type[DeviceError] | None = None
    message: str = ""
    """Regular expression."""
    state: State = "open"
    is_kept: bool = True
    """Whether what was recorded can be fetched as it was told, once the body is mended."""
    look: Look | None = None
    """What else must be true of a session that went to its end."""

    def __str__(self) -> str:
        if self.error is None:
            return "goes on, told" if self.look else "goes on"
        return f"`{self.step}`: {self.error.__name__}, {self.state}"


@dataclass(frozen=True)
class Kind:
    """One way to go wrong."""

    what: str
    """For the table in the README."""
    spoil: Spoil
    ends: tuple[End, End, End, End]
    """By phase."""
    telling: Phase
    """The phase at which it is tried in every run of the suite."""
    on_reconnect: tuple[type[DeviceError], str] | None = None
    """What looking for the body ends with while it is not mended; None where it is found."""


def _with(**faults: Any) -> Spoil:
    return lambda scene, _: scene.spoil(**faults)


def _going(**faults: Any) -> Spoil:
    return lambda scene, phase: scene.spoil(vanishes_at=MOMENTS[phase], **faults)


def told(look: Look) -> End:
    return End(look=look)


def _files(count: int) -> Look:
    """So many movie files at least (a busy machine films longer), in the camera's order, and one still, all fetched."""

    def look(story: Story) -> bool:
        names = [f.name for f in story.movie]
        return len(names) >= count and names == sorted(names) and len(story.fetched) == len(names) + 1

    return look


def during(battery: int | None = None, *, hot: bool = False, changed: str = "") -> Look:
    def look(story: Story) -> bool:
        assert story.during is not None
        return (
            battery in {None, story.during.battery_percent}
            and story.during.hot == hot
            and "; ".join(story.during.unasked_changes) == changed
        )

    return look


def _whole_session(story: Story) -> bool:
    return len(story.fetched) == 2


def _frames(story: Story, *, most: int) -> bool:
    return 1 <= count_frames(story.fetched[0]) <= most


ON = End(look=None)
BROKEN = "the link broke"
TIME_OUT = r"code -(7|10)\)"
LOST_SETTING = End("configure", DeviceError, f"setting the exposure failed: {BROKEN}", "lost")
LOST_FRAME = End("preview", DeviceError, f"reading live view failed: {BROKEN}", "lost")
LOST_COPY = End("fetch", DeviceError, f"copying CLN_0001.MOV failed: {BROKEN}", "lost")
AUTOFOCUS = End(
    "open", SettingRefusedError, "'focus is manual' is needed, but focusmode is '(AF-S|One Shot)'", "closed"
)
BUSY = End("preview", DeviceBusyError, "reading live view failed.*Busy")
NO_START = End("start_movie", DeviceError, "the movie did not start within 2 s")
NO_FILE = End("stop_movie", DeviceTimeoutError, "announced no file")
SHORT = End("fetch", DeviceError, r"CLN_0001.MOV: \d+ of \d+ bytes arrived")
CUT_MOVIE = End("fetch", DeviceError, "CLN_0001.MOV: the movie is cut off or garbled", is_kept=False)
CUT_FRAME = End(
    "preview", DeviceError, "reading live view failed: .*JPEG|live view: the JPEG picture is cut off"
)
HOT_MOVIE = End("start_movie", DeviceError, "a movie cannot be recorded: Temperature too high")
LOW = told(during(5))
DRIFTED = told(during(changed="iso was 400 and became 500"))
ENDED = told(lambda story: _frames(story, most=4))
PARTS = told(_files(3))
ONCE = told(_files(1))
IN_MEMORY = told(lambda story: story.still[0].folder == "memory" and len(story.fetched) == 2)


def _no_card(reason: str) -> tuple[End, End, End, End]:
    movie = End("start_movie", DeviceError, f"a movie cannot be recorded: {reason}")
    still = End("still", DeviceError, f"no picture can be taken: {reason}")
    return movie, movie, still, ON


KINDS: dict[str, Kind] = {
    "vanishes": Kind(
        "unplugged, and stays away",
        _going(),
        (
            End("open", DeviceError, f"connecting failed: {BROKEN}", "closed"),
            LOST_SETTING,
            LOST_FRAME,
            LOST_COPY,
        ),
        "configuring",
        (DeviceError, BROKEN),
    ),
    "freezes_briefly": Kind(
        "answers nothing for 1.5 s",
        lambda scene, phase: scene.spoil(freezes_at=MOMENTS[phase], freeze_s=1.5),
        (ON, ON, ON, ON),
        "configuring",
    ),
    "freezes": Kind(
        "answers nothing any more",
        lambda scene, phase: scene.spoil(freezes_at=MOMENTS[phase]),
        (
            End("open", DeviceTimeoutError, f"no answer to 'open' within 12 s|{TIME_OUT}", "closed"),
            End("configure", DeviceError, f"setting the exposure failed: .*{TIME_OUT}", "lost"),
            End("preview", DeviceTimeoutError, f"no answer to 'preview' within 5 s|{TIME_OUT}", "lost"),
            End("fetch", DeviceTimeoutError, f"no answer to 'fetch' within 5 s|{TIME_OUT}", "lost"),
        ),
        "recording",
        (
            DeviceError,
            f"no answer to 'open'|{BROKEN}|{TIME_OUT}",
        ),  # the watchdog's or the library's own time-out
    ),
    "restarts": Kind(
        "drops the link and is back at once, as at power-up",
        _going(returns_after_s=0.0),
        (ON, LOST_SETTING, LOST_FRAME, LOST_COPY),
        "fetching",
    ),
    "moves": Kind(
        "is back at another port",
        lambda scene, phase: scene.spoil(
            vanishes_at=MOMENTS[phase], returns_after_s=0.0, returns_at_port=scene.other_port
        ),
        (ON, LOST_SETTING, LOST_FRAME, LOST_COPY),
        "recording",
    ),
    "is_replaced": Kind(
        "another body, with another serial number, is there instead",
        _going(returns_after_s=0.0, returns_as="OTHER99"),
        (
            End("open", OtherDeviceError, f"serial number OTHER99, but {SERIAL} is wanted", "closed"),
            LOST_SETTING,
            LOST_FRAME,
            LOST_COPY,
        ),
        "configuring",
        (OtherDeviceError, f"serial number OTHER99, but {SERIAL} is wanted"),
    ),
    "is_claimed": Kind(
        "drops the link, then another program has it",
        _going(returns_after_s=0.0, is_claimed=True),
        (
            End("open", DeviceBusyError, "turned the connection away; another program may have it", "closed"),
            LOST_SETTING,
            LOST_FRAME,
            LOST_COPY,
        ),
        "opening",
        (DeviceBusyError, "another program may have it"),
    ),
    "refuses": Kind(
        "refuses focus mode and ISO",
        _with(refused=("iso", "focus_mode")),
        (
            AUTOFOCUS,
            End("configure", SettingRefusedError, "'ISO Speed' .* was not set .*Invalid"),
            ON,
            ON,
        ),
        "configuring",
    ),
    "ignores": Kind(
        "accepts focus mode and ISO and keeps its own",
        _with(ignored=("iso", "focus_mode")),
        (AUTOFOCUS, End("configure", SettingRefusedError, "told iso 400 and reads back 100"), ON, ON),
        "configuring",
    ),
    "rounds": Kind(
        "takes the choice beside",
        _with(rounded=("iso", "focus_mode")),
        (AUTOFOCUS, End("configure", SettingRefusedError, "told iso 400 and reads back 500"), ON, ON),
        "opening",
    ),
    "drifts": Kind(
        "changes ISO by itself while it records (`unasked_changes`)",
        _with(drifting=("iso",)),
        (DRIFTED, DRIFTED, DRIFTED, ON),
        "recording",
    ),
    "is_busy": Kind("busy without end", _with(busy_answers=100_000), (BUSY, BUSY, BUSY, ON), "opening"),
    "card_full": Kind("card full", _with(card_bytes=1_000_000), _no_card("Card full"), "configuring"),
    "card_missing": Kind("card taken out", _with(movie_prohibit_bits=1), _no_card("No card"), "opening"),
    "card_protected": Kind(
        "card protected", _with(movie_prohibit_bits=1 << 11), _no_card("Card protected"), "recording"
    ),
    "card_fills": Kind(
        "card fills up while it records, which ends the movie",
        _with(card_fills_bytes_s=320e9),
        (*[End("still", DeviceError, "no picture can be taken: Card full")] * 3, ON),
        "recording",
    ),
    "battery_low": Kind(
        "battery at 5 % (`battery_percent`)", _with(battery_percent=5), (LOW, LOW, LOW, ON), "recording"
    ),
    "hot": Kind(
        "too hot (`hot`)",
        _with(is_hot=True),
        (HOT_MOVIE, HOT_MOVIE, told(during(hot=True)), ON),
        "configuring",
    ),
    "clock_wrong": Kind(
        "clock an hour fast and not to be set (`clock_offset_s`)",
        _with(clock_off_s=3600.0),
        (told(lambda story: _clock_offset_s(story) == pytest.approx(3600, abs=3)), ON, ON, ON),
        "opening",
    ),
    "movie_never_starts": Kind(
        "takes the start and records nothing",
        _with(movie_never_starts=True),
        (NO_START, NO_START, ON, ON),
        "configuring",
    ),
    "movie_ends_early": Kind(
        "movie ends by itself after 0.1 s (its file is delivered)",
        _with(movie_ends_after_s=0.1),
        (ENDED, ENDED, told(_whole_session), ON),
        "configuring",
    ),
    "movie_splits": Kind(
        "movie in files of 0.25 s (all are delivered, in order)",
        _with(movie_split_after_s=0.25),
        (PARTS, PARTS, PARTS, ON),
        "recording",
    ),
    "movie_lost": Kind(
        "never tells of the file", _with(movie_is_lost=True), (NO_FILE, NO_FILE, NO_FILE, ON), "recording"
    ),
    "told_twice": Kind(
        "tells of each file twice (it counts once)",
        _with(announced_twice=True),
        (ONCE, ONCE, ONCE, ON),
        "opening",
    ),
    "told_late": Kind(
        "tells of each file 1 s late", _with(announced_late_s=1.0), (ONCE, ONCE, ONCE, ON), "recording"
    ),
    "told_in_disorder": Kind(
        "tells of the last file first (they come in the camera's order)",
        _with(announced_in_disorder=True, movie_split_after_s=0.25),
        (PARTS, PARTS, PARTS, ON),
        "opening",
    ),
    "file_short": Kind(
        "sends fewer bytes than it told", _with(bytes_missing=7), (SHORT, SHORT, SHORT, SHORT), "fetching"
    ),
    "size_wrong": Kind(
        "tells sizes 100 bytes too small",
        _with(size_error_bytes=-100),
        (CUT_MOVIE, CUT_MOVIE, CUT_MOVIE, ON),
        "recording",
    ),
    "pictures_cut": Kind(
        "JPEG pictures end in their middle",
        _with(pictures_cut=True),
        (CUT_FRAME, CUT_FRAME, CUT_FRAME, ON),
        "configuring",
    ),
    "pictures_to_memory": Kind(
        "stills go to its memory, each in place of the last (fetched at once)",
        _with(pictures_to_memory=True),
        (IN_MEMORY, IN_MEMORY, IN_MEMORY, ON),
        "configuring",
    ),
}

ALL = [(kind, phase) for kind in KINDS for phase in PHASES]
TELLING = [(kind, entry.telling) for kind, entry in KINDS.items()]
CASES = ALL if os.environ.get("CLEANPLATE_NIGHTLY") else TELLING


@pytest.mark.timeout(300)  # of deadlines that are waited for, on a machine that is busy with other tests
@pytest.mark.parametrize(("name", "phase"), CASES)
def test_a_camera_that_goes_wrong_ends_in_the_documented_state(tmp_path: Path, name: str, phase: Phase):
    kind = KINDS[name]
    end = kind.ends[PHASES.index(phase)]
    with scene(tmp_path, looks_elsewhere=name == "moves") as s:
        story = s.play(phase, kind.spoil)

        require_end(s, name, end, story)


def require_end(s: Scene, name: str, end: End, story: Story) -> None:
    """Hold what happened to the table; then mend the body and see that all is well again."""
    kind = KINDS[name]
    # Of a frozen body's time-outs, the watchdog's or the library's is first.
    allowed = {end.error or type(None)} | ({DeviceError} if name == "freezes" else set())
    assert story.ended_at == end.step, story.error
    assert type(story.error) in allowed
    assert story.error is None or (story.error.kept and story.error.next_step)
    assert re.search(end.message, "" if story.error is None else story.error.message)
    assert end.look is None or end.look(story)
    _look_for_it(s, kind, end)
    s.heal()
    _require_state(s, end, story)


def test_the_readme_holds_the_table():
    rows = [row.strip() for row in README.read_text(encoding="utf-8").splitlines()]

    for kind in KINDS.values():
        assert table_row(kind) in rows


def table_row(kind: Kind) -> str:
    """Write a kind as the README has it."""
    return f"| {kind.what} | {' | '.join(str(e) for e in kind.ends)} |"


def _look_for_it(s: Scene, kind: Kind, end: End) -> None:
    """A body that is away, hung or replaced is not found, within the time given, and the reason is told."""
    if kind.on_reconnect is None or end.state == "open":
        return
    error, message = kind.on_reconnect
    with pytest.raises(error, match=message):
        s.camera.reconnect(timeout_s=2.0)


def _require_state(s: Scene, end: End, story: Story) -> None:
    assert s.state() == end.state
    if end.state != "open":
        s.camera.reconnect(timeout_s=30.0)
        assert s.camera.identity.serial == SERIAL
        if story.ended_at not in {"open", "configure"}:
            assert s.body.body.settings.exposure().iso == 400
    for number, file in enumerate(story.movie if story.ended_at == "fetch" and end.is_kept else ()):
        assert s.camera.fetch(file, s.folder / f"again-{number}.mov").size_bytes > 0
    assert count_frames(s.take("after.mov")) > 0


def _clock_offset_s(story: Story) -> float | None:
    return None if story.before is None else story.before.clock_offset_s
