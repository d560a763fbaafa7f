"""What a plan file will do, in lines: the same forecast as `rig plan`, and its errors with line and column."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from catalog.errors import CleanplateError
from catalog.session_folder import SESSION_FILE, SESSIONS_FOLDER, SessionFolder
from rig.forecast import Forecast, forecast
from rig.plan import CapturePlan
from rig.profile import RigProfile
from rig.tui.wording import Level, data_text, duration_text, exposure_text

SIZE_RESERVE = 1.2
"""Room the engine asks for, as a multiple of the forecast (`rig.record`)."""
_LARGEST_PLAN_BYTES = 1_000_000
_HEADER = " # round        role      mm/s   travel mm      time   blur px frames  pairs"


@dataclass(frozen=True)
class PlanPreview:
    """A plan as it would run; ``plan_yaml`` is None where it cannot."""

    path: Path
    plan_yaml: str | None
    lines: tuple[tuple[str, Level], ...]
    size_gb: float = 0.0


def preview_plan(path: Path, profile: RigProfile, *, free_gb: float | None) -> PlanPreview:
    """Read a plan and forecast it on a rig; whatever is wrong becomes a line."""
    try:
        if path.stat().st_size > _LARGEST_PLAN_BYTES:
            return _failed(path, f"{path.name} is larger than 1 MB: no plan")
        text = path.read_text(encoding="utf-8")
        plan = CapturePlan.load(path)
        expected = forecast(plan, profile)
    except CleanplateError as error:
        return _failed(path, *_error_lines(error))
    except (OSError, UnicodeDecodeError) as error:
        return _failed(path, f"{path}: {error}")
    lines = [*_summary(plan, expected, free_gb), *_rounds(expected), *_steps(plan, profile)]
    lines += [(f"✕ {line}", "error") for v in expected.violations for line in _error_lines(v)]
    return PlanPreview(path, None if expected.violations else text, tuple(lines), expected.size_gb)


def _failed(path: Path, *lines: str) -> PlanPreview:
    return PlanPreview(path, None, tuple((f"✕ {data_text(line)}", "error") for line in lines))


def _error_lines(error: CleanplateError) -> list[str]:
    next_step = [f"next: {error.next_step}"] if error.next_step else []
    return [f"{error.code} {error.message}", *next_step]


def _summary(plan: CapturePlan, expected: Forecast, free_gb: float | None) -> list[tuple[str, Level]]:
    base, sweep, rounds = plan.base, plan.sweep, len(expected.rounds)
    free = "" if free_gb is None else f" of {free_gb:.0f} GB free"
    settings = f"ISO {base.iso} f/{base.f_number:g} {exposure_text(base.exposure_s)} focus {base.focus_m:g} m"
    texts = (
        f"steady zone {sweep.start_mm:g} → {sweep.end_mm:g} mm at {sweep.velocity_mm_s:g} mm/s",
        f"base {settings}",
        f"{rounds} rounds, about {duration_text(expected.duration_s)}, {expected.expected_pairs} pairs",
        f"disk {expected.size_gb:.2f} GB{free}; parallax limit {expected.parallax_limit_mm:.3f} mm",
    )
    verdict: tuple[str, Level] = ("✕ cannot run", "error") if expected.violations else ("✓ valid", "ok")
    lines: list[tuple[str, Level]] = [(f"{verdict[0]}   scene {plan.scene}", verdict[1])]
    lines += [(text, "ok") for text in texts]
    if free_gb is not None and expected.size_gb * SIZE_RESERVE + plan.guards.min_free_gb > free_gb:
        lines.append(("▲ it does not fit on the disk with its reserve: free space first", "warning"))
    return lines


def _rounds(expected: Forecast) -> list[tuple[str, Level]]:
    lines: list[tuple[str, Level]] = [(_HEADER, "dim")]
    for r in expected.rounds:
        velocity = r.round.sweep.velocity_mm_s if r.round.sweep else 0.0
        travel = f"{r.from_mm:.0f}…{r.to_mm:.0f}"
        lines.append(
            (
                f"{r.round.number:>2} {r.round.name[:12]:<12} {r.round.role:<8} {velocity:>6.1f} {travel:>11} "
                f"{r.duration_s:>7.1f} s {r.blur_px:>8.2f} {r.frames:>6} {r.expected_pairs:>6}",
                "ok",
            )
        )
    return lines


def _steps(plan: CapturePlan, profile: RigProfile) -> list[tuple[str, Level]]:
    by_hand = {name for name, c in profile.conditions.items() if c.kind == "operator"}
    return [
        (f"▲ operator before {r.name}: {name} {level}", "warning")
        for r in plan
        for name, level in r.conditions.items()
        if name in by_hand
    ]


def find_plans(folders: list[Path]) -> list[Path]:
    """List plan files in some folders: YAML that says what a sweep is."""
    found = [p for folder in folders if folder.is_dir() for p in sorted(folder.glob("*.y*ml"))]
    return [p for p in found if _looks_like_a_plan(p)]


def _looks_like_a_plan(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            head = file.read(4096)
    except (OSError, UnicodeDecodeError):
        return False
    return "sweep:" in head and "rounds:" in head


def resumable_sessions(data: Path, *, most: int = 8) -> list[str]:
    """List the newest captured sessions that lack rounds, newest first."""
    folders = sorted(
        (data / SESSIONS_FOLDER).glob(f"*/{SESSION_FILE}"), key=lambda p: p.stat().st_mtime, reverse=True
    )
    return [f.parent.name for f in folders[:most] if _is_resumable(f.parent)]


def _is_resumable(path: Path) -> bool:
    try:
        folder = SessionFolder(path)
        record = folder.record()
        return record.source == "captured" and len(folder.valid_takes()) < len(record.rounds)
    except (CleanplateError, OSError):
        return False
