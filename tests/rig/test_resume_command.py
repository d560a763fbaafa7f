"""The command that an interrupted session prints goes on with it from the same folder without further arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.session import resume_command


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLEANPLATE_DATA", raising=False)


def test_in_the_default_data_folder_the_name_is_enough():
    assert resume_command(Path("cleanplate-data/sessions/s1")) == "rig record --session s1"


def test_the_data_folder_of_the_environment_need_not_be_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEANPLATE_DATA", str(tmp_path / "bench"))

    assert resume_command(tmp_path / "bench" / "sessions" / "s1") == "rig record --session s1"
    assert resume_command(Path("cleanplate-data/sessions/s1")).endswith(f" --data {tmp_path}/cleanplate-data")


def test_another_data_folder_is_named_so_that_a_shell_takes_it(tmp_path):
    session = tmp_path / "my data" / "sessions" / "s1"

    assert resume_command(session) == f"rig record --session s1 --data '{tmp_path}/my data'"


def test_a_session_outside_a_data_folder_is_named_by_its_path(tmp_path):
    assert resume_command(tmp_path / "loose" / "s1") == f"rig record --session {tmp_path}/loose/s1"
