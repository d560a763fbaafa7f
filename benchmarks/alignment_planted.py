"""Pairs that are bad on purpose, and good ones beside them: what the gates make of each.

Results go to results/alignment_planted.json.

Usage: python -P -m benchmarks.alignment_planted --places 20. Finished scenes are kept in the work folder: a run that
was stopped goes on where it was, and scenes judged one at a time (--scenes) are put together by a run of all of them.

Every place is photographed well and badly under several degradations; the position evidence that a session has from its
boards is made from the true places of the boards in the pictures with the noise of the tracker, and left out where a
case asks for a scene without boards.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import map_points
from alignment.depth import seen_parallax_px
from alignment.errors import AlignmentError
from alignment.gates import GateThresholds, PairMeasurements, RoundNorms, judge_pair, needs_registration
from alignment.pair_job import depth_correlation
from alignment.photometry import standard_tone_curve
from alignment.picture import Picture
from alignment.registration import Pinhole, Registration, register
from alignment.scene_depths import DisparityMap, SceneDepths
from benchmarks.alignment import RESULTS, SHARED
from benchmarks.alignment_measure import measurements
from benchmarks.alignment_pairs import (
    CLASSES,
    EXPOSURE_S,
    LENS,
    TONE_NAME,
    BenchPair,
    PairClass,
    PairPlace,
    Studio,
    places,
)
from rig.sim.optics import nominal_focal_px
from rig.sim.world import World

Array = NDArray[np.float64]
Row = dict[str, Any]
KINDS = ("clean", "iso", "haze", "rain")
"""Degradations that every case is shown under."""
STEP_MM = 2 / 3
"""Rail travel between two frames: 20 mm/s at 30 a second."""
TRACK_SIGMA_PX = 0.03
POSITION_SIGMA_MM = 0.03
"""What tracked boards, averaged over a sweep and corrected by parallax, leave of a position."""
PERIOD_PX = 24
BOARD_STEP_MM = 5.0
_MASKED = 0.9
"""Share of a thing that its mask must cover."""
_LIMITS = GateThresholds()
_PLACE = frozenset({"position_gap", "parallax", "inconsistent", "low_information"})
_PERSON = frozenset({"moving_object", "marker_occluded", "marker_lost"})
_CONTENT = frozenset({
    "bad_content", "no_structure", "low_information", "moving_object", "disagree", "unstable", "rig_disturbed",
    "low_overlap", "inconsistent", "position_gap", "parallax", "marker_lost", "marker_occluded",
})  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One way for a pair to be bad."""

    right: frozenset[str]
    """Reasons that are right; empty for good pairs."""
    step_frames: float = 0.0
    """How many frames the ground truth is off."""
    boards: bool = True
    """The session has position evidence from boards."""
    person_share: float = 0.0
    brightness: float = 1.0
    """Light of this frame over that of the rest of its round."""
    board_moved_mm: float = 0.0
    cover_board: bool = False
    other_scene: bool = False
    paint: Callable[[World], World] | None = None
    """Changes the scene for both frames."""
    initial_shift_px: float = 0.0
    may_be_masked: bool = False


def _repetitive(world: World) -> World:
    """Cover everything but the boards with a pattern that repeats every `PERIOD_PX`."""
    wall = world.planes[0]
    height, width = wall.colour.shape[:2]
    x, y = (2 * np.pi * np.arange(n) / (2 * PERIOD_PX) for n in (width, height))
    wave = 0.35 + 0.12 * (np.sin(x)[None] + np.sin(2 * x + 1)[None]) * np.cos(y)[:, None]
    return _with_planes(
        world, [replace(wall, colour=np.repeat(wave[..., None], 3, axis=2).astype(np.float32))]
    )


def _featureless(world: World) -> World:
    """Paint the wall and take everything else away."""
    wall = world.planes[0]
    return _with_planes(world, [replace(wall, colour=np.full_like(wall.colour, 0.4))], boards=False)


