"""Worker processes that do not live to the end of their job."""

from __future__ import annotations

import os

import pytest

from catalog.errors import WorkerLostError
from catalog.executors import open_executor, ordered


def test_a_worker_that_is_killed_is_an_error_that_says_what_to_do():
    with (
        pytest.raises(WorkerLostError, match="ran out of memory") as lost,
        open_executor(workers=2) as executor,
    ):
        list(ordered(executor, os._exit, [1], ahead=2))

    assert "fewer --workers" in lost.value.next_step
