"""The report's figures of motion and pairing: how the carriage moved, which frames were paired."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from alignment.report_axes import INNER, LEFT, SERIES, Box, Drawing, Figure, Panel, spread
from alignment.report_source import ReportSource, RoundSource
from alignment.report_words import counted, number
from catalog.evidence import MotionPhases, PairRecord, RoundMotion

Array = NDArray[np.float64]

_GAP_CLASSES = 4
_DENSE = 900
"""Combs of more frames than this are drawn with finer lines; the close view, which is as wide, from fewer."""
_CLOSE_DENSE = 150

_VELOCITY_PX = 126
"""Height of the velocity's panel with its gap."""


def motion_figures(source: ReportSource) -> tuple[Figure, ...]:
    """Draw one figure per round that has a measured motion; stills taken at standstill have places, but no speed."""
    return tuple(_motion_figure(r, r.motion) for r in source.rounds if r.motion and len(r.motion.time_s) > 1)


def _motion_figure(round_: RoundSource, motion: RoundMotion) -> Figure:
    moved = motion.velocity_mm_s is not None
    shown = "position, velocity and residual" if moved else "position and residual"
    title, caption = f"Round {round_.name}: {shown} against time", _motion_caption(motion)
    height = 452 if moved else 452 - _VELOCITY_PX
    drawing = Drawing(f"motion-{round_.record.number}", height, title=title, description=caption)
    y = drawing.legend(14, _motion_legend(motion, bool(_rejected_times(round_))), left_px=LEFT)
    x = _time_range(motion)
    position = Panel(drawing, Box(LEFT, y + 14, INNER, 104), x=x, y=spread(motion.position_mm))
    _shade_phases(position, motion.phases)
    _draw_position(position, motion, _rejected_times(round_))
    y += 152
    if moved:
        velocity = Panel(drawing, Box(LEFT, y, INNER, 92), x=x, y=_velocity_range(motion))
        _shade_phases(velocity, motion.phases)
        _draw_velocity(velocity, motion)
        y += _VELOCITY_PX
    residual = Panel(drawing, Box(LEFT, y, INNER, 84), x=x, y=_residual_range(motion))
    _shade_phases(residual, motion.phases)
    _draw_residual(residual, motion)
    return Figure(round_.name, drawing.markup(), caption)


def _motion_legend(motion: RoundMotion, rejected: bool) -> list[tuple[str, str, str]]:
    entries = [("line", "line s0", "measured")]
    if motion.telemetry_time_s:
        entries.append(("line", "line thin telemetry", "rail telemetry"))
    if motion.commanded_velocity_mm_s:
        entries.append(("line", "line dashed commanded", "commanded"))
    if rejected:
        entries.append(("line", "line reject", "rejected frames"))
    if motion.phases:
        shades = ("rest", "ramp", "cruise")
        entries += [("bar", f"phase-{shade}", shade) for shade in shades]
    return entries


def _motion_caption(motion: RoundMotion) -> str:
    what = "stills at standstill" if motion.velocity_mm_s is None else "frames"
    parts = [f"{motion.frames_tracked} of {motion.frames} {what} tracked"]
    if motion.velocity_mm_s is not None:
        sigma = number(motion.velocity_sigma_mm_s, 4)
        parts.append(f"{number(motion.velocity_mm_s, 4)} ± {sigma} mm/s while cruising")
    if motion.residual_sd_px is not None:
        parts.append(f"residual σ {number(motion.residual_sd_px, 3)} px")
    if motion.shaken_sd_px is not None:
        parts.append(f"shaken σ {number(motion.shaken_sd_px, 3)} px")
    return ", ".join(parts) + "."


def _time_range(motion: RoundMotion) -> tuple[float, float]:
    return spread(motion.time_s, margin=0.01)


def _velocity_range(motion: RoundMotion) -> tuple[float, float]:
    """Leave zero in view and room for the commanded speed."""
    time, speed = smoothed_velocity(motion.time_s, motion.position_mm)
    commanded = _commanded(motion)
    return spread([0.0, *speed[np.isfinite(time)], *([commanded] if commanded else [])])


def _residual_range(motion: RoundMotion) -> tuple[float, float]:
    """Three times what is usual in the cruise; the ramps may stick out and are clipped."""
    during = np.asarray(motion.residual_px, np.float64)[_in_cruise(motion)]
    usual = float(np.percentile(np.abs(during), 99)) if during.size else 0.1
    reach = max(1.3 * usual, 4 * (motion.residual_sd_px or 0.0), 0.01)
    return -reach, reach


