"""Lost steps, stalls, slip and drift against the live check (F10), over thousands of takes without pictures.

Tracks of two boards with the errors of the simulated rail and of measuring (`tests/rig/slip_judge.py`) go through the
same motion fit and the same judge as a recorded take. Rendered takes from end to end: ``benchmarks/live_check.py``.
Usage: python -P -m benchmarks.rig_slip [--benches 40] [--resume]
With ``--resume`` the benches of the last result count, and those up to the number asked for are added.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
sys.path += [str(REPOSITORY / "tests" / "rig")]

from slip_judge import CLEAN_PX, FAULTS, NOISY_PX, Setting, SlipBench  # noqa: E402

RESULT = REPOSITORY / "benchmarks" / "results" / "rig_slip.json"
GOOD_A_BENCH = 25
SETTINGS = {
    "200 mm, clean": Setting(200.0, CLEAN_PX),
    "80 mm, clean": Setting(80.0, CLEAN_PX),
    "200 mm, noisy": Setting(200.0, NOISY_PX),
}


class Tally:
    """Counts of one setting."""

    def __init__(self) -> None:
        self.good = 0
        self.false_alarms: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.missed_mm: list[tuple[str, float]] = []

    @classmethod
    def of(cls, summary: dict[str, Any]) -> Tally:
        """Go on from a `summary`."""
        tally = cls()
        tally.good = summary["good_takes"]
        tally.false_alarms = Counter(summary["false_alarms"])
        tally.injected, tally.found = Counter(summary["injected"]), Counter(summary["found"])
        tally.missed_mm = [(name, size_mm) for name, size_mm in summary["missed_mm"]]
        return tally

    def run(self, bench: SlipBench) -> None:
        """Judge the takes of one bench."""
        for _ in range(GOOD_A_BENCH):
            self.good += 1
            if wrong := bench.spoiled():
                self.false_alarms[", ".join(wrong)] += 1
        for name in FAULTS:
            fault = bench.random_fault(name)
            self.injected[name] += 1
            if bench.spoiled(fault):
                self.found[name] += 1
            else:
                self.missed_mm.append((name, round(fault.size_mm, 2)))

    def summary(self) -> dict[str, Any]:
        """Return the numbers."""
        injected = self.injected.total()
        return {
            "good_takes": self.good,
            "false_alarms": dict(self.false_alarms),
            "false_alarm_percent": round(100 * self.false_alarms.total() / self.good, 2),
            "injected": dict(self.injected),
            "found": dict(self.found),
            "found_percent": round(100 * self.found.total() / injected, 2),
            "missed_mm": self.missed_mm,
        }


def main() -> None:
    """Run the benches in turn and write the result after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--benches", type=int, default=40)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    result = json.loads(RESULT.read_text()) if options.resume else {"benches": 0, "cpu_s": 0.0}
    settings = result.get("settings", {})
    tallies = {name: Tally.of(settings[name]) if settings else Tally() for name in SETTINGS}
    begin_s = time.process_time() - result["cpu_s"]
    for seed in range(result["benches"] + 1, options.benches + 1):
        for name, setting in SETTINGS.items():
            tallies[name].run(SlipBench(seed, setting))
        summary = {name: tally.summary() for name, tally in tallies.items()}
        result = {
            "schema": 1,
            "benches": seed,
            "cpu_s": round(time.process_time() - begin_s, 1),
            "settings": summary,
        }
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
