"""What the screens are tested with: states that do not change, a link that replays events, fixed clocks."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from PIL import Image, ImageOps
from textual.pilot import Pilot

from catalog.session_folder import ExposureSettings
from rig.events import (
    Attached,
    CameraReading,
    Choice,
    EngineMode,
    Event,
    Motion,
    OperatorCard,
    Preview,
    RailReading,
    RigState,
    RoundProgress,
    RoundStarted,
    Saved,
    SessionProgress,
    Step,
    TakeFinding,
    TakeFinished,
    Warned,
)
from rig.profile import RigProfile
from rig.requests import Command
from rig.tui.app import OperatorApp
from rig.tui.knowledge import Knowledge

NOW_S = 1000.0
"""This machine's monotonic clock, standing still; the session clock reads the same."""
WALL_S = 1_700_000_000.0
NAME = "tui-1"


class ReplayLink:
    """An engine's end that says what it was told to say, and remembers what it was asked."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.sent: list[Command] = []
        self.stops: list[bytes] = []
        self._events = events
        self.hear: Callable[[Event], None]
        self.lost: Callable[[str], None]

    def open(self, hear: Callable[[Event], None], lost: Callable[[str], None]) -> None:
        self.hear, self.lost = hear, lost
        for event in self._events:
            hear(event)

    def send(self, command: Command) -> None:
        self.sent.append(command)

    def stop(self, stop: bytes) -> None:
        self.stops.append(stop)

    def close(self) -> None:
        pass


def attached() -> Attached:
    return Attached(
        t_host_s=NOW_S,
        rig="bench-a",
        simulated=False,
        engine_pid=1,
        client_id=1,
        clock_origin_s=0.0,
        clock_rate=1.0,
    )


def rail(**changes: object) -> RailReading:
    values = {
        "t_host_s": NOW_S - 0.1, "state": "run", "homed": True, "position_mm": 212.4, "velocity_mm_s": 40.02,
    }  # fmt: skip
    return RailReading.model_validate({**values, **changes})


def camera(**changes: object) -> CameraReading:
    values = {
        "t_host_s": NOW_S - 0.2, "connected": True, "model": "Z 6", "battery_percent": 84, "free_bytes": 64 * 10**9,
        "settings": ExposureSettings(iso=6400, f_number=8, exposure_s=0.005, focus_m=2.0, white_balance="daylight"),
    }  # fmt: skip
    return CameraReading.model_validate({**values, **changes})


def rounds() -> tuple[RoundProgress, ...]:
    checked = (
        TakeFinding(what="velocity", verdict="ok", text="40.01 mm/s, ripple 0.21 %"),
        TakeFinding(what="markers", verdict="ok", text="34 in view"),
        TakeFinding(what="exposure", verdict="doubtful", text="mean 3 % above GT"),
    )
    return (
        RoundProgress(
            number=1, name="gt", role="gt", setting="base", state="valid", takes=1, frames=612, ripple_percent=0.21,
            findings=checked,
        ),
        RoundProgress(
            number=2, name="iso6400", role="internal", setting="ISO 6400", state="running", step="recording", takes=1,
            frames=204, expected_pairs=570, ripple_percent=0.23,
        ),
        RoundProgress(number=3, name="rain", role="external", setting="rain light", state="waiting"),
        RoundProgress(number=4, name="gt-close", role="gt", setting="base", state="waiting"),
    )  # fmt: skip


def session(**changes: object) -> SessionProgress:
    values = {
        "session": "bookshelf-03-20231114", "folder": "/nowhere", "scene": "bookshelf-03", "rounds": rounds(),
        "remaining_s": 250.0, "uniform_mm": (60.0, 340.0),
    }  # fmt: skip
    return SessionProgress.model_validate({**values, **changes})


def state(**changes: object) -> RigState:
    values = {
        "t_host_s": NOW_S - 0.1, "rig": "bench-a", "simulated": False, "mode": EngineMode.RUNNING,
        "travel_mm": (0.0, 400.0), "rail": rail(), "cameras": {"main": camera()}, "disk_free_gb": 412.0,
        "session": session(), "card_id": None, "card": None, "controller": NAME, "clients": 1,
    }  # fmt: skip
    return RigState.model_validate({**values, **changes})


def picture(shade: int = 0) -> Preview:
    """A picture with a bright frame and a ramp, so that proportions and colours can be seen."""
    image = Image.new("RGB", (160, 96))
    ramp = [(min(x + shade, 255), 2 * y, 90) for y in range(96) for x in range(160)]
    image.putdata(ramp)
    framed = ImageOps.expand(image.crop((4, 4, 156, 92)), border=4, fill=(240, 240, 200))
    out = io.BytesIO()
    framed.save(out, "JPEG", quality=90)
    return Preview(
        t_host_s=NOW_S - 0.2, camera="main", jpeg_base64=base64.b64encode(out.getvalue()).decode(),
        width=160, height=96, clipped_percent=0.2, sharpness=91.0, markers_seen=34,
        histogram=tuple(abs(16 - k) for k in range(32)),
    )  # fmt: skip


def happenings() -> list[Event]:
    """A round's worth of events with a motion that ends at the present position."""
    return [
        RoundStarted(t_host_s=NOW_S - 5, round="iso6400", number=2, role="internal", duration_s=11.0),
        Saved(
            t_host_s=NOW_S - 5, round="gt", take=1, path="rounds/01-gt.take1/main-01.mov", size_bytes=1_500_000_000,
            sha256="ab" * 32,
        ),
        TakeFinished(t_host_s=NOW_S - 5, round="gt", take=1, state="valid", reason="", frames=612),
        Warned(t_host_s=NOW_S - 5, round="iso6400", text="preview skipped 2 (recording complete)"),
        Step(t_host_s=NOW_S - 4, round="iso6400", text="recording"),
    ]  # fmt: skip