def _in_cruise(motion: RoundMotion) -> NDArray[np.bool_]:
    time = np.asarray(motion.time_s, np.float64)
    if motion.phases is None:
        return np.ones(time.shape, np.bool_)
    return (time >= motion.phases.cruise_start_s) & (time <= motion.phases.cruise_end_s)


def _commanded(motion: RoundMotion) -> float | None:
    """Give the commanded speed the direction in which the carriage ran on the board's datum."""
    if motion.commanded_velocity_mm_s is None:
        return None
    backwards = (motion.velocity_mm_s or 1.0) < 0
    return -motion.commanded_velocity_mm_s if backwards else motion.commanded_velocity_mm_s


def _rejected_times(round_: RoundSource) -> list[float]:
    return [p.lq.time_s for p in round_.rejected]


def _shade_phases(panel: Panel, phases: MotionPhases | None) -> None:
    if phases is None:
        return
    panel.band(panel.x.low, phases.start_s, "phase-rest")
    panel.band(phases.start_s, phases.cruise_start_s, "phase-ramp")
    panel.band(phases.cruise_start_s, phases.cruise_end_s, "phase-cruise")
    panel.band(phases.cruise_end_s, phases.stop_s, "phase-ramp")
    panel.band(phases.stop_s, panel.x.high, "phase-rest")


def _draw_position(panel: Panel, motion: RoundMotion, rejected_s: Sequence[float]) -> None:
    panel.axes("", "position in mm")
    panel.line(motion.time_s, motion.position_mm, "line s0")
    if len(motion.telemetry_time_s) > 1:
        panel.line(motion.telemetry_time_s, telemetry_on_datum(motion), "line thin telemetry")
    inside = [t for t in rejected_s if panel.x.low <= t <= panel.x.high]
    panel.ticks(inside, panel.box.bottom_px - 6, 6, "line reject")


def telemetry_on_datum(motion: RoundMotion) -> Array:
    """Move the rail's readings onto the board's datum by their median distance from the measured positions.

    Rail and board count from different places, and in opposite directions where the board says so; only the
    course of the two is compared here.
    """
    time = np.asarray(motion.telemetry_time_s, np.float64)
    rail = np.asarray(motion.telemetry_position_mm, np.float64)
    board = np.interp(time, motion.time_s, motion.position_mm)
    if (board[-1] - board[0]) * (rail[-1] - rail[0]) < 0:
        rail = -rail
    return np.asarray(rail + np.median(board - rail), np.float64)


def _draw_velocity(panel: Panel, motion: RoundMotion) -> None:
    panel.axes("", "velocity in mm/s")
    commanded = _commanded(motion)
    if commanded is not None:
        panel.rule("line dashed commanded", y=commanded)
    if len(motion.telemetry_time_s) > 1:
        time, speed = smoothed_velocity(motion.telemetry_time_s, telemetry_on_datum(motion), span=3)
        panel.line(time, speed, "line thin telemetry")
    panel.line(*smoothed_velocity(motion.time_s, motion.position_mm), "line s0")


def smoothed_velocity(
    time_s: Sequence[float], position_mm: Iterable[float], *, span: int = 5
) -> tuple[Array, Array]:
    """Differentiate positions over a sliding stretch of ``span`` frames.

    Returns:
        Times ``(N - span + 1,)`` in s and velocities of the same shape in mm/s.
    """
    time, position = np.asarray(time_s, np.float64), np.asarray(tuple(position_mm), np.float64)
    reach = min(span, len(time)) - 1
    elapsed = time[reach:] - time[: len(time) - reach]
    moved = position[reach:] - position[: len(time) - reach]
    ahead = elapsed > 0
    middle = (time[reach:] + time[: len(time) - reach]) / 2
    return middle[ahead], moved[ahead] / elapsed[ahead]


def _draw_residual(panel: Panel, motion: RoundMotion) -> None:
    sd = motion.residual_sd_px
    if sd and motion.phases:
        cruise = (motion.phases.cruise_start_s, motion.phases.cruise_end_s)
        panel.level_band(cruise, (-sd, sd), "sigma")
    panel.axes("time in s", "residual in px, band ± σ")
    panel.dots(motion.time_s, motion.residual_px, "dot small s0")


