"""Every measurement of the rig, one after the other, held against its goal: results/rig.json.

Usage, on an otherwise idle machine: make bench-rig, or python -P benchmarks/rig.py --collect to put existing results
together without measuring.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PARTS = {
    "rig_stop": ["benchmarks.rig_stop"],
    "rig_keys": ["benchmarks.rig_keys"],
    "rig_fuzz": ["benchmarks.rig_fuzz"],
    "rig_uvc": ["benchmarks.rig_uvc"],
    "rig_session": ["benchmarks.rig_session"],
    "rig_endurance": ["benchmarks.rig_endurance"],
    "kill_record": ["benchmarks.kill_record"],
}
Document = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """One promised number."""

    what: str
    part: str
    measured: Callable[[Document], float]
    limit: float


GOALS = (
    Goal("stop, socket to wire, max ms", "rig_stop", lambda d: d["as_it_is"]["max_ms"], 20),
    Goal("stop, key to wire, p99 ms", "rig_keys", lambda d: d["as_it_is"]["p99_ms"], 50),
    Goal("stop, key to wire, max ms", "rig_keys", lambda d: d["as_it_is"]["max_ms"], 100),
    Goal("stop, key to wire, all cores taken, max ms", "rig_keys", lambda d: d["all_cores_taken"]["max_ms"], 250),
    Goal("bytes outside the envelope, 100,000 commands", "rig_fuzz", lambda d: len(d["envelope"]["violations"]), 0),
    Goal("hangs on fuzzed serial lines", "rig_fuzz", lambda d: len(d["wire"]["hangs"]), 0),
    Goal("stray motions on fuzzed serial lines", "rig_fuzz", lambda d: len(d["wire"]["stray_motions"]), 0),
    Goal("wrong positions believed on fuzzed serial lines", "rig_fuzz", lambda d: len(d["wire"]["wrong_positions"]), 0),
    Goal("UVC frames lost or doubled in a minute", "rig_uvc", lambda d: _uvc_losses(d["as_it_is"]), 0),
    Goal("UVC losses made on purpose and not reported in place", "rig_uvc", lambda d: _uvc_misses(d["with_faults"]), 0),
    Goal("dead time of a round, median s", "rig_session", lambda d: d["dead_s"]["median"], 1.0),
    Goal("dead time of a round, max s", "rig_session", lambda d: d["dead_s"]["max"], 1.0),
    Goal("growth of an engine's processes over takes, %", "rig_endurance", lambda d: d["growth_percent"], 5),
    Goal("acknowledged files lost in kills", "kill_record", lambda d: len(d["violations"]), 0),
)  # fmt: skip


def _uvc_losses(run: Document) -> float:
    return float(run["dropped_true"] + run["doubled_true"] + run["lost_by_the_recorder"])


def _uvc_misses(run: Document) -> float:
    return float(run["gaps_misplaced_or_wrong"] + run["doubles_misplaced"])


def judged(goal: Goal, found: dict[str, Document]) -> Document:
    """Hold one measured number against its goal; a part that was not measured meets nothing."""
    if goal.part not in found:
        return {"what": goal.what, "goal": goal.limit, "measured": None, "met": False}
    value = float(goal.measured(found[goal.part]))
    return {"what": goal.what, "goal": goal.limit, "measured": value, "met": value <= goal.limit}


def main() -> None:
    """Measure, collect, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collect", action="store_true", help="Measure nothing; use the results there are.")
    if not parser.parse_args().collect:
        for module in PARTS.values():
            subprocess.run([sys.executable, "-P", "-m", *module], check=True, cwd=RESULTS.parent.parent)
    files = {part: RESULTS / f"{part}.json" for part in PARTS}
    found = {part: json.loads(path.read_text()) for part, path in files.items() if path.is_file()}
    goals = [judged(goal, found) for goal in GOALS]
    (RESULTS / "rig.json").write_text(json.dumps({"schema": 1, "goals": goals, **found}, indent=1) + "\n")
    for row in goals:
        print(f"{'✓' if row['met'] else '✕'} {row['what']}: {row['measured']} (goal {row['goal']:g})")


if __name__ == "__main__":
    main()
