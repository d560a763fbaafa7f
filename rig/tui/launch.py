"""Start the operator's UI: the relay of the stop key first, then the drawing behind it; or the plain lines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rig.errors import TerminalNeededError
from rig.profile import RigProfile
from rig.runtime import EngineAddress
from rig.tui.keys_relay import StopSender, fork_behind_relay
from rig.tui.stop_keys import StopTarget, TextWindow

UI_NICENESS = 5


def run_tui(profile_name: str, *, data: Path, photos: Path | None, plain: bool) -> int:
    """Run the UI until the operator leaves; returns the exit code.

    Raises:
        TerminalNeededError: There is no terminal to draw on.
    """
    profile = RigProfile.load(profile_name)
    target = StopTarget(None if profile.simulated else EngineAddress.of(profile).stop_path)
    if plain:
        from rig.tui.plain import run_plain

        return run_plain(profile, profile_name, data=data, photos=photos, target=target)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise TerminalNeededError(
            "there is no terminal to draw on", next_step="give --plain for a line at a time"
        )
    window = TextWindow()
    code = fork_behind_relay(StopSender(target), window)
    if code is not None:
        return code
    return _draw(profile, profile_name, data=data, photos=photos, target=target, window=window)


def _draw(
    profile: RigProfile,
    profile_name: str,
    *,
    data: Path,
    photos: Path | None,
    target: StopTarget,
    window: TextWindow,
) -> int:
    os.environ.setdefault("TEXTUAL_DISABLE_KITTY_KEY", "1")  # Space stays one byte
    for name in ("COLUMNS", "LINES"):  # Python believes them before it asks the terminal
        os.environ.pop(name, None)
    from rig.tui.app import OperatorApp
    from rig.tui.knowledge import Knowledge
    from rig.tui.link import LiveLink

    name = f"tui ({os.getpid()})"
    link = LiveLink(
        profile, profile_name, name=name, data=data, photos=photos, target=target, niceness=UI_NICENESS
    )
    app = OperatorApp(
        profile,
        link=link,
        knowledge=Knowledge(profile.name, name),
        data=data,
        photos=photos,
        text_window=window,
    )
    code = app.run()
    return app.return_code or code or 0
