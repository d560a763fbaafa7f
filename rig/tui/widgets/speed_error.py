"""SpeedError: how far the measured speed is from the commanded one over the steady zone."""

from __future__ import annotations

from statistics import pstdev

from rig.tui.situation import Command, MotionSample, Situation
from rig.tui.widgets.panel import Panel, Parts
from rig.tui.wording import bars


class SpeedError(Panel):
    """A sparkline of the error's size, mm/s, and its standard deviation."""

    def on_mount(self) -> None:
        """Name the panel."""
        self.border_title = "Speed error, mm/s"

    def picture(self, situation: Situation) -> Parts:
        """Return the sparkline with its figures."""
        if situation.command is None:
            return [("no round runs", "$faint")]
        errors = speed_errors(situation.motion, situation.command)
        if len(errors) < 2:
            return [("not in the steady zone yet", "$faint")]
        room = max(self.content_size.width - 22, 4)
        sizes = tuple(abs(e) for e in errors[-room:])
        return [(bars(sizes, len(sizes)), "$lead"), (f"  last {errors[-1]:+.2f}  σ {pstdev(errors):.2f}", "")]


def speed_errors(motion: tuple[MotionSample, ...], command: Command) -> list[float]:
    """Return measured minus commanded speed for the readings in the steady zone, mm/s."""
    return [m.velocity_mm_s - command.velocity_mm_s for m in motion if command.uniform_at(m.position_mm)]
