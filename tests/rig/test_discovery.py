"""What is connected, with libgphoto2's own virtual camera on its virtual USB."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from small_rig import rig_command

from rig.discovery import discover


def devices(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `rig devices` where libgphoto2 sees one virtual Nikon."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.jpg").write_bytes(b"\xff\xd8\xff\xd9")
    environment = {**os.environ, "VCAMERADIR": str(pictures), "XDG_RUNTIME_DIR": str(tmp_path)}
    command = rig_command("devices", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=environment)


def test_a_camera_on_usb_is_named_by_its_serial_number(tmp_path):
    done = devices(tmp_path, "--json")

    found = json.loads(done.stdout)
    camera = next(d for d in found["devices"] if d["kind"] == "camera")
    assert (done.returncode, found["schema"], found["problems"]) == (0, 1, [])
    assert "sim" in found["profiles"]
    assert "usb:001,001" in camera["address"]
    assert camera["profile_line"] == 'cameras: {main: {kind: gphoto2, serial: "0.1"}}'


def test_for_people_each_device_comes_with_its_line_for_the_profile(tmp_path):
    done = devices(tmp_path)

    assert 'in a profile: cameras: {main: {kind: gphoto2, serial: "0.1"}}' in done.stdout
    assert "profile  sim" in done.stdout


def test_what_does_not_answer_in_time_hides_nothing_else(tmp_path, monkeypatch):
    """USB cameras are asked in a process of their own, which is never there within a hundredth of a second."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    found = discover(timeout_s=0.01)

    assert any("cameras: no answer within 0.01 s" in p for p in found.problems)
