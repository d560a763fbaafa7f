"""Kill `rig record` at hundreds of drawn moments and let an independent judge look at what is left.

Sessions are recorded on a small simulated rig, killed, resumed, killed again (also while they resume) and finished;
`tests/rig/kill_campaign.py` draws the moments, `tests/oracle/session_checker.py` judges.
Usage: python -P benchmarks/kill_record.py [--kills 200] [--seed 1] [--workers 2]
One lot again: python -P benchmarks/kill_record.py --kills 10 --seed SEED --workers 1
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
sys.path += [str(REPOSITORY / "tests" / "oracle"), str(REPOSITORY / "tests" / "rig")]

from kill_campaign import Tally, kill_lot  # noqa: E402

RESULT = REPOSITORY / "benchmarks" / "results" / "kill_record.json"
LOT = 10
"""Kills that follow from one seed."""


def run_lot(seed: int, kills: int) -> Tally:
    """Kill so often, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return kill_lot(Path(folder), seed, kills)


def describe(tally: Tally, *, seeds: list[int], took_s: float) -> dict[str, Any]:
    """Return the document that is written."""
    return {
        "schema": 1,
        "kills": tally.kills,
        "kills_while_resuming": tally.double_kills,
        "phases_killed_in": dict(sorted(tally.phases.items())),
        "seeds": sorted(seeds),
        "sessions_completed": tally.sessions,
        "runs": tally.runs,
        "takes": tally.takes,
        "acknowledged_files": tally.acknowledged,
        "violations": tally.violations,
        "longest_survival_of_children_s": round(tally.longest_survival_s, 1),
        "took_s": round(took_s),
        "machine": platform.machine(),
    }


def main() -> None:
    """Run the kills; the result is written after every lot, so that a run cut short counts as well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    total, done, began_s = Tally(), [], time.monotonic()
    lots = [min(LOT, options.kills - first) for first in range(0, options.kills, LOT)]
    with ProcessPoolExecutor(options.workers) as pool:
        futures = {
            pool.submit(run_lot, options.seed + k, lot): options.seed + k for k, lot in enumerate(lots)
        }
        for future in as_completed(futures):
            total.add(future.result())
            done.append(futures[future])
            document = describe(total, seeds=done, took_s=time.monotonic() - began_s)
            RESULT.write_text(json.dumps(document, indent=1) + "\n")
            print(json.dumps(document), flush=True)
    sys.exit(1 if total.violations else 0)


if __name__ == "__main__":
    main()
