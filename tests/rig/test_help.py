"""`rig help CODE` explains what an error line shows, of all four commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_rig import run_rig

from rig.help_pages import known_errors
from rig.remedies import REMEDIES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("RIG-SAFE-001", "EnvelopeError (exit code 4)"),
        ("aln-ses-001", "ALN-SES-001"),
        ("CAT-DAM-001", "DamagedDataError (exit code 5)"),
        ("MOD-REG-001", "exit code 2"),
    ],
)
def test_a_code_is_explained(code: str, name: str):
    shown = run_rig("help", code)

    assert shown.returncode == 0, shown.stderr
    assert name in shown.stdout
    assert len(shown.stdout.splitlines()) >= 2


def test_an_unknown_code_is_invalid_input_and_lists_those_there_are():
    shown = run_rig("help", "RIG-NOPE-999")

    assert shown.returncode == 2
    assert "RIG-SAFE-001" in shown.stderr


def test_every_code_in_the_source_is_explained_and_says_how_it_is_mended():
    written = {
        code
        for package in ("rig", "alignment", "catalog", "models")
        for source in (ROOT / package).rglob("*.py")
        for code in re.findall(r'^    code = "([^"]+)"', source.read_text(), re.MULTILINE)
    }

    assert set(known_errors()) >= written
    assert set(REMEDIES) == written
    assert all(remedy.endswith(".") for remedy in REMEDIES.values())


def test_without_a_code_everything_there_is_is_listed():
    shown = run_rig("help").stdout.splitlines()

    assert {"RIG-SAFE-001", "CAT-DAM-001", "travel"} <= {line.split()[0] for line in shown}
