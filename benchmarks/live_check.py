"""How often the live check calls a good take spoiled, and how often it finds what is wrong with a bad one.

Takes are rendered (640x360, one board near enough to decode), one ground truth per seed, every degradation of the
vocabulary that can be made on purpose, every fault of the test suite.
Usage: python -P benchmarks/live_check.py [--seeds 6]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).parent.parent
sys.path += [str(REPOSITORY), str(REPOSITORY / "tests" / "rig")]

from test_live_check import FAULTS, ROUNDS  # noqa: E402

from benchmarks.rendered_session import RenderedSession  # noqa: E402
from rig.guards import TakeReport  # noqa: E402
from rig.live_check import LiveChecker  # noqa: E402

RESULT = REPOSITORY / "benchmarks" / "results" / "live_check.json"
DEGRADED = [r.name for r in ROUNDS[1:]]


def spoiled(report: TakeReport) -> str:
    """Name what a report calls spoiled."""
    return ", ".join(sorted(f.what for f in report.findings if f.verdict == "spoiled"))


class Campaign:
    """Counts over seeds."""

    def __init__(self) -> None:
        self.good: Counter[str] = Counter()
        self.false_alarms: list[str] = []
        self.found: Counter[str] = Counter()
        self.missed: list[str] = []
        self.cpu_s: list[float] = []

    def run(self, seed: int) -> None:
        """Record and check everything once."""
        with tempfile.TemporaryDirectory() as folder:
            session = RenderedSession(Path(folder), ROUNDS)
            session.take("gt", seed=1000 * seed)
            checker = LiveChecker(session.folder)
            self._expect_good("gt", seed, checker.check("gt", 1))
            for k, name in enumerate(DEGRADED, start=1):
                number = session.take(name, seed=1000 * seed + k)
                self._expect_good(name, seed, self._checked(checker, name, number))
            for k, (fault, (name, wrong, _)) in enumerate(FAULTS.items(), start=50):
                number = session.take(name, seed=1000 * seed + k, wrong=wrong)
                self._expect_found(fault, seed, self._checked(checker, name, number))
            session.close()

    def summary(self, seeds: int) -> dict[str, Any]:
        """Return the numbers after so many seeds."""
        return {
            "schema": 1,
            "seeds": seeds,
            "good_takes": self.good.total(),
            "false_alarms": self.false_alarms,
            "bad_takes": self.found.total() + len(self.missed),
            "found": dict(self.found),
            "missed": self.missed,
            "check_cpu_s_median": round(median(self.cpu_s), 3),
        }

    def _checked(self, checker: LiveChecker, name: str, number: int) -> TakeReport:
        began_s = time.process_time()
        report = checker.check(name, number)
        self.cpu_s.append(time.process_time() - began_s)
        return report

    def _expect_good(self, name: str, seed: int, report: TakeReport) -> None:
        self.good[name] += 1
        if spoiled(report):
            self.false_alarms.append(f"{name}, seed {seed}: {spoiled(report)}")

    def _expect_found(self, fault: str, seed: int, report: TakeReport) -> None:
        if spoiled(report):
            self.found[fault] += 1
        else:
            self.missed.append(f"{fault}, seed {seed}")


def main() -> None:
    """Run the seeds and write the result after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    arguments = parser.parse_args()
    campaign = Campaign()
    for seed in range(1, arguments.seeds + 1):
        campaign.run(seed)
        RESULT.write_text(json.dumps(campaign.summary(seed), indent=1) + "\n")
        print(f"seed {seed}: {campaign.false_alarms} {campaign.missed}", flush=True)


if __name__ == "__main__":
    main()