def _with_planes(world: World, planes: Sequence[Any], *, boards: bool = True) -> World:
    kept = [p for p in world.planes if boards and p.name.startswith("board")]
    world.planes = (*planes, *kept)
    return world


CASES: Mapping[str, Case] = {
    "good": Case(frozenset()),
    "good without boards": Case(frozenset(), boards=False),
    **{f"{n} frames off": Case(_PLACE, step_frames=n) for n in (1, 2, 5)},
    **{
        f"{n} frames off without boards": Case(_PLACE | _CONTENT, step_frames=n, boards=False)
        for n in (1, 2, 5)
    },
    "wrong scene": Case(_CONTENT, other_scene=True),
    "reversed direction": Case(_PLACE | _CONTENT, step_frames=30),
    "person over 10 %": Case(_PERSON, person_share=0.1, may_be_masked=True),
    "person over 20 %": Case(_PERSON, person_share=0.2, may_be_masked=True),
    "person over 40 %": Case(_PERSON, person_share=0.4),
    "marker covered": Case(
        frozenset({"marker_occluded", "marker_lost"}), cover_board=True, may_be_masked=True
    ),
    "board moved": Case(frozenset({"inconsistent", "position_gap"}), board_moved_mm=BOARD_STEP_MM),
    "light switched": Case(frozenset({"exposure"}), brightness=1 / 3),
    "one period off": Case(_PLACE, paint=_repetitive, initial_shift_px=PERIOD_PX),
    "featureless wall": Case(
        frozenset({"no_structure", "low_information"}), paint=_featureless, boards=False
    ),
}


@dataclass(frozen=True)
class Task:
    """The places of one scene in every case, each place under one degradation."""

    places: tuple[tuple[PairPlace, str], ...]
    """With the name of the degradation."""
    cases: tuple[str, ...]
    size: tuple[int, int]
    work: Path


@dataclass(frozen=True)
class _Usual:
    """What a place's good pair tells to be usual there."""

    norms: RoundNorms
    board_correlation: float


def run_task(task: Task) -> list[Row]:
    """Judge a scene's pairs, the good ones first: they tell what is usual."""
    cv2.setNumThreads(1)
    usual: dict[PairPlace, _Usual] = {}
    return [
        _judged(task, place, kind, name, usual)
        for names in _by_stage(task.cases)
        for place, kind in task.places
        for name in names
    ]


