"""The benchmark of the catalog says what it needs before it measures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import catalog as benchmark


@pytest.mark.parametrize("kept", [False, True])
def test_parts_of_a_grown_catalog_name_what_fills_one_first(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    result = tmp_path / "result.json"
    keep = ["--keep", str(tmp_path / "databases")] if kept else []
    asked = ["--only", "list", "crowd", "--databases", "sqlite", "--out", str(result), *keep]
    monkeypatch.setattr(sys, "argv", ["catalog", *asked])

    with pytest.raises(SystemExit, match=r"^sqlite: .* for list, crowd, .* --only growth; then") as end:
        benchmark.main()

    assert f"--keep {tmp_path / 'databases' if kept else 'FOLDER'} " in str(end.value)
    assert not result.exists()
