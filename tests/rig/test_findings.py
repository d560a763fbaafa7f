"""Whatever a take is checked for, an operator can ask what it means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from small_rig import run_rig

from rig import live_check, live_judge
from rig.findings import EXPLANATIONS
from rig.plan import GuardName


def test_every_finding_and_every_guard_is_explained_and_nothing_else():
    sources = [Path(module.__file__).read_text() for module in (live_check, live_judge)]
    findings = {name for text in sources for name in re.findall(r"finding\(\s*\"(\w+)\"", text)}

    assert len(findings) > 10
    assert set(EXPLANATIONS) == findings | set(get_args(GuardName))


@pytest.mark.parametrize("name", ["travel", "Camera_Moved"])
def test_rig_help_tells_what_a_check_means_and_how_to_mend_it(name: str):
    shown = run_rig("help", name)

    assert shown.returncode == 0, shown.stderr
    assert EXPLANATIONS[name.lower()].meaning in shown.stdout
    assert EXPLANATIONS[name.lower()].mend in shown.stdout
