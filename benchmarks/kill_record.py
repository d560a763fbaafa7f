"""Kill `rig record` twenty times at random moments and let an independent judge look at what is left.

Each session is killed, resumed, killed again where the drawn moment falls into the resumption, and finished.
Usage: python -P benchmarks/kill_record.py [--kills 20] [--seed 1]
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
sys.path += [str(REPOSITORY / "tests" / "oracle"), str(REPOSITORY / "tests" / "rig")]

from session_checker import is_complete, violations  # noqa: E402
from small_rig import rig_command, write_plan, write_profile  # noqa: E402

RESULT = REPOSITORY / "benchmarks" / "results" / "kill_record.json"
LATEST_S = 8.0


def run_until(command: list[str], kill_after_s: float | None) -> tuple[list[dict[str, Any]], int]:
    """Run a command, killing it after a while; returns the files it acknowledged and its exit code."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            child.kill()
        lines = (child.stdout.read() if child.stdout else "").split("\n")[:-1]
    events = [json.loads(line) for line in lines]
    return [e for e in events if e["event"] == "saved"], child.returncode


def kill_and_resume(folder: Path, moments_s: list[float]) -> dict[str, Any]:
    """Record one session through a row of kills; returns what the judge found."""
    plan, profile, data = write_plan(folder), write_profile(folder), folder / "data"
    start = rig_command("record", plan, "--profile", profile, "--data", data, "--json")
    acknowledged: list[dict[str, Any]] = []
    found: list[str] = []
    for moment_s in moments_s:
        saved, _ = run_until(_next_command(data, start), moment_s)
        acknowledged += saved
        session = _session(data)
        if session is not None and (session / "journal.jsonl").is_file():
            found += violations(session, acknowledged)
    saved, code = run_until(_next_command(data, start), None)
    session = _session(data)
    found += ["no session"] if session is None else violations(session, acknowledged + saved)
    finished = session is not None and is_complete(session) and code == 0
    return {"acknowledged": len(acknowledged) + len(saved), "violations": found, "finished": finished}


def _session(data: Path) -> Path | None:
    made = sorted((data / "sessions").glob("*/session.json")) if data.is_dir() else []
    return made[0].parent if made else None


def _next_command(data: Path, start: list[str]) -> list[str]:
    session = _session(data)
    return (
        start
        if session is None
        else rig_command("record", "--session", session.name, "--data", data, "--json")
    )


def main() -> None:
    """Run the kills and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    sessions = []
    left = arguments.kills
    while left:
        moments_s = [draw.uniform(0.5, LATEST_S) for _ in range(min(left, draw.choice((1, 2))))]
        with tempfile.TemporaryDirectory() as folder:
            sessions.append(kill_and_resume(Path(folder), moments_s))
        left -= len(moments_s)
        print(f"{arguments.kills - left} kills: {sessions[-1]}", flush=True)
    result = {
        "schema": 1,
        "kills": arguments.kills,
        "seed": arguments.seed,
        "sessions": len(sessions),
        "acknowledged_files": sum(s["acknowledged"] for s in sessions),
        "violations": [v for s in sessions for v in s["violations"]],
        "sessions_finished": sum(s["finished"] for s in sessions),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
