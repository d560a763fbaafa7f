"""`rig record` on the simulated rig: the real drivers on the real transports, whole sessions."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from session_checker import is_complete, violations
from small_rig import rig_command, run_rig, write_plan, write_profile

from catalog.session_folder import SessionFolder


@pytest.fixture
def rig_files(tmp_path) -> tuple[Path, Path, Path]:
    return write_plan(tmp_path), write_profile(tmp_path), tmp_path / "data"


def record(plan: Path, profile: Path, data: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run_rig("record", plan, "--profile", profile, "--data", data, "--json", *more)


def events(stdout: str) -> list[dict]:
    return [json.loads(line) for line in stdout.splitlines() if line.endswith("}")]


def only_session(data: Path) -> Path:
    (session,) = (data / "sessions").iterdir()
    return session


def test_a_session_is_recorded_round_by_round_with_evidence(rig_files):
    plan, profile, data = rig_files

    done = record(plan, profile, data)

    assert done.returncode == 0, done.stderr
    session = only_session(data)
    saved = [e for e in events(done.stdout) if e["event"] == "saved"]
    assert violations(session, saved) == []
    takes = SessionFolder(session).valid_takes()
    assert list(takes) == ["gt", "iso6400", "dark"]
    camera = takes["iso6400"].record().cameras["main"]
    assert camera.settings_read.iso == 6400
    assert camera.settings_read.exposure_s == 0.00008
    assert camera.colour.matrix == camera.colour.transfer == "bt709"
    assert camera.measured_rate_hz == pytest.approx(15, abs=0.01)
    speeds = [s.velocity_mm_s for s in takes["iso6400"].telemetry()]
    assert max(speeds) == 60
    rows = SessionFolder(session).journal().rows
    devices = next(row for row in rows if row.kind == "devices")
    assert devices.get("settings")["$23"] == 1, (
        "homing direction: with it the controller's coordinates are read"
    )
    assert rows[-1].kind == "run_finished"
    assert rows[-1].get("line_troubles").keys() >= {"discarded_lines", "lost_answers", "silences"}


def test_a_plan_that_violates_a_limit_moves_nothing(rig_files):
    _, profile, data = rig_files
    plan = write_plan(profile.parent, sweep={"start_mm": 30, "end_mm": 60, "velocity_mm_s": 500})

    refused = record(plan, profile, data)

    assert refused.returncode == 4
    assert refused.stderr.startswith("error RIG-SAFE-001: round iso6400:")
    assert refused.stderr.count("\n") == 1
    assert not data.exists() or not list(data.rglob("session.json"))


def test_an_unknown_key_is_invalid_input_with_its_place(rig_files):
    _, profile, data = rig_files
    plan = write_plan(profile.parent, sceen="x")

    refused = record(plan, profile, data)

    assert refused.returncode == 2
    assert "unknown key 'sceen'; did you mean 'scene'?" in refused.stderr
    assert f"{plan}:" in refused.stderr


def test_a_real_rig_is_not_moved_without_the_word(rig_files):
    plan, profile, data = rig_files
    text = profile.read_text().replace("simulated: true", "simulated: false")
    head, _, _ = text.partition("simulation:")
    real = profile.with_name("real.yaml")
    real.write_text(head.replace("kind: simulated", "kind: operator"))

    refused = record(plan, real, data)

    assert refused.returncode == 4
    assert "type MOVE, or give --arm" in refused.stderr


def test_a_rail_that_is_not_there_is_a_missing_device(rig_files):
    plan, profile, data = rig_files
    text = profile.read_text().replace("simulated: true", "simulated: false")
    head, _, _ = text.partition("simulation:")
    real = profile.with_name("real.yaml")
    real.write_text(
        head.replace("kind: simulated", "kind: operator").replace("port: simulated", "port: /dev/ttyNOPE")
    )

    refused = record(plan, real, data, "--arm", "sim")

    assert refused.returncode == 3
    assert "/dev/ttyNOPE" in refused.stderr


def test_too_little_disk_space_stops_before_anything_moves(rig_files):
    _, profile, data = rig_files
    plan = write_plan(profile.parent, guards={"min_free_gb": 1e9})

    refused = record(plan, profile, data)

    assert refused.returncode == 3
    assert "GB free, the plan needs" in refused.stderr
    assert not list(data.rglob("session.json"))


def test_an_interrupt_stops_in_time_and_the_printed_command_resumes(rig_files):
    plan, profile, data = rig_files
    with subprocess.Popen(
        rig_command("record", plan, "--profile", profile, "--data", data, "--json"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        seen: list[dict] = []
        for line in child.stdout:
            seen.append(json.loads(line))
            if seen[-1]["event"] == "motion" and seen[-1]["round"] == "iso6400":
                child.send_signal(signal.SIGTERM)
                break
        seen += events(child.stdout.read())
        message = child.stderr.read()
    session = only_session(data)

    resumed = run_rig("record", "--session", session.name, "--data", data, "--json")

    assert child.returncode == 6
    assert f"rig record --session {session.name}" in message
    assert resumed.returncode == 0, resumed.stderr
    saved = [e for e in seen + events(resumed.stdout) if e["event"] == "saved"]
    assert violations(session, saved) == []
    assert is_complete(session)
    states = [(t.round.name, t.number, t.state) for t in SessionFolder(session).takes()]
    assert states == [
        ("gt", 1, "valid"),
        ("iso6400", 1, "void"),
        ("iso6400", 2, "valid"),
        ("dark", 1, "valid"),
    ]
