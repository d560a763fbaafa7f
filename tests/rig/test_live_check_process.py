"""The live check's own process: it goes when nobody needs it any more."""

from __future__ import annotations

import os
import subprocess
import sys


def test_a_session_that_ends_at_once_waits_for_no_library(tmp_path):
    """What the first take needs takes two seconds to import; the end of the input is seen meanwhile."""
    watched = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}

    ended = subprocess.run(
        [sys.executable, "-P", "-m", "rig.live_check_process", str(tmp_path)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=watched, timeout=50, check=False,
    )  # fmt: skip

    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert ended.returncode == 0
    assert "rig.guards" in imported
    assert "rig.live_check" not in imported