def motion() -> list[Event]:
    """A run-up from 60 mm at 200 mm/s², then 40 mm/s with a little ripple up to the present position."""
    ramp = [(60 + 100 * t * t, 200 * t) for t in (0.05, 0.1, 0.15, 0.2)]
    uniform = [(64 + 4 * k, 40 + 0.3 * (-1) ** k) for k in range(1, 38)]
    return [
        Motion(t_host_s=NOW_S - 5 + 0.1 * k, round="iso6400", position_mm=x, velocity_mm_s=v)
        for k, (x, v) in enumerate(ramp + uniform)
    ]


def condition_card() -> OperatorCard:
    return OperatorCard(
        kind="condition",
        round="rain",
        title="Turn the rain on",
        text="Set rain to light, wait until it is steady.",
        checklist=("rain runs", "no drops on the lens", "nobody near the rail"),
        choices=(
            Choice(name="done", label="Done"),
            Choice(name="skip", label="Leave this round out", needs_reason=True),
        ),
    )


class Shown:
    """An application on a headless terminal."""

    def __init__(self, app: OperatorApp, link: ReplayLink, pilot: Pilot[int]) -> None:
        self.app, self.link, self.pilot = app, link, pilot

    async def settle(self) -> None:
        """Let every panel be drawn once more: the slowest draws four times a second, the screen ten times."""
        enough = self.app.times_drawn + 4
        await self.until(lambda: self.app.times_drawn >= enough)

    async def until(self, so: Callable[[], bool]) -> None:
        for _ in range(600):
            if so():
                return
            await self.pilot.pause(0.03)
        raise AssertionError(f"not so after 600 looks, on {self.app.screen}")

    async def hear(self, event: Event) -> None:
        self.link.hear(event)
        await self.settle()

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.pilot.press(key)
            await self.pilot.pause(0.02)

    async def show(self, screen: type) -> None:
        """Wait until a screen is up and drawn."""
        await self.until(lambda: isinstance(self.app.screen, screen))
        await self.settle()

    def text(self, selector: str) -> str:
        widget = self.app.screen.query_one(selector)
        return "\n".join(widget.render_line(y).text for y in range(widget.content_size.height))


@asynccontextmanager
async def showing(
    *events: Event, size: tuple[int, int] = (120, 40), data: Path = Path("/nowhere")
) -> AsyncIterator[Shown]:
    """Run an application in front of an engine that said these events; it has been drawn with them."""
    app, link = app_showing(*events, data=data)
    async with app.run_test(size=size) as pilot:
        shown = Shown(app, link, pilot)
        await shown.until(lambda: app.situation().state is not None)
        await shown.settle()
        yield shown


def app_showing(
    *events: Event, profile: str = "sim", data: Path = Path("/nowhere")
) -> tuple[OperatorApp, ReplayLink]:
    """Return an application in front of an engine that said these events; its clocks stand still."""
    link = ReplayLink([attached(), *events])
    knowledge = Knowledge("bench-a", NAME, now=lambda: NOW_S, wall=lambda: WALL_S)
    app = OperatorApp(RigProfile.load(profile), link=link, knowledge=knowledge, data=data)
    return app, link
