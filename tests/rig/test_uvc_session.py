"""A whole session with a UVC camera: real OpenCV capture of the rendered world, with the times of arrival."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from session_checker import is_complete, violations
from small_rig import run_rig, write_plan, write_profile

from catalog.session_folder import SessionFolder


def uvc_profile(folder: Path) -> Path:
    path = write_profile(folder, rate=1, frame_rate_hz=12)
    document = yaml.safe_load(path.read_text())
    document["cameras"] = {
        "main": {
            "kind": "uvc", "path": "simulated", "width": 320, "height": 192, "frame_rate_hz": 12, "set_by_hand": True,
        }
    }  # fmt: skip
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_session_with_a_uvc_camera_is_complete_and_stamped(tmp_path):
    plan = write_plan(
        tmp_path,
        sweep={"start_mm": 30, "end_mm": 50, "velocity_mm_s": 40},
        rounds=[{"name": "gt", "role": "gt", "velocity_mm_s": 20}],
        retake_spoiled=False,
        guards={"min_free_gb": 0, "on_fail": "warn"},
    )

    done = run_rig("record", plan, "--profile", uvc_profile(tmp_path), "--data", tmp_path / "data", "--json")

    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    opened = next(e for e in events if e["event"] == "session_opened")
    folder = SessionFolder(Path(opened["folder"]))
    assert is_complete(folder.path)
    assert violations(folder.path, [e for e in events if e["event"] == "saved"]) == []
    take = folder.valid_takes()["gt"]
    record = take.record()
    camera = record.cameras["main"]
    times = [f.t_host_s for f in take.frames("main")]
    assert len(camera.files) >= 2  # segments of a second
    assert times == sorted(times)
    assert record.motion_started_t_host_s is not None
    assert times[0] < record.motion_started_t_host_s < times[-1]
