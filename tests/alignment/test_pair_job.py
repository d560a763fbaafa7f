"""How the matches of a session's rounds are shared out among workers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from alignment.gates import GateThresholds
from alignment.pair_job import PairJob, shared_out
from alignment.scene_depths import SceneDepths


def a_round(runs: int) -> PairJob:
    """A round of so many runs without a match in them."""
    return PairJob(
        session=Path(),
        gt_sources=(),
        lq_source=None,  # type: ignore[arg-type]
        lq_evidence=(),
        runs=((),) * runs,
        focal_px=1.0,
        depths=None,
        thresholds=GateThresholds(),
    )


@dataclass
class Reader:
    motion_coded: bool


@pytest.mark.parametrize(("coded", "sigma_px"), [((True, True), 0.0092), ((False, True), 0.0065), ((), 0)])
def test_a_pair_allows_for_what_codecs_do_along_the_motion(coded, sigma_px):
    """0.0065 px for each of the movies; stills and pictures coded one by one are where they were."""
    readers = [Reader(is_coded) for is_coded in coded]
    depths = SceneDepths(np.zeros((1, 2)), np.ones(1), np.array([-1.0, 0.0]))

    along = replace(a_round(1), depths=depths).unseen_shift_px(readers)
    any_way = a_round(1).unseen_shift_px(readers)

    assert along == pytest.approx([sigma_px, 0.0], abs=1e-4)
    assert any_way == pytest.approx([sigma_px, sigma_px], abs=1e-4)


def sizes(rounds: list[PairJob], workers: int | None) -> list[list[int]]:
    return [[len(job.runs) for job in jobs] for jobs in shared_out(rounds, workers=workers)]


def test_jobs_begin_large_and_end_small():
    """A quarter of what is left for each of two workers twice: 21 // 4, 16 // 4, 12 // 4, 9 // 4, 7 // 4 …"""
    assert sizes([a_round(21)], 2) == [[5, 4, 3, 2, 1, 1, 1, 1, 1, 1, 1]]


def test_no_job_keeps_those_who_wait_for_its_progress_long():
    assert sizes([a_round(100)], 2)[0][:2] == [6, 6]


def test_a_job_is_of_one_round_and_what_later_rounds_hold_counts():
    """8 // 2 is 4 but the first round holds 3; then 5 // 2, 3 // 2 and so on. A finished round takes no job."""
    assert sizes([a_round(3), a_round(0), a_round(5)], 1) == [[3], [], [2, 1, 1, 1]]


def test_for_any_number_of_workers_the_work_is_cut_as_finely_as_it_can_be():
    assert sizes([a_round(3), a_round(2)], None) == [[1, 1, 1], [1, 1]]


def test_runs_stay_in_their_order():
    tasks = [f"run {number}" for number in range(30)]
    whole = replace(a_round(0), runs=tuple(tasks))

    (jobs,) = shared_out([whole], workers=2)

    assert [run for job in jobs for run in job.runs] == tasks
