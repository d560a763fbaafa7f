"""`make demo`: from a simulated rig to a trained model, every step a command that can be typed by hand.

Three scenes are recorded to train on and one is held out. Each command is printed before it runs. The end is
a small table and the same numbers in `<data>/demo.json`; the delivered error in it is measured against the
simulator's truth, which no other part of the product reads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml

from benchmarks.demo_sheet import SheetRow, write_sheet
from benchmarks.pair_truth import PairErrors, pair_errors
from catalog.manifest import ManifestRow, read_manifest
from catalog.records import degradation_key
from catalog.session_folder import SessionFolder

TRAINING_SCENES = ("shelf-01", "bench-02", "garden-03")
HELD_OUT_SCENE = "desk-04"
DEMO_ROUNDS: list[dict[str, Any]] = [
    {"name": "gt", "role": "gt"},
    {
        "name": "iso6400",
        "role": "internal",
        "set": {"iso": 6400, "exposure_s": 0.00008},
        "degradations": ["noise"],
    },
    {"name": "defocus", "role": "internal", "set": {"focus_m": 0.9}, "degradations": ["defocus_blur"]},
    {"name": "dark", "role": "external", "conditions": {"light": "blocked"}, "degradations": ["low_light"]},
    {"name": "rain", "role": "external", "conditions": {"rain": "moderate"}, "degradations": ["rain"]},
]


def demo_plan(scene: str, rounds: Sequence[dict[str, Any]] = DEMO_ROUNDS) -> dict[str, Any]:
    """Return the plan of one scene as YAML data."""
    return {
        "schema": 1,
        "scene": scene,
        "sweep": {"start_mm": 100, "end_mm": 121, "velocity_mm_s": 40},
        "base": {"iso": 100, "f_number": 8, "exposure_s": 0.005, "focus_m": 2.0},
        "rounds": list(rounds),
        "rest_s": 0.4,
    }


class Demo:
    """Runs the steps and remembers how long each took."""

    def __init__(self, data: Path, scene: Path | None) -> None:
        self.data, self._photos = data, scene
        self.steps: dict[str, float] = {}
        self.peak_mb: dict[str, int] = {}
        """Memory of the largest process of each step."""
        self._started_s = time.monotonic()
        self.name = self._free_name()

    def _free_name(self) -> str:
        taken = [p.name for folder in ("exports", "runs") for p in (self.data / folder).glob("demo*")]
        return "demo" if "demo" not in taken else f"demo-{time.strftime('%Y%m%d-%H%M%S')}"

    def step(self, name: str, *command: str, shown: bool = True) -> list[str]:
        """Print a command, run it, add its time to the step; returns its lines on stdout."""
        print(f"\n$ {' '.join(_shell_word(c) for c in command)}", flush=True)
        program = str(Path(sys.executable).parent / command[0])
        environment = {**os.environ, "CLEANPLATE_DATA": str(self.data)}
        started_s = time.monotonic()
        with subprocess.Popen(
            [program, *command[1:]], stdout=subprocess.PIPE, text=True, env=environment
        ) as child:
            lines = []
            for line in child.stdout or ():
                if shown:
                    print(line, end="", flush=True)
                lines.append(line.rstrip("\n"))
            child.returncode = self._reap(name, child.pid)
        if child.returncode:
            raise SystemExit(child.returncode)
        self.steps[name] = self.steps.get(name, 0.0) + time.monotonic() - started_s
        return lines

    def _reap(self, step: str, pid: int) -> int:
        """Wait for a command; remember the memory of its largest process, its own children included."""
        _, status, usage = os.wait4(pid, 0)
        self.peak_mb[step] = max(self.peak_mb.get(step, 0), round(usage.ru_maxrss / 1024))
        return os.waitstatus_to_exitcode(status)

    @property
    def seconds(self) -> float:
        """Wall time since the demo began, s."""
        return time.monotonic() - self._started_s

    def record(self, scene: str, rounds: Sequence[dict[str, Any]] = DEMO_ROUNDS) -> SessionFolder:
        """Record one scene and align it."""
        plans = self.data / "demo-plans"
        plans.mkdir(parents=True, exist_ok=True)
        plan = plans / f"{scene}.yaml"
        plan.write_text(yaml.safe_dump(demo_plan(scene, rounds), sort_keys=False))
        photos = [] if self._photos is None else ["--scene", str(self._photos)]
        lines = self.step("record", "rig", "record", str(plan), "--profile", "sim", *photos)
        session = next(line.split()[1] for line in lines if line.startswith("session "))
        self.step("align", "alignment", "run", session)
        return SessionFolder.find(session, self.data)

    def curate(self, sessions: Sequence[SessionFolder]) -> Path:
        """Catalog the sessions and export them, one scene held out."""
        self.step("catalog", "catalog", "init")
        for session in sessions:
            self.step("catalog", "catalog", "add", session.path.name)
        self.step(
            "catalog",
            "catalog",
            "split",
            self.name,
            "--train",
            "1",
            "--val",
            "0",
            "--test",
            "0",
            "--test-scene",
            HELD_OUT_SCENE,
        )
        names = ", ".join(f"'{s.path.name}'" for s in sessions)
        self.step(
            "export", "catalog", "export", self.name, "--format", "folder", "--split", self.name,
            "--where", f"session in ({names})",
        )  # fmt: skip
        return self.data / "exports" / self.name

    def train(self) -> dict[str, Any]:
        """Train on the export, evaluate on the held-out scene; returns scores by class."""
        export, run = self.name, self.name
        self.step("train", "models", "train", "nafnet", "--data", export, "--config", "demo", "--out", run)
        lines = self.step(
            "evaluate", "models", "evaluate", run, "--data", export, "--per-class", "6", "--no-ssim", "--json",
            shown=False,
        )  # fmt: skip
        scores: dict[str, Any] = json.loads(lines[-1])
        return scores

    def restore(self, export: Path, scores: dict[str, Any]) -> Path:
        """Restore one held-out frame per class and put them side by side; returns the picture's path."""
        held_out = [r for r in read_manifest(export) if r.split == "test"]
        chosen = {key: rows[len(rows) // 2] for key, rows in _by_class(held_out).items()}
        images = [str(export / r.lq) for r in chosen.values()]
        restored = self.data / "restored" / self.name
        self.step("restore", "models", "restore", self.name, *images, "-o", str(restored))
        rows = [
            SheetRow(_label(key, scores), export / r.lq, restored / Path(r.lq).name, export / r.gt)
            for key, r in chosen.items()
        ]
        write_sheet(rows, self.data / "demo.jpg")
        return self.data / "demo.jpg"


def _by_class(rows: Sequence[ManifestRow]) -> dict[str, list[ManifestRow]]:
    classes: dict[str, list[ManifestRow]] = {}
    for row in rows:
        classes.setdefault(degradation_key(row.degradations), []).append(row)
    return dict(sorted(classes.items()))


def _label(key: str, scores: dict[str, Any]) -> str:
    before, after = (scores["per_class"][key][name] for name in ("psnr_lq_db", "psnr_restored_db"))
    return f"{key}: {before:.1f} to {after:.1f} dB PSNR over the held-out scene"


def _shell_word(word: str) -> str:
    return f'"{word}"' if " " in word else word


def summarise(demo: Demo, sessions: Sequence[SessionFolder], scores: dict[str, Any]) -> dict[str, Any]:
    """Put the demo's numbers together."""
    errors = [e for s in sessions for e in pair_errors(s, demo.data)]
    delivered = [e.delivered_px for e in errors]
    verdicts = Counter(p.verdict for s in sessions for p in s.pairs())
    return {
        "schema": 1,
        "seconds": round(demo.seconds, 1),
        "pairs_accepted": verdicts["accepted"],
        "pairs_rejected": verdicts["rejected"],
        "delivered_epe_px_median": round(median(delivered), 4),
        "delivered_epe_px_p95": round(float(np.percentile(delivered, 95)), 4),
        "estimate_epe_px_median": round(median(e.estimate_px for e in errors), 4),
        "per_class": {
            key: _class_numbers(key, errors, scores) for key in sorted({e.degradation_key for e in errors})
        },
        "low_light_gain_gamma_psnr_db": scores["gain_gamma_psnr_db"].get("low_light"),
        "peak_memory_mb": max(demo.peak_mb.values()),
        "peak_memory_by_step_mb": demo.peak_mb,
        "steps": {name: round(seconds, 1) for name, seconds in demo.steps.items()},
    }


def _class_numbers(key: str, errors: Sequence[PairErrors], scores: dict[str, Any]) -> dict[str, Any]:
    mine = [e.delivered_px for e in errors if e.degradation_key == key]
    return {
        "n": len(mine),
        "psnr_lq_db": scores["per_class"].get(key, {}).get("psnr_lq_db"),
        "psnr_restored_db": scores["per_class"].get(key, {}).get("psnr_restored_db"),
        "delivered_epe_px_median": round(median(mine), 4),
    }


def print_summary(numbers: dict[str, Any], sessions: Sequence[SessionFolder]) -> None:
    """Print the small table."""
    print("\nround        kept  rejected  reasons")
    for name in [r["name"] for r in DEMO_ROUNDS[1:]]:
        pairs = [p for s in sessions for p in s.pairs() if p.lq.round == name]
        kept = sum(p.verdict == "accepted" for p in pairs)
        reasons = Counter(reason for p in pairs for reason in p.reasons)
        text = ", ".join(f"{k} {n}" for k, n in reasons.most_common())
        print(f"{name:<11} {kept:5d}  {len(pairs) - kept:8d}  {text}")
    print("\nclass           pairs  delivered error px  PSNR before → after, held-out scene")
    for key, c in numbers["per_class"].items():
        print(
            f"{key:<15} {c['n']:5d}  {c['delivered_epe_px_median']:18.3f}  "
            f"{c['psnr_lq_db']:.2f} → {c['psnr_restored_db']:.2f} dB"
        )
    print(f"\nlow light, best single gain and gamma: {numbers['low_light_gain_gamma_psnr_db']:.2f} dB")
    print(
        f"delivered error: median {numbers['delivered_epe_px_median']:.3f} px, "
        f"p95 {numbers['delivered_epe_px_p95']:.3f} px over {numbers['pairs_accepted']} pairs"
    )
    print(f"largest process: {numbers['peak_memory_mb']} MB")
    print("seconds: " + ", ".join(f"{k} {v:.0f}" for k, v in numbers["steps"].items()))


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("cleanplate-data"))
    parser.add_argument("--scene", type=Path, help="folder of photographs for the simulated world")
    arguments = parser.parse_args()
    demo = Demo(arguments.data, arguments.scene)
    sessions = [demo.record(scene) for scene in (*TRAINING_SCENES, HELD_OUT_SCENE)]
    export = demo.curate(sessions)
    scores = demo.train()
    picture = demo.restore(export, scores)
    report = sessions[-1].path / "report.html"
    demo.step("report", "alignment", "report", sessions[-1].path.name, "-o", str(report))
    numbers = summarise(demo, sessions, scores)
    print_summary(numbers, sessions)
    (demo.data / "demo.json").write_text(json.dumps(numbers, indent=1) + "\n")
    print(f"\nreport    {report}\npicture   {picture}\nnumbers   {demo.data / 'demo.json'}")
    print(f"in all    {numbers['seconds']:.0f} s")


if __name__ == "__main__":
    main()
