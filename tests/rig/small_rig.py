"""A small, fast simulated rig for whole sessions in tests: the real drivers on the real transports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from rig.profile import find_profile

PLAN: dict[str, Any] = {
    "schema": 1,
    "scene": "test-shelf",
    "sweep": {"start_mm": 30, "end_mm": 60, "velocity_mm_s": 60},
    "base": {"iso": 100, "f_number": 8, "exposure_s": 0.005, "focus_m": 2.0},
    "rounds": [
        {"name": "gt", "role": "gt", "velocity_mm_s": 40},
        {"name": "iso6400", "role": "internal", "set": {"iso": 6400, "exposure_s": 0.00008}, "degradations": ["noise"]},
        {"name": "dark", "role": "external", "conditions": {"light": "blocked"}, "degradations": ["low_light"]},
    ],
    "rest_s": 0.7,
}  # fmt: skip


def write_profile(folder: Path, **changes: Any) -> Path:
    """Write the shipped simulated profile, small and fast; ``changes`` replace members of its simulation."""
    document = yaml.safe_load(find_profile("sim").read_text())
    document["simulation"] |= {"rate": 8, "width": 320, "height": 192, "frame_rate_hz": 15, **changes}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def write_plan(folder: Path, **changes: Any) -> Path:
    """Write the test plan; ``changes`` replace its members."""
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({**PLAN, **changes}))
    return path


def rig_command(*arguments: str | Path) -> list[str]:
    """Return the argument list that runs the command `rig`."""
    return [sys.executable, "-P", "-m", "rig", *map(str, arguments)]


def run_rig(*arguments: str | Path, timeout_s: float = 55) -> subprocess.CompletedProcess[str]:
    """Run `rig` and return what it printed and its exit code."""
    return subprocess.run(
        rig_command(*arguments),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )
