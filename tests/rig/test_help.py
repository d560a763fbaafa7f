"""`rig help CODE` explains what an error line shows, of all four commands."""

from __future__ import annotations

import pytest
from small_rig import run_rig


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
