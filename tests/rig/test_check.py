"""The doctor: everything opened together, each finding with how to mend it."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_rig import rig_command, run_rig, write_profile

from rig.by_hand import stop
from rig.check import Finding, check
from rig.client import find_engine
from rig.profile import RigProfile, find_profile
from rig.runtime import running_engines
from rig.safety import SAFETY_CHECKLIST


def findings_of(profile: Path, data: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    done = run_rig("check", profile, "--data", data, "--json")
    document = json.loads(done.stdout)
    return done.returncode, {f["what"]: f for f in document["findings"]}


def test_a_sound_rig_is_ready_and_everything_was_measured(tmp_path):
    code, findings = findings_of(write_profile(tmp_path), tmp_path)

    assert code == 0
    assert {what for what, f in findings.items() if f["level"] == "problem"} == set()
    assert {
        "disk space",
        "disk speed",
        "clock",
        "rail",
        "rail switches",
        "rail line",
        "camera main battery",
        "markers",
    } <= set(findings)
    assert findings["camera main movie"]["text"].startswith("320x192 at 15.00 frames/s, h264")
    assert findings["rail limits"]["text"].endswith("ramps at 200 mm/s²; written and read back")


def test_without_boards_the_doctor_says_what_is_tracked_instead(tmp_path):
    profile = RigProfile.load(str(write_profile(tmp_path)))

    findings = {f.what: f for f in check(profile.model_copy(update={"boards": ()}), data=tmp_path)}

    assert "the profile names no board" in findings["markers"].text


def real_profile(tmp_path: Path) -> Path:
    document = yaml.safe_load(find_profile("sim").read_text())
    del document["simulation"]
    document |= {"name": "bench", "simulated": False, "conditions": {}}
    document["rail"]["port"] = "/dev/serial/by-id/none"
    path = tmp_path / "bench.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_real_rig_without_devices_says_what_is_missing_and_how_to_mend_it(tmp_path):
    done = run_rig("check", real_profile(tmp_path), "--data", tmp_path, "--arm", "bench")

    assert done.returncode == 3
    assert "✕ safety: the safety check list of this rig was never confirmed" in done.stdout
    assert "✕ rig: /dev/serial/by-id/none: no such port" in done.stdout
    assert "mend: plug the controller in" in done.stdout


def test_a_real_rig_is_not_touched_without_its_word(tmp_path):
    done = run_rig("check", real_profile(tmp_path), "--data", tmp_path)

    assert done.returncode == 4
    assert "--arm bench" in done.stderr


def test_the_safety_list_is_asked_once_and_its_confirmation_kept(tmp_path):
    profile = RigProfile.load(str(real_profile(tmp_path)))
    asked = []

    def confirm(items: object) -> bool:
        asked.append(items)
        return True

    first = next(f for f in check(profile, data=tmp_path, confirm=confirm) if f.what == "safety")
    again = next(f for f in check(profile, data=tmp_path, confirm=confirm) if f.what == "safety")

    assert (first.level, again.level) == ("ok", "ok")
    assert asked == [SAFETY_CHECKLIST]
    kept = json.loads((tmp_path / "rigs" / "bench" / "safety.json").read_text())
    assert kept["confirmed"] == list(SAFETY_CHECKLIST)


def test_caps_above_the_usual_ones_are_to_be_confirmed_as_measured(tmp_path):
    """Raised after the list was confirmed, they are asked for again; lowered, what was confirmed still holds."""

    def safety(velocity_mm_s: float, *, confirms: bool) -> Finding:
        usual = RigProfile.load(str(real_profile(tmp_path)))
        rail = usual.rail.model_copy(update={"max_velocity_mm_s": velocity_mm_s})
        profile = usual.model_copy(update={"rail": rail})
        found = check(profile, data=tmp_path, confirm=lambda items: asked.append(items) or confirms)
        return next(f for f in found if f.what == "safety")

    asked: list[tuple[str, ...]] = []
    levels = [
        safety(v, confirms=yes).level for v, yes in ((120, True), (150, False), (150, True), (140, False))
    ]

    assert levels == ["ok", "problem", "ok", "ok"]
    assert [len(items) for items in asked] == [5, 6, 6]
    assert "150 mm/s" in asked[1][-1]


def test_faults_named_in_the_profile_happen(tmp_path):
    profile = write_profile(
        tmp_path, camera_faults={"battery_percent": 5}, rail_faults={"home_switch": "stuck_open"}
    )

    code, findings = findings_of(profile, tmp_path)

    assert code == 3
    assert findings["camera main battery"]["mend"] == "charge it, or use mains power"
    assert findings["rail"]["level"] == "problem"
    assert "switch" in findings["rail"]["text"]


@pytest.mark.timeout(150)
def test_a_camera_whose_first_frame_is_late_is_looked_at_again(tmp_path):
    """The body is frozen for 9 s; the library gives a frame up after 7.5 s (three times 2.5 s).

    On the way every tenth report of the rail is torn: a warning, since each was asked for again.
    """
    profile = write_profile(
        tmp_path,
        camera_faults={"freezes_at": "preview", "freeze_s": 9},
        rail_faults={"replies": [{"kind": "tear_report", "nth": 10, "every": 10}]},
    )

    findings = {f.what: f for f in check(RigProfile.load(str(profile)), data=tmp_path)}

    assert [f for f in findings.values() if not f.ok] == []
    assert "at attempt" in findings["camera main live view"].text
    assert "boards in view" in findings["markers"].text
    assert "recorded, fetched, deleted" in findings["camera main movie"].text
    assert findings["rail line"].level == "warning"
    assert "discarded lines" in findings["rail line"].text


@pytest.mark.parametrize("way", ["rig stop", "SIGTERM"])
def test_a_check_is_stopped_as_an_engine_is(tmp_path, monkeypatch, way: str):
    """It homes, which nothing but a stop of the controller ends: until its devices are closed it can be told to."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    command = rig_command("check", write_profile(tmp_path, rate=1), "--data", tmp_path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        while not running_engines("sim"):
            assert child.poll() is None
            threading.Event().wait(0.05)
        assert find_engine("sim") is None, "nobody can attach to it"

        if way == "SIGTERM":
            child.terminate()
        else:
            stop(None, emergency=False)
        found, said = child.communicate(timeout=50)

    assert child.returncode == 6
    assert said.startswith("error RIG-HAND-001: the check was stopped by")
    assert "rail switches" not in found


def test_a_fault_that_there_is_not_is_named(tmp_path):
    done = run_rig("check", write_profile(tmp_path, rail_faults={"gremlins": 3}), "--data", tmp_path)

    assert done.returncode == 3
    assert "gremlins" in done.stdout
