"""The report as a document: what it says, what it must not let through, and that it never changes by itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from alignment.report import write_report
from catalog.errors import DamagedDataError
from catalog.session_folder import SessionFolder


@pytest.fixture(scope="module")
def page(bench_session: SessionFolder) -> str:
    target = bench_session.path / "report.html"
    write_report(bench_session, target)
    return target.read_text(encoding="utf-8")


def test_the_same_session_gives_the_same_bytes(bench_session: SessionFolder, page: str, tmp_path: Path):
    target = bench_session.path / "again.html"

    write_report(bench_session, target)

    assert target.read_text(encoding="utf-8") == page
