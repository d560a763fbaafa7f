"""VelocityPlot: speed over position, commanded and measured, of the round that runs."""

from __future__ import annotations

import time

from textual_plotext import PlotextPlot

from rig.tui.situation import Command, MotionSample, Situation

PERIOD_S = 0.2
_POINTS = 120


class VelocityPlot(PlotextPlot):
    """Braille plot; redrawn five times a second at most, and only when there are new readings."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  - Textual's name
        super().__init__(id=id)
        self._due_s = float("-inf")
        self._drawn: object = None

    def on_mount(self) -> None:
        """Name the panel."""
        self.border_title = "Velocity, mm/s over mm"
        self.border_subtitle = "·· command  ── measured"

    def show(self, situation: Situation) -> None:
        """Draw a situation, if it is time and there is something new."""
        moving = tuple(m for m in situation.motion if m.velocity_mm_s > 0.05)
        key = (situation.command, moving[-1:], len(moving), self.size)
        now_s = time.monotonic()
        if now_s < self._due_s or key == self._drawn or not self.content_size.area:
            return
        self._due_s, self._drawn = now_s + PERIOD_S, key
        self._draw(situation.command, moving)
        if situation.state is not None:
            self.plt.xlim(*situation.state.travel_mm)
        self.refresh()

    def _draw(self, command: Command | None, moving: tuple[MotionSample, ...]) -> None:
        plot = self.plt
        plot.clear_data()
        plot.clear_figure()
        if command is not None:
            xs, vs = _command_curve(command)
            plot.plot(xs, vs, marker="dot", color=_COMMAND)
        if moving:
            plot.plot(
                [m.position_mm for m in moving],
                [m.velocity_mm_s for m in moving],
                marker="braille",
                color=_MEASURED,
            )
        top_mm_s = max(
            [m.velocity_mm_s for m in moving] + [0.0 if command is None else command.velocity_mm_s, 10.0]
        )
        plot.ylim(0, 1.2 * top_mm_s)
        plot.xfrequency(5)
        plot.yfrequency(4)


_COMMAND = (255, 180, 84)
_MEASURED = (108, 182, 255)


def _command_curve(command: Command) -> tuple[list[float], list[float]]:
    low, high = sorted((command.start_mm, command.end_mm))
    low, high = low - command.ramp_mm, high + command.ramp_mm
    xs = [low + k * (high - low) / (_POINTS - 1) for k in range(_POINTS)]
    return xs, [command.velocity_at(x) for x in xs]
