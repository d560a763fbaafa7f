"""The rail's driver against mad commands and a lying wire, in full; an independent judge hears every byte.

Commands: 100,000 from hypothesis, 50 a rail, on a firmware that answers at once. Wire: 20 seeds until 10,000 answers
each were spoiled in one of twelve ways, on the simulated controller.
The result is written after every seed, so that a run that is cut short leaves what it has.
Usage: python -P benchmarks/rig_fuzz.py [--commands 100000] [--first 1] [--seeds 20] [--spoiled 10000] [--jobs 2]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
sys.path += [str(REPOSITORY / "tests" / "oracle"), str(REPOSITORY / "tests" / "rig")]

from grbl_commands import COMMANDS, Command, CommandBench  # noqa: E402
from grbl_fuzz import FuzzResult, fuzz  # noqa: E402
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

RESULT = REPOSITORY / "benchmarks" / "results" / "rig_fuzz.json"
COMMANDS_A_RUN = 50


def fuzz_commands(count: int) -> dict[str, Any]:
    """Give random commands and count what was sent."""
    totals: Counter[str] = Counter()
    violations: list[str] = []

    @seed(1)
    @settings(
        max_examples=count // COMMANDS_A_RUN,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(COMMANDS, min_size=COMMANDS_A_RUN, max_size=COMMANDS_A_RUN))
    def run(commands: list[Command]) -> None:
        bench = CommandBench()
        bench.give(commands)
        totals["commands"] += len(commands)
        totals["refused"] += bench.refused
        totals["motion_lines"] += len(bench.judge.targets_mm)
        totals["judged_bytes"] += bench.judge.judged_bytes
        violations.extend(bench.judge.violations)

    begin_s = time.process_time()
    run()
    return {**totals, "violations": violations, "cpu_s": round(time.process_time() - begin_s, 1)}


def summarise(results: list[FuzzResult]) -> dict[str, Any]:
    """Add the seeds up."""
    return {
        "seeds": [r.seed for r in results],
        "lines": sum(r.lines for r in results),
        "spoiled": dict(sum((r.spoiled for r in results), Counter())),
        "spoiled_lines": sum(r.spoiled.total() for r in results),
        "commands": sum(r.commands for r in results),
        "commands_that_failed": dict(sum((r.failed for r in results), Counter())),
        "positions_believed": sum(r.readings for r in results),
        "wrong_positions": [w for r in results for w in r.wrong],
        "stray_motions": [s for r in results for s in r.stray],
        "violations": [v for r in results for v in r.violations],
        "hangs": [h for r in results for h in r.hangs],
        "longest_command_session_s": round(max(r.longest_s for r in results), 1),
        "largest_receive_buffer_bytes": max(r.largest_buffer for r in results),
        "cpu_s": round(sum(r.cpu_s for r in results), 1),
    }


def main() -> int:
    """Run both, write the result; returns 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--spoiled", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    results: list[FuzzResult] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        coming = pool.map(fuzz, seeds, repeat(options.spoiled))
        commands = fuzz_commands(options.commands)
        for result in coming:
            results.append(result)
            wire = summarise(results)
            RESULT.write_text(json.dumps({"schema": 1, "envelope": commands, "wire": wire}, indent=1) + "\n")
    print(json.dumps({"envelope": commands, "wire": wire}, indent=1))
    wrong = [wire[key] for key in ("wrong_positions", "stray_motions", "violations", "hangs")]
    return int(any(wrong) or bool(commands["violations"]))


if __name__ == "__main__":
    sys.exit(main())
