"""The simulated rig as a process: one JSON line in starts it, one line out says where its devices are."""

from __future__ import annotations

from rig.sim.server import main

main()
