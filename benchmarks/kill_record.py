"""Kill `rig record` at hundreds of drawn moments and let an independent judge look at what is left.

Sessions are recorded on a small simulated rig, killed, resumed, killed again (also while they resume) and finished;
`tests/rig/kill_campaign.py` draws the moments, `tests/oracle/session_checker.py` judges.
Usage: python -P benchmarks/kill_record.py [--kills 200] [--seed 1] [--workers 2]
In pieces: python -P benchmarks/kill_record.py --more --kills 40 adds to the result, with the seeds that follow.
One lot again: python -P benchmarks/kill_record.py --kills 10 --seed SEED --workers 1
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
sys.path += [str(REPOSITORY / "tests" / "oracle"), str(REPOSITORY / "tests" / "rig")]

from kill_campaign import Tally, kill_lot  # noqa: E402
from recorder_nursery import Nursery  # noqa: E402

RESULT = REPOSITORY / "benchmarks" / "results" / "kill_record.json"
LOT = 10
"""Kills that follow from one seed."""


def run_lot(seed: int, kills: int) -> Tally:
    """Kill so often, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder, Nursery() as nursery:
        return kill_lot(Path(folder), seed, kills, nursery)


@dataclass
class Campaigns:
    """Everything that the result counts."""

    tally: Tally
    seeds: list[int]
    took_s: float
    commits: Counter[str]
    """Kills of each state of the code; one with changes that no commit holds has a plus at its end."""

    @classmethod
    def read(cls) -> Campaigns:
        """Read what was counted before."""
        document = json.loads(RESULT.read_text())
        tally = Tally(
            kills=document["kills"],
            phases=Counter(document["phases_killed_in"]),
            double_kills=document["kills_while_resuming"],
            sessions=document["sessions_completed"],
            runs=document["runs"],
            acknowledged=document["acknowledged_files"],
            takes=document["takes"],
            longest_survival_s=document["longest_survival_of_children_s"],
            violations=document["violations"],
        )
        commits = document.get("kills_by_commit", {"before these were told apart": tally.kills})
        return cls(tally, document["seeds"], document["took_s"], Counter(commits))

    def write(self) -> str:
        """Write the result; returns it as a line."""
        tally = self.tally
        document = {
            "schema": 1,
            "kills": tally.kills,
            "kills_while_resuming": tally.double_kills,
            "phases_killed_in": dict(sorted(tally.phases.items())),
            "kills_by_commit": dict(self.commits),
            "seeds": sorted(self.seeds),
            "sessions_completed": tally.sessions,
            "runs": tally.runs,
            "takes": tally.takes,
            "acknowledged_files": tally.acknowledged,
            "violations": tally.violations,
            "longest_survival_of_children_s": round(tally.longest_survival_s, 1),
            "took_s": round(self.took_s),
            "machine": platform.machine(),
        }
        RESULT.write_text(json.dumps(document, indent=1) + "\n")
        return json.dumps(document)


def commit() -> str:
    """Name the state of the code."""
    git = ["git", "-C", str(REPOSITORY)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    changed = subprocess.run(
        [*git, "diff", "--quiet", "HEAD", "--", "rig", "catalog"], check=False
    ).returncode
    return head.stdout.strip() + "+" * changed


def main() -> None:
    """Run the kills; the result is written after every lot, so that a run cut short counts as well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--more", action="store_true", help="Add to what the result counts, with new seeds.")
    options = parser.parse_args()
    found = Campaigns.read() if options.more else Campaigns(Tally(), [], 0.0, Counter())
    first = max(found.seeds, default=0) + 1 if options.more else options.seed
    before_s, began_s, code = found.took_s, time.monotonic(), commit()
    lots = [min(LOT, options.kills - done) for done in range(0, options.kills, LOT)]
    with ProcessPoolExecutor(options.workers) as pool:
        futures = {pool.submit(run_lot, first + k, lot): first + k for k, lot in enumerate(lots)}
        for future in as_completed(futures):
            found.tally.add(future.result())
            found.seeds.append(futures[future])
            found.commits[code] += future.result().kills
            found.took_s = before_s + time.monotonic() - began_s
            print(found.write(), flush=True)
    sys.exit(1 if found.tally.violations else 0)


if __name__ == "__main__":
    main()
