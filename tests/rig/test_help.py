"""`rig help CODE` explains what an error line shows, of all four commands."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rig.cli import main
from rig.help_pages import known_errors
from rig.remedies import REMEDIES

ROOT = Path(__file__).parents[2]
Help = Callable[..., tuple[int, str, str]]


@pytest.fixture
def rig_help(monkeypatch, capsys) -> Help:
    """Run `rig help` in this process; answers exit code, stdout and stderr."""

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rig", "help", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return command


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("RIG-SAFE-001", "EnvelopeError (exit code 4)"),
        ("aln-ses-001", "ALN-SES-001"),
        ("CAT-DAM-001", "DamagedDataError (exit code 5)"),
        ("MOD-REG-001", "exit code 2"),
    ],
)
def test_a_code_is_explained(rig_help: Help, code: str, name: str):
    returned, out, error = rig_help(code)

    assert returned == 0, error
    assert name in out
    assert len(out.splitlines()) >= 2


def test_an_unknown_code_is_invalid_input_and_lists_those_there_are(rig_help: Help):
    returned, _, error = rig_help("RIG-NOPE-999")

    assert returned == 2
    assert "RIG-SAFE-001" in error


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


def test_without_a_code_everything_there_is_is_listed(rig_help: Help):
    _, out, _ = rig_help()

    assert {"RIG-SAFE-001", "CAT-DAM-001", "travel"} <= {line.split()[0] for line in out.splitlines()}
