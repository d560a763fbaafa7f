"""Dead time of a session: what a round costs beyond motion, settling and the camera's own transfer.

Records a session of 24 rounds on the simulated rig in real time (small pictures) and takes the rounds apart by the
journal and the events: time that is neither the carriage's, nor rest, nor the camera's is dead.
Usage: python -P benchmarks/rig_session.py [--rounds 24]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from rig.profile import find_profile

REPOSITORY = Path(__file__).parent.parent
RESULT = REPOSITORY / "benchmarks" / "results" / "rig_session.json"
REST_S = 0.5
GOAL_S = 1.0
CAMERA_STEPS = frozenset({"waiting for the camera to close its movie", "copying the movie off the card"})
"""What only the camera can be waited for: it closes its file and hands it over."""
Interval = tuple[float, float]


def write_files(folder: Path, rounds: int) -> tuple[Path, Path]:
    """Write plan and profile: real time, small pictures, rounds that cost the camera little."""
    profile = yaml.safe_load(find_profile("sim").read_text())
    profile["simulation"] |= {"rate": 1, "width": 320, "height": 192, "frame_rate_hz": 15}
    kinds: list[dict[str, Any]] = [
        {"role": "internal", "set": {"iso": 6400, "exposure_s": 0.00008}, "degradations": ["noise"]},
        {"role": "external", "conditions": {"light": "blocked"}, "degradations": ["low_light"]},
        {"role": "internal", "set": {"focus_m": 1.4}, "degradations": ["defocus_blur"]},
    ]
    # Copies, since YAML would write what is shared as an alias, which plans may not have.
    named = [{"name": f"round-{k:02d}", **deepcopy(kinds[k % len(kinds)])} for k in range(2, rounds + 1)]
    plan = {
        "schema": 1,
        "scene": "dead-time",
        "sweep": {"start_mm": 30, "end_mm": 70, "velocity_mm_s": 40},
        "base": {"iso": 100, "f_number": 8, "exposure_s": 0.005, "focus_m": 2.0},
        "rounds": [{"name": "gt", "role": "gt", "velocity_mm_s": 30}, *named],
        "rest_s": REST_S,
    }
    for name, document in (("profile.yaml", profile), ("plan.yaml", plan)):
        (folder / name).write_text(yaml.safe_dump(document))
    return folder / "plan.yaml", folder / "profile.yaml"


def record(folder: Path, rounds: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Record the session; returns its events and its journal."""
    plan, profile = write_files(folder, rounds)
    command = [sys.executable, "-P", "-m", "rig", "record", str(plan), "--profile", str(profile)]
    done = subprocess.run(
        [*command, "--data", str(folder / "data"), "--json"], capture_output=True, text=True, check=True
    )
    (session,) = (folder / "data" / "sessions").iterdir()
    journal = [json.loads(line) for line in (session / "journal.jsonl").read_text().splitlines()]
    return [json.loads(line) for line in done.stdout.splitlines()], journal


def acts(journal: Sequence[dict[str, Any]]) -> dict[str, list[Interval]]:
    """Return when each kind of act was under way; acts may lie within one another."""
    found: dict[str, list[Interval]] = {}
    open_acts: list[dict[str, Any]] = []
    for row in journal:
        if row["kind"] == "intent":
            open_acts.append(row)
        elif row["kind"] == "outcome":
            began = next(a for a in reversed(open_acts) if a["act"] == row["act"])
            open_acts.remove(began)
            found.setdefault(row["act"], []).append((began["t_host_s"], row["t_host_s"]))
    return found


def camera_waits(events: Sequence[dict[str, Any]]) -> list[Interval]:
    """Return when nothing but the camera was waited for."""
    found = []
    for event, after in pairwise(events):
        if event["event"] == "step" and event["text"] in CAMERA_STEPS:
            found.append((event["t_host_s"], after["t_host_s"]))
    return found


def verdict_waits(journal: Sequence[dict[str, Any]]) -> list[Interval]:
    """Return when everything stood ready for a round and the live check of the one before was waited for."""
    found: list[Interval] = []
    ready_s = float("inf")
    for row in journal:
        if row["kind"] == "outcome" and row["act"] == "set_camera":
            ready_s = row["t_host_s"]
        elif row["kind"] == "take_checked" and row["t_host_s"] > ready_s:
            found.append((ready_s, row["t_host_s"]))
        elif row["kind"] == "take_intent":
            ready_s = float("inf")
    return found


def rests(sweeps: Iterable[Interval]) -> list[Interval]:
    """Return the standstill before and after each sweep."""
    return [i for begin, end in sweeps for i in ((begin - REST_S, begin), (end, end + REST_S))]


def covered_s(intervals: Iterable[Interval], begin_s: float, end_s: float) -> float:
    """Length of the union of intervals within a span."""
    total, reached = 0.0, begin_s
    for low, high in sorted(intervals):
        first, last = max(low, reached), min(high, end_s)
        if last > first:
            total += last - first
            reached = last
    return total


def take_apart(events: Sequence[dict[str, Any]], journal: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Account for every round from the end of the one before to its own end."""
    found, verdicts = acts(journal), verdict_waits(journal)
    moving, settling, camera = found["sweep"] + found["approach"], rests(found["sweep"]), camera_waits(events)
    ends = [e["t_host_s"] for e in events if e["event"] == "take_finished" and e["frames"]]
    return [
        {
            "wall_s": end - begin,
            "motion_s": covered_s(moving, begin, end),
            "settle_s": covered_s(settling, begin, end),
            "camera_s": covered_s(camera, begin, end),
            "set_camera_s": covered_s(found["set_camera"], begin, end),
            "verdict_s": covered_s(verdicts, begin, end),
            "dead_s": end - begin - covered_s([*moving, *settling, *camera], begin, end),
        }
        for begin, end in pairwise(ends)
    ]


def main() -> None:
    """Record, take apart, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=24)
    arguments = parser.parse_args()
    began_s, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        events, journal = record(Path(folder), arguments.rounds)
    rounds = take_apart(events, journal)
    parts = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
    dead = sorted(r["dead_s"] for r in rounds)
    result = {
        "schema": 1,
        "rounds": arguments.rounds,
        "retakes": sum(r["kind"] == "take_outcome" and r["state"] == "void" for r in journal),
        "wall_s": time.monotonic() - began_s,
        "load_before": load,
        "median": parts,
        "dead_s": {"median": parts["dead_s"], "p90": dead[int(0.9 * (len(dead) - 1))], "max": dead[-1]},
        "longest": max(rounds, key=lambda r: r["dead_s"]),
        "goal_s": GOAL_S,
        "met": dead[-1] <= GOAL_S,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
