"""All four commands speak the same way."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer

from catalog.console import Console, open_console, plain_text, run_app
from catalog.errors import CleanplateError, ExitCode, error_classes


class ShelfOnFireError(CleanplateError):
    """Test error."""

    code = "TEST-001"
    exit_code = ExitCode.REFUSED


@pytest.fixture(autouse=True)
def no_debug(monkeypatch):
    monkeypatch.delenv("CLEANPLATE_DEBUG", raising=False)


def app_that_raises(error: Exception):
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def verb() -> None:
        raise error

    return app


def run(app, monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["test", *arguments])
    with pytest.raises(SystemExit) as leaving:
        run_app(app)
    return int(leaving.value.code or 0)


def test_an_error_is_one_line_with_its_code_and_what_to_do_next(monkeypatch, capsys):
    error = ShelfOnFireError("the shelf\nis on fire", kept="the camera", next_step="call somebody")

    code = run(app_that_raises(error), monkeypatch)

    assert code == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ("error TEST-001: the shelf is on fire; kept: the camera; next: call somebody\n")


def test_a_file_that_the_system_refuses_is_one_line_too(monkeypatch, capsys):
    code = run(app_that_raises(PermissionError(13, "Permission denied", "/data/x.png")), monkeypatch)

    assert code == 3
    error = capsys.readouterr().err
    assert error.startswith(
        "error CP-FIL-001: /data/x.png: Permission denied; next: see that the place exists"
    )
    assert len(error.splitlines()) == 1


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("CLEANPLATE_DEBUG", "1")

    monkeypatch.setattr(sys, "argv", ["test"])

    with pytest.raises(ShelfOnFireError):
        run_app(app_that_raises(ShelfOnFireError("fire")))


def test_an_unknown_option_is_invalid_input(monkeypatch):
    assert run(app_that_raises(ShelfOnFireError("fire")), monkeypatch, "--nonsense") == 2


def test_a_device_string_cannot_steer_the_terminal():
    assert plain_text("Nikon\x1b[2J\x07\x9b5m D750") == "Nikon[2J5m D750"


def test_data_goes_to_stdout_and_messages_to_stderr(capsys, tmp_path):
    console = open_console(tmp_path)

    console.put("a row")
    console.say("a remark")

    captured = capsys.readouterr()
    assert captured.out == "a row\n"
    assert captured.err == "a remark\n"


def test_quiet_silences_messages_but_not_data(capsys, tmp_path):
    console = Console(tmp_path, quiet=True)

    console.put("a row")
    console.say("a remark")

    assert capsys.readouterr() == ("a row\n", "")


def test_json_is_one_line_with_its_schema(capsys, tmp_path):
    Console(tmp_path, json=True).put_json({"n": 1, "name": "ä"})

    assert json.loads(capsys.readouterr().out) == {"schema": 1, "n": 1, "name": "ä"}


def test_progress_draws_nothing_off_a_terminal(capsys, tmp_path):
    with Console(tmp_path).progress("reading", 10) as advance:
        advance(5)

    assert "\x1b" not in capsys.readouterr().err


def test_every_error_class_has_its_own_code_and_an_explanation():
    known = error_classes()

    assert known["TEST-001"] is ShelfOnFireError
    assert all((cls.__doc__ or "").strip() for cls in known.values())


@pytest.mark.parametrize("command", ["rig", "alignment", "catalog", "models"])
def test_help_of_a_command_loads_no_heavy_library(command: str):
    """`rig --help` is to answer within 0.3 s, so it may not import what takes longer than that alone."""
    heavy = {
        "cv2",
        "torch",
        "diffusers",
        "scipy",
        "av",
        "sqlalchemy",
        "gphoto2",
        "serial",
        "textual",
        "skimage",
    }
    program = (
        f"import sys; from {command}.cli import app; app(['--help'], standalone_mode=False);"
        f"print('HEAVY', sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    )

    result = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True, timeout=50
    )

    assert "HEAVY []" in result.stderr
