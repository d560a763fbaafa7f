"""How the matches of a session's rounds are shared out among workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from alignment.gates import GateThresholds
from alignment.pair_job import PairJob, shared_out


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