def speed_figure(source: ReportSource) -> Figure | None:
    """Draw the velocity of all rounds over the position, so that they can be compared at one glance."""
    fitted = [r for r in source.rounds if r.motion and r.motion.velocity_mm_s is not None]
    moved = [r for r in fitted if r.motion and len(r.motion.time_s) > 5]
    if not moved:
        return None
    caption = "Every round on the datum of the first ground truth; pairs come from where all lines are level."
    drawing = Drawing("speed", 452, title="Velocity of all rounds over position", description=caption)
    entries = [("line", f"line s{i % SERIES}", r.name) for i, r in enumerate(moved)]
    y = drawing.legend(14, entries, left_px=LEFT)
    tracks = [_speed_over_position(r.motion) for r in moved if r.motion]
    box = Box(LEFT, y + 14, INNER, 452 - y - 56)
    everywhere = spread(np.concatenate([x for x, _ in tracks]), margin=0.02)
    speeds = spread(np.concatenate([[0.0], *(v for _, v in tracks)]))
    panel = Panel(drawing, box, x=everywhere, y=speeds)
    panel.axes("position in mm", "velocity in mm/s", y_ticks=6)
    for i, (x, v) in enumerate(tracks):
        panel.line(x, v, f"line s{i % SERIES}")
    return Figure("All rounds", drawing.markup(), caption)


def _speed_over_position(motion: RoundMotion) -> tuple[Array, Array]:
    time, speed = smoothed_velocity(motion.time_s, motion.position_mm)
    return np.interp(time, motion.time_s, motion.position_mm), speed


def pairing_figures(source: ReportSource) -> tuple[Figure, ...]:
    """Draw for every degraded round which ground-truth frame each of its frames was given."""
    gt_mm = _gt_positions(source)
    alignment = source.alignment
    limit = alignment.position_limit_mm if alignment else None
    spread_px_per_mm = np.ptp(alignment.disparity_px_per_mm or (0.0,)) if alignment else 0.0
    return tuple(
        _pairing_figure(r, gt_mm, limit, float(spread_px_per_mm)) for r in source.degraded if r.pairs
    )


def _gt_positions(source: ReportSource) -> Array:
    tracked = [x for r in source.rounds if r.is_gt and r.motion for x in r.motion.position_mm]
    used = [p.gt.position_mm for p in source.pairs]
    return np.unique(np.asarray(tracked or used, np.float64))


def _pairing_figure(
    round_: RoundSource, gt_mm: Array, limit_mm: float | None, spread_px_per_mm: float
) -> Figure:
    caption = _pairing_caption(round_, limit_mm)
    title = f"Round {round_.name}: which ground truth each frame was given"
    drawing = Drawing(f"pairing-{round_.record.number}", 476, title=title, description=caption)
    entries = [
        ("line", "line comb-gt", "ground truth"),
        ("line", "line comb-lq", "degraded, accepted"),
        ("line", "line reject", "rejected"),
        *(("line", f"line gap{k}", text) for k, text in enumerate(_gap_labels(_gap_unit(round_, limit_mm)))),
    ]
    y = drawing.legend(14, entries, left_px=LEFT)
    _whole_strip(drawing, round_, gt_mm, top_px=y + 16)
    _close_strip(drawing, round_, gt_mm, top_px=y + 120, unit_mm=_gap_unit(round_, limit_mm))
    gaps = _gap_histogram(drawing, round_, limit_mm, top_px=y + 264)
    if spread_px_per_mm:
        gaps.second_scale("parallax between near and far in px", factor=spread_px_per_mm)
    return Figure(round_.name, drawing.markup(), caption)


def _pairing_caption(round_: RoundSource, limit_mm: float | None) -> str:
    gaps = [abs(p.position_gap_mm) for p in round_.accepted]
    text = f"{counted(len(round_.accepted), 'frame')} paired, {counted(len(round_.rejected), 'candidate')} rejected"
    if gaps:
        text += f"; median gap {number(float(np.median(gaps)), 3)} mm"
    if limit_mm is not None:
        text += f"; parallax allows {number(limit_mm, 3)} mm"
    return text + "."


def _gap_unit(round_: RoundSource, limit_mm: float | None) -> float:
    """Gap at which a link gets the strongest colour: the parallax limit, else the largest accepted gap."""
    gaps = [abs(p.position_gap_mm) for p in round_.accepted]
    return limit_mm or max(gaps, default=0.0) or 1.0


def _gap_labels(unit_mm: float) -> list[str]:
    bounds = [unit_mm * k / _GAP_CLASSES for k in range(1, _GAP_CLASSES + 1)]
    return [f"gap ≤ {number(b, 3)} mm" if k == 0 else f"≤ {number(b, 3)}" for k, b in enumerate(bounds)]


def _gap_class(pair: PairRecord, unit_mm: float) -> int:
    return min(int(_GAP_CLASSES * abs(pair.position_gap_mm) / unit_mm), _GAP_CLASSES - 1)


