"""What ships beside the code is held to it: profiles, plans, and every command the README shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rig.forecast import board_warnings, forecast
from rig.plan import CapturePlan
from rig.profile import RigProfile, shipped_profiles

REPOSITORY = Path(__file__).parent.parent.parent
PLANS = sorted((REPOSITORY / "hardware" / "plans").glob("*.yaml"))
README_COMMANDS = [
    line.split("#")[0].split()
    for block in re.findall(r"```sh\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    for line in block.splitlines()
    if line.split()[:1] and line.split()[0] in {"rig", "alignment", "catalog", "models"}
]


@pytest.mark.parametrize("path", shipped_profiles(), ids=lambda p: p.stem)
def test_every_profile_loads_under_its_own_name(path: Path):
    assert RigProfile.load(path.stem).name == path.stem


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.stem)
def test_every_plan_runs_on_the_simulated_rig(path: Path):
    assert forecast(CapturePlan.load(path), RigProfile.load("sim")).violations == ()


@pytest.mark.parametrize("path", shipped_profiles(), ids=lambda p: p.stem)
def test_the_boards_of_simulated_rigs_stand_near_enough_to_be_read(path: Path):
    """Otherwise every plan on them begins with a warning, and people learn to pass over warnings."""
    assert list(board_warnings(RigProfile.load(path.stem))) == []


@pytest.mark.parametrize("words", README_COMMANDS, ids=" ".join)
def test_every_command_of_the_readme_exists_with_its_options(words: list[str]):
    command, verb, *rest = words

    help_text = subprocess.run(
        [sys.executable, "-P", "-m", command, verb, "--help"],
        capture_output=True, text=True, check=True, timeout=50, env={"COLUMNS": "200", "PATH": ""},
    ).stdout  # fmt: skip

    for option in (w for w in rest if re.match(r"--?[a-z]", w)):
        assert option in help_text


def test_the_readme_shows_commands_of_all_four_packages():
    assert {words[0] for words in README_COMMANDS} == {"rig", "alignment", "catalog", "models"}


@pytest.mark.parametrize("command", ["rig", "alignment", "catalog", "models"])
def test_every_command_explains_itself(command: str):
    """Typer shows the docstring; a verb without one shows a bare name."""
    help_text = subprocess.run(
        [sys.executable, "-P", "-m", command, "--help"],
        capture_output=True, text=True, check=True, timeout=50, env={"COLUMNS": "200", "PATH": ""},
    ).stdout  # fmt: skip

    rows = re.findall(r"^│ ([a-z-]+) +(.*?) *│$", help_text, re.MULTILINE)
    assert rows
    assert all(len(text) > 10 for _, text in rows)
