"""Guards: numbers against the plan's limits, nothing else."""

from __future__ import annotations

import pytest

from rig.devices.camera import CameraStatus
from rig.guards import Judgment, TakeNumbers, judge_before_round, judge_take
from rig.plan import Guards

LIMITS = Guards()


def failed(judged: list[Judgment]) -> set[str]:
    return {j.guard for j in judged if not j.ok}


@pytest.mark.parametrize(
    ("free_gb", "status", "guard"),
    [
        (1.9, CameraStatus(80, None), "disk"),
        (9.0, CameraStatus(14, None), "battery"),
        (9.0, CameraStatus(80, None, hot=True), "temperature"),
        (9.0, CameraStatus(80, None, unasked_changes=("iso went to 200",)), "settings"),
    ],
)
def test_what_forbids_a_round(free_gb: float, status: CameraStatus, guard: str):
    judged = judge_before_round(LIMITS, free_gb=free_gb, cameras={"main": status})

    assert failed(judged) == {guard}


def test_limits_themselves_are_allowed_and_a_battery_that_is_not_told_is_not_judged():
    """2 GB and 15 % are the defaults."""
    assert failed(judge_before_round(LIMITS, free_gb=2.0, cameras={"a": CameraStatus(15, None)})) == set()

    judged = judge_before_round(LIMITS, free_gb=9.0, cameras={"a": CameraStatus(None, None)})

    assert "battery" not in {j.guard for j in judged}


@pytest.mark.parametrize(
    ("numbers", "guard"),
    [
        ({"light_ratio": 1.06}, "light"),
        ({"light_ratio": 0.94}, "light"),
        ({"clipped_percent": 5.1}, "clipping"),
        ({"sharpness_share": 0.49}, "focus"),
        ({"markers_seen": 0}, "markers"),
        ({"camera_shift_px": 20.1}, "camera_moved"),
        ({"ripple_percent": 2.1}, "ripple"),
    ],
)
def test_what_fails_a_ground_truth(numbers: dict[str, float], guard: str):
    judged = judge_take(LIMITS, TakeNumbers.model_validate(numbers), is_gt=True, lost_frames=0)

    assert failed(judged) == {guard}
    (judgment,) = (j for j in judged if not j.ok)
    assert judgment.value is not None
    assert judgment.limit is not None


def test_degraded_rounds_may_be_dark_soft_and_clipped():
    numbers = TakeNumbers(light_ratio=0.1, clipped_percent=50, sharpness_share=0.1, markers_seen=0)

    assert failed(judge_take(LIMITS, numbers, is_gt=False, lost_frames=0)) == set()


def test_lost_frames_count_in_every_round_and_a_guard_can_be_off():
    numbers = TakeNumbers()

    assert failed(judge_take(LIMITS, numbers, is_gt=False, lost_frames=1)) == {"frames"}
    off = Guards(actions={"frames": "off"})
    assert judge_take(off, numbers, is_gt=False, lost_frames=1) == []