def _by_stage(cases: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Group cases by the world they need: building one costs as much as ten pictures of it."""
    changed = [n for n in cases if CASES[n].paint or CASES[n].other_scene or CASES[n].board_moved_mm]
    yield ("good", *(n for n in cases if n != "good" and n not in changed))
    yield from ((name,) for name in changed)


def _judged(task: Task, place: PairPlace, kind: str, name: str, usual: dict[PairPlace, _Usual]) -> Row:
    case = CASES[name]
    pair, boards = _plant(task, place, CLASSES[kind], case)
    correlation = _board_correlation(pair, boards)
    share = correlation / (usual[place].board_correlation if place in usual else correlation)
    found, measured = _measured(pair, case, boards, marker_share=share if case.boards else None)
    known = usual.setdefault(place, _Usual(RoundNorms.of([measured]), correlation))
    _, reasons = judge_pair(measured, thresholds=_LIMITS, norms=known.norms, low_light=False)
    where = {"case": name, "kind": kind, "scene": place.scene, "pair": place.index}
    return {**where, "reasons": list(reasons), "right": _is_right(case, reasons, pair, found)}


class _Stage(Studio):
    """A studio whose scene is changed once it is built."""

    def __init__(
        self, scene: str, *, work: Path, size: tuple[int, int], change: Callable[[World], World] | None
    ) -> None:
        super().__init__(scene, photos=SHARED / "data" / "photos", work=work, size=size)
        self._change = change

    def _build(self, changes: tuple[tuple[str, float], ...]) -> World:
        world = super()._build(changes)
        return self._change(world) if self._change else world


@lru_cache(maxsize=2)
def _stage(
    scene: str, *, work: Path, size: tuple[int, int], change: Callable[[World], World] | None = None
) -> _Stage:
    """Keep the plain scene and the one last changed."""
    return _Stage(scene, work=work, size=size, change=change)


@dataclass(frozen=True)
class _Shifted(PairPlace):
    """The same place with the ground truth taken some frames further on."""

    frames: float = 0.0

    def poses(self) -> tuple[Array, Array]:
        gt, lq = super().poses()
        return gt + np.array([self.frames * STEP_MM, 0, 0, 0, 0, 0]), lq


def _plant(task: Task, place: PairPlace, degraded: PairClass, case: Case) -> tuple[BenchPair, Array]:
    """Render a case; with it, how far every board seems to have moved in the picture, (boards, 2) px."""
    stage = partial(_stage, work=task.work, size=task.size)
    kind, shifted = _degraded(degraded, case), _Shifted(place.scene, place.index, case.step_frames)
    pair = stage(place.scene, change=case.paint).pair(kind, shifted)
    boards = [p for p in pair.gt_truth.header.planes if p.name.startswith("board")]
    centres = np.array([[*np.mean(p.outline_mm, axis=0), p.depth_mm] for p in boards]).reshape(-1, 3)
    moved = centres + np.array([case.board_moved_mm, 0.0, 0.0])
    shift_px = pair.lq_truth.project(moved) - pair.gt_truth.project(centres)
    if case.board_moved_mm:
        pair = replace(pair, lq=stage(place.scene, change=_boards_moved).pair(kind, shifted).lq)
    if case.other_scene:
        pair = replace(pair, gt=stage(_another(place.scene)).pair(PairClass(), shifted).gt)
    if case.cover_board:
        pair = _covered(pair, boards[0].outline_mm, boards[0].depth_mm)
    return pair, shift_px


def _degraded(kind: PairClass, case: Case) -> PairClass:
    exposure_s = kind.settings.get("exposure_s", EXPOSURE_S) * case.brightness
    return replace(kind, settings={**kind.settings, "exposure_s": exposure_s}, mover_share=case.person_share)


def _another(scene: str) -> str:
    head, number = scene.rsplit("-", 1)
    return f"{head}-{int(number) % 4 + 1}"


def _boards_moved(world: World) -> World:
    step = np.array([BOARD_STEP_MM, 0.0])
    world.planes = tuple(
        replace(p, outline_mm=p.outline_mm + step, corner_mm=(p.corner_mm[0] + BOARD_STEP_MM, p.corner_mm[1]))
        if p.name.startswith("board")
        else p
        for p in world.planes
    )
    return world


def _covered(pair: BenchPair, outline_mm: Sequence[tuple[float, float]], depth_mm: float) -> BenchPair:
    """Hold a grey card before a board in the degraded frame."""
    corners = np.column_stack([np.array(outline_mm), np.full(len(outline_mm), depth_mm)])
    polygon = np.rint(pair.lq_truth.project(corners)).astype(np.int32)
    lq, moved = pair.lq.copy(), np.zeros(pair.lq.shape[:2], np.uint8)
    cv2.fillPoly(lq, [polygon], (120, 120, 120))
    cv2.fillPoly(moved, [polygon], (1,))
    return replace(pair, lq=lq, moved=moved > 0)


def _board_correlation(pair: BenchPair, shift_px: Array) -> float:
    """Correlate the first board in both frames, as tracking does; 0 where there is none."""
    planes = [p for p in pair.gt_truth.header.planes if p.name.startswith("board")]
    if not planes:
        return 0.0
    outline = np.array(planes[0].outline_mm)
    corners = pair.gt_truth.project(np.column_stack([outline, np.full(len(outline), planes[0].depth_mm)]))
    left, top = np.maximum(corners.min(axis=0).round(), 0).astype(int)
    right, bottom = corners.max(axis=0).round().astype(int)
    dx, dy = shift_px[0].round().astype(int)
    grey_gt, grey_lq = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (pair.gt, pair.lq))
    seen = grey_lq[max(top + dy, 0) : bottom + dy, max(left + dx, 0) : right + dx]
    expected = grey_gt[top : top + seen.shape[0], left : left + seen.shape[1]]
    spread = float(np.std(seen) * np.std(expected))
    product = np.mean((seen - np.mean(seen)) * (expected - np.mean(expected)))
    return float(product) / spread if spread else 0.0


def _measured(
    pair: BenchPair, case: Case, board_shift_px: Array, *, marker_share: float | None
) -> tuple[Registration | None, PairMeasurements]:
    """Do what the product does with a match: position gate, registration, measurements."""
    depths = _depths(pair)
    rng = np.random.default_rng(1)
    before = PairMeasurements(uniform=True, marker_share=marker_share, parallax_px=0.0)
    if case.boards:
        gap_mm = (
            pair.lq_truth.pose[0]
            - pair.gt_truth.pose[0]
            - case.board_moved_mm
            + rng.normal() * POSITION_SIGMA_MM
        )
        before = replace(before, parallax_px=(abs(gap_mm) + 2 * POSITION_SIGMA_MM) * depths.spread_px_per_mm)
    if not needs_registration(before, thresholds=_LIMITS):
        return None, before
    disparities = depths.seen_from(float(pair.gt_truth.pose[0]))
    found = _registered(pair, disparities, initial_shift_px=case.initial_shift_px)
    if found is None:
        return None, before
    seen_px = board_shift_px + TRACK_SIGMA_PX * rng.standard_normal(board_shift_px.shape)
    return found, replace(
        measurements(found, like=before),
        parallax_px=max(
            before.parallax_px,
            seen_parallax_px(found, disparities, spread_px_per_mm=depths.spread_px_per_mm),
        ),
        kinematics_px=_against_boards(pair, found, seen_px) if case.boards else None,
        depth_correlation=depth_correlation(found, disparities),
    )


def _registered(
    pair: BenchPair, disparities: DisparityMap, *, initial_shift_px: float
) -> Registration | None:
    tone = standard_tone_curve(TONE_NAME)
    height, width = pair.gt.shape[:2]
    initial = np.eye(3)
    initial[0, 2] = initial_shift_px
    try:
        return register(
            Picture(pair.gt, tone=tone),
            Picture(pair.lq, tone=tone),
            camera=Pinhole(nominal_focal_px(LENS, width), width, height),
            initial=initial,
            disparities=disparities,
        )
    except AlignmentError:
        return None


def _depths(pair: BenchPair) -> SceneDepths:
    """What the ground-truth round would have measured of the scene."""
    height, width = pair.gt.shape[:2]
    x, y = np.meshgrid(np.arange(16, width, 32.0), np.arange(16, height, 32.0))
    points = np.column_stack([x.ravel(), y.ravel()])
    return SceneDepths(points, nominal_focal_px(LENS, width) / pair.gt_truth.locate(points)[:, 2])


def _against_boards(pair: BenchPair, found: Registration, seen_px: Array) -> float | None:
    planes = [p for p in pair.gt_truth.header.planes if p.name.startswith("board")]
    if not planes:
        return None
    centres = np.array([[*np.mean(p.outline_mm, axis=0), p.depth_mm] for p in planes])
    in_gt = pair.gt_truth.project(centres)
    return float(np.linalg.norm(np.mean(map_points(found.homography, in_gt) - in_gt - seen_px, axis=0)))


def _is_right(case: Case, reasons: Sequence[str], pair: BenchPair, found: Registration | None) -> bool:
    if not case.right:
        return not reasons
    if case.may_be_masked and not reasons and found is not None and pair.moved is not None:
        return bool(np.mean(found.trust_mask()[pair.moved] == 0) >= _MASKED)
    return bool(case.right.intersection(reasons))


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Count by case, and over all bad and all good pairs."""
    by_case = {
        name: {
            "pairs": len(chosen),
            "right_share": float(np.mean([r["right"] for r in chosen])),
            "reasons": dict(Counter(reason for r in chosen for reason in r["reasons"])),
        }
        for name in CASES
        if (chosen := [r for r in rows if r["case"] == name])
    }
    good = [r["right"] for r in rows if not CASES[r["case"]].right]
    bad = [r["right"] for r in rows if CASES[r["case"]].right]
    shares = {
        "bad_refused_share": float(np.mean(bad or [0])),
        "good_refused_share": 1 - float(np.mean(good or [0])),
    }
    goals = {
        "bad_refused_share": shares["bad_refused_share"] >= 0.99,
        "good_refused_share": shares["good_refused_share"] <= 0.05,
    }
    return {
        "schema": 1,
        "bad_pairs": len(bad),
        "good_pairs": len(good),
        **shares,
        "goals_met": goals,
        "cases": by_case,
    }


def _tasks(
    chosen: Sequence[PairPlace], cases: tuple[str, ...], size: tuple[int, int], work: Path
) -> Iterator[Task]:
    degraded = [(place, KINDS[i % len(KINDS)]) for i, place in enumerate(chosen)]
    for scene in dict.fromkeys(place.scene for place in chosen):
        yield Task(tuple(p for p in degraded if p[0].scene == scene), cases, size, work)


def _known(path: Path) -> list[Row]:
    """Rows judged so far, the last of each case and place."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return list({_of(row): row for row in map(json.loads, lines)}.values())


def _wanted(task: Task) -> set[tuple[str, str, int]]:
    return {(case, place.scene, place.index) for case in task.cases for place, _ in task.places}


def _of(row: Row) -> tuple[str, str, int]:
    return row["case"], row["scene"], row["pair"]


def _missing(tasks: Sequence[Task], known: Sequence[Row], scenes: Sequence[str]) -> list[Task]:
    """Tasks of the chosen scenes, all where none is chosen, that are not wholly known."""
    there = {_of(row) for row in known}
    return [t for t in tasks if not _wanted(t) <= there and (not scenes or t.places[0][0].scene in scenes)]


def main(arguments: Sequence[str]) -> int:
    """Plant, judge and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--places", type=int, default=20)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--photo-set", choices=("tuning", "report"), default="report")
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--scenes", default="", help="judge only these now; default: all")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("cleanplate-data/bench-alignment"))
    parser.add_argument("--output", type=Path, default=RESULTS / "alignment_planted.json")
    parser.add_argument("--fresh", action="store_true", help="forget what was judged before")
    given = parser.parse_args(arguments)
    given.work.mkdir(parents=True, exist_ok=True)
    rows_path = given.work / f"planted-{given.photo_set}-{given.size}.jsonl"
    if given.fresh:
        rows_path.unlink(missing_ok=True)
    size = tuple(map(int, given.size.split("x")))
    chosen = places(given.photo_set, given.places)
    tasks = list(_tasks(chosen, tuple(given.cases.split(",")), size, given.work))
    _judge_missing(
        _missing(tasks, _known(rows_path), given.scenes.split(",") if given.scenes else ()),
        rows_path,
        jobs=given.jobs,
    )
    wanted = set().union(*map(_wanted, tasks))
    document = summary([row for row in _known(rows_path) if _of(row) in wanted])
    document |= {"photo_set": given.photo_set, "size": size, "places": given.places}
    given.output.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))
    return 0


def _judge_missing(tasks: Sequence[Task], rows_path: Path, *, jobs: int) -> None:
    """Judge every task and append its rows as it ends."""
    with ProcessPoolExecutor(jobs) as pool, rows_path.open("a") as out:
        for number, found in enumerate(pool.map(run_task, tasks), 1):
            out.writelines(json.dumps(row) + "\n" for row in found)
            out.flush()
            wrong = [r["case"] for r in found if not r["right"]]
            print(f"{number}/{len(tasks)}", *wrong, sep="; ", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