def _whole_strip(drawing: Drawing, round_: RoundSource, gt_mm: Array, *, top_px: float) -> None:
    everywhere = [*gt_mm, *(p.lq.position_mm for p in round_.pairs)]
    panel = Panel(drawing, Box(LEFT, top_px, INNER, 42), x=spread(everywhere, margin=0.01), y=(0, 1))
    _comb_names(drawing, panel)
    drawing.text(LEFT, top_px - 6, "whole travel")
    weight = "line fine" if len(everywhere) > _DENSE else "line"
    panel.ticks(gt_mm, top_px + 2, 17, f"{weight} comb-gt")
    panel.ticks([p.lq.position_mm for p in round_.accepted], top_px + 23, 17, f"{weight} comb-lq")
    panel.ticks([p.lq.position_mm for p in round_.rejected], top_px + 23, 17, f"{weight} reject")
    panel.axes("position in mm", "", y_ticks=0)


def _comb_names(drawing: Drawing, panel: Panel) -> None:
    drawing.text(LEFT - 6, panel.box.top_px + 15, "GT", "tick", anchor="end")
    drawing.text(LEFT - 6, panel.box.bottom_px - 6, "LQ", "tick", anchor="end")


def _close_strip(
    drawing: Drawing, round_: RoundSource, gt_mm: Array, *, top_px: float, unit_mm: float
) -> None:
    """Show the twenty frames in the middle of the accepted ones so close that the gaps can be seen."""
    near = _middle_pairs(round_)
    places = [x for p in near for x in (p.lq.position_mm, p.gt.position_mm)]
    box = Box(LEFT, top_px, INNER, 78)
    panel = Panel(drawing, box, x=spread(places, margin=0.02), y=(0, 1))
    _comb_names(drawing, panel)
    drawing.text(LEFT, top_px - 6, "a stretch of it, with links")
    inside = gt_mm[(gt_mm >= panel.x.low) & (gt_mm <= panel.x.high)]
    panel.ticks(
        inside, top_px + 2, 20, "line comb-gt" if len(inside) <= _CLOSE_DENSE else "line fine comb-gt"
    )
    for pair in near:
        _link(drawing, panel, pair, unit_mm)
    panel.axes("position in mm", "", y_ticks=0)


def _link(drawing: Drawing, panel: Panel, pair: PairRecord, unit_mm: float) -> None:
    accepted = pair.verdict == "accepted"
    top, bottom = panel.box.top_px + 22, panel.box.bottom_px - 22
    lq, gt = panel.x(pair.lq.position_mm), panel.x(pair.gt.position_mm)
    panel.ticks([pair.lq.position_mm], bottom, 20, "line comb-lq" if accepted else "line reject")
    if accepted:
        drawing.path(f"M{gt:.1f} {top:.1f}L{lq:.1f} {bottom:.1f}", f"line gap{_gap_class(pair, unit_mm)}")


def _middle_pairs(round_: RoundSource, count: int = 20) -> list[PairRecord]:
    ordered = sorted(round_.pairs, key=lambda p: p.lq.position_mm)
    accepted = [i for i, p in enumerate(ordered) if p.verdict == "accepted"]
    middle = accepted[len(accepted) // 2] if accepted else len(ordered) // 2
    first = max(min(middle - count // 2, len(ordered) - count), 0)
    return ordered[first : first + count]


def _gap_histogram(drawing: Drawing, round_: RoundSource, limit_mm: float | None, *, top_px: float) -> Panel:
    accepted = [p.position_gap_mm for p in round_.accepted]
    rejected = [p.position_gap_mm for p in round_.rejected]
    reach = max(1.25 * (limit_mm or 0.0), 1.1 * max(map(abs, accepted), default=0.0), 0.01)
    edges = np.linspace(-reach, reach, 2 * _bin_count(np.asarray(accepted, np.float64)) // 2 + 2)
    kept, lost = (np.histogram(np.clip(v, -reach, reach), edges)[0] for v in (accepted, rejected))
    panel = Panel(drawing, Box(LEFT, top_px, INNER, 92), x=(-reach, reach), y=(0, 1.1 * max(*kept, *lost, 1)))
    panel.axes("LQ less GT position in mm", "pairs; those beyond the axis stand in its last bars", y_ticks=3)
    panel.steps(edges, lost, "line reject")
    panel.bars(edges.tolist(), kept.tolist(), "bar lq")
    for limit in (-limit_mm, limit_mm) if limit_mm else ():
        panel.rule("line dashed limit", x=limit)
    return panel


def _bin_count(values: Array) -> int:
    return int(np.clip(2 * np.sqrt(values.size), 12, 36))
