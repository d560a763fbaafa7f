"""The process of the simulated rig, as the engine starts and ends it."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import pytest
from small_rig import write_profile

from catalog.errors import CleanplateError
from rig.assembly import clock_of
from rig.profile import RigProfile
from rig.simulation import SimulatedRigProcess


@pytest.mark.parametrize("delay_s", [0.5, 1.0, 2.0])
def test_a_simulator_told_again_and_again_to_end_says_nothing(tmp_path: Path, capfd, delay_s: float):
    """Whoever gives up an opening interrupts it every 100 ms until it is gone; here a hundred times as often."""
    profile = RigProfile.load(str(write_profile(tmp_path)))
    simulator = SimulatedRigProcess(
        profile, scene="test-shelf", photos=None, data=tmp_path, clock=clock_of(profile)
    )

    def start() -> None:
        with contextlib.suppress(CleanplateError):
            simulator.start()

    starting = threading.Thread(target=start)
    starting.start()
    time.sleep(delay_s)

    until_s = time.monotonic() + 1.0
    while time.monotonic() < until_s:
        simulator.interrupt()
        time.sleep(0.001)
    starting.join()
    simulator.close()

    assert capfd.readouterr().err == ""
