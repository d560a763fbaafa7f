"""Where jobs run: here, in processes, on a real Dask cluster of two workers."""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures import Executor, Future

import pytest
from typer.testing import CliRunner

from alignment.cli import app
from alignment.errors import UnwritableError
from catalog.errors import CleanplateError, ClusterError, MissingExtraError
from catalog.executors import InlineExecutor, open_executor, ordered


def square(number):
    return number * number


def process(_):
    return os.getpid()


def test_one_worker_works_in_this_process():
    with open_executor(workers=1) as executor:
        assert executor.submit(process, 0).result() == os.getpid()


def test_results_come_in_the_items_order_with_few_jobs_handed_out():
    """Of ten items with three ahead, the first result is waited for when three were handed out, none of them done."""
    handed_out = []

    class Late(Future):
        def result(self, timeout=None):
            self.set_result(square(self.item))
            return super().result(timeout)

    class Noting(Executor):
        def submit(self, fn, item) -> Future:
            handed_out.append(item)
            late = Late()
            late.item = item
            return late

    results = ordered(Noting(), square, range(10), ahead=3)

    assert next(results) == 0
    assert handed_out == [0, 1, 2]
    assert list(results) == [square(k) for k in range(1, 10)]


def test_a_result_that_is_there_is_not_kept_back():
    handed_out = []

    class Noting(Executor):
        def submit(self, fn, item) -> Future:
            handed_out.append(item)
            return InlineExecutor().submit(fn, item)

    results = ordered(Noting(), square, range(10), ahead=3)

    assert next(results) == 0
    assert handed_out == [0]


def test_a_missing_dask_is_named_with_the_extra_that_brings_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'cleanplate\[dask\]'"):
        with open_executor(dask="tcp://127.0.0.1:8786"):
            pass


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").touch()

    result = CliRunner().invoke(app, ["markers", "-o", str(tmp_path / "file" / "boards.pdf")])

    assert isinstance(result.exception, UnwritableError)
    assert "boards.pdf: cannot be written" in str(result.exception)


def test_a_cluster_that_is_missing_is_not_taken_for_a_file_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    for side in ("GT", "LQ"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "1.png").touch()

    result = CliRunner().invoke(
        app, ["audit", str(tmp_path), "-o", str(tmp_path / "a.json"), "--dask", "tcp://127.0.0.1:9"]
    )

    assert isinstance(result.exception, MissingExtraError)


def test_a_scheduler_that_does_not_answer_is_an_error_of_its_own(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("catalog.executors._CONNECT_TIMEOUT_S", 1)

    with pytest.raises(ClusterError, match=r"no answer within 1 s.*dask scheduler"):
        with open_executor(dask="tcp://127.0.0.1:9"):
            pass


def test_an_address_without_a_port_is_refused_before_anything_is_tried():
    pytest.importorskip("distributed")

    with pytest.raises(ClusterError, match="nonsense: not an address"):
        with open_executor(dask="nonsense"):
            pass


def test_jobs_run_on_the_cluster(dask_cluster):
    assert re.fullmatch(r"tcp://127\.0\.0\.1:\d+", dask_cluster)

    with open_executor(dask=dask_cluster) as executor:
        found = set(ordered(executor, process, range(40)))

    assert os.getpid() not in found
    assert len(found) == 2


def test_an_error_of_a_job_comes_back_as_it_was(dask_cluster):
    with open_executor(dask=dask_cluster) as executor:
        with pytest.raises(CleanplateError, match="the picture is gone") as caught:
            executor.submit(fail, 0).result()

    assert caught.value.next_step == "copy it again"


def fail(_):
    raise CleanplateError("the picture is gone", next_step="copy it again")
