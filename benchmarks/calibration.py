"""What `alignment calibrate` finds against what is true, and what it is worth to a session that it is used for.

    python -P -m benchmarks.calibration [--seeds 1 2 3 4 5] [--width 1280]

Every seed is a rig, its noise and a scene of its own. Writes ``benchmarks/results/calibration.json`` after every seed;
seeds of the same conditions that stand there stay. A pull is an error over its stated sigma: about 1 where that is
honest.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alignment.calibration.curve import tone_curve
from alignment.calibration.document import Calibration, Measured
from alignment.calibration.figures import distortion_px
from alignment.calibration.measure import calibrate_session
from alignment.calibration.store import store_calibration
from alignment.pairing import align_session
from alignment.photometry import standard_tone_curve
from benchmarks.pair_truth import pair_errors
from benchmarks.rendered_session import (
    FAR_BOARDS_MM,
    LARGE_BOARDS,
    REST_S,
    RenderedSession,
    RigTruth,
    planned_round,
    simulation,
)
from rig.sim.carriage import Carriage

RESULTS = Path(__file__).parent / "results" / "calibration.json"
K1, K2, READOUT_S, MM_PER_MM, CLOCK_OFFSET_S = -0.05, 0.04, 0.015, 1.002, 0.35
LADDER_S = (0.000625, 0.001, 0.002, 0.003125, 0.005, 0.0125, 0.02)
ISOS = (400, 1600, 6400)
_MODULES = 6
"""Along the side of a marker of DICT_4X4, its border among them."""


def conditions(width: int) -> dict[str, Any]:
    """Say what is rendered, in a form that tells runs of the same kind."""
    focal_px = 35 / 35.9 * width
    modules = [
        b.marker_mm / _MODULES * focal_px / z for b, z in zip(LARGE_BOARDS, FAR_BOARDS_MM, strict=True)
    ]
    return {
        "width": width,
        "height": _height(width),
        "board_module_px": [round(m, 2) for m in modules],
        "distortion": [K1, K2],
        "readout_s": READOUT_S,
        "mm_per_mm": MM_PER_MM,
        "calibration_movie_crf": 0,
        "used_movie_crf": simulation().movie_crf,
        "sweeps": "slow, fast and slow again over 180 mm at 20 frames/s",
        "exposure_ladder_s": list(LADDER_S),
        "isos": [100, *ISOS],
        "still_frames": int(REST_S * 20),
    }


def _height(width: int) -> int:
    return width * 9 // 16 // 8 * 8


def calibration_session(data: Path, truth: RigTruth, *, seed: int) -> RenderedSession:
    """Record what the shipped calibration plan asks for, shortened."""
    travel = {"start_mm": 60.0, "end_mm": 240.0}
    sweeps = [
        planned_round(1, "slow", "gt", velocity_mm_s=40.0, **travel),
        planned_round(2, "fast", velocity_mm_s=80.0, **travel),
        planned_round(3, "slow-2", velocity_mm_s=40.0, **travel),
    ]
    ladder = [
        planned_round(4 + k, f"ladder-{k}", exposure_s=s, degradations=("low_light",))
        for k, s in enumerate(LADDER_S)
    ]
    isos = [
        planned_round(
            4 + len(LADDER_S) + k, f"iso{iso}", iso=iso, exposure_s=0.5 / iso, degradations=("noise",)
        )
        for k, iso in enumerate(ISOS)
    ]
    rig = RenderedSession(
        data, [*sweeps, *ladder, *isos], truth=truth, name="calibration", scene=f"calibration-{seed}"
    )
    for k, round_ in enumerate(sweeps):
        rig.take(round_.name, seed=10 * seed + k)
    for k, round_ in enumerate([*ladder, *isos]):
        rig.take(round_.name, seed=10 * seed + 3 + k, sweep=False)
    rig.close()
    return rig


def pulls(found: Calibration, truth: RigTruth) -> dict[str, dict[str, float]]:
    """Compare every number with the truth: value, sigma, truth, and their distance in sigmas."""
    assert found.lens is not None
    assert found.rail is not None
    assert found.rail.mm_per_mm is not None
    assert found.readout is not None
    spec = truth.spec
    rows = {
        "distortion_k1": _row(found.lens.distortion_k1, spec.distortion_k1),
        **_k2_row(found, truth),
        **_focal_row(found, truth),
        "corner_distortion_px": _corner_row(found, truth),
        "principal_x_px": _row(found.lens.principal_px[0], (spec.width - 1) / 2),
        "principal_y_px": _row(found.lens.principal_px[1], (spec.height - 1) / 2),
        "readout_s": _row(found.readout.readout_s, spec.readout_s),
        "rail_mm_per_mm": _row(found.rail.mm_per_mm, truth.mm_per_mm),
    }
    nominal_px = 35 / 35.9 * spec.width
    for board, depth_mm in zip(found.boards, spec.board_depths_mm, strict=True):
        rows[f"board_{board.first_id}_px_per_mm"] = _row(board.px_per_mm, nominal_px / depth_mm)
    for noise in found.noise:
        rows[f"iso{noise.iso}_electrons"] = _row(noise.electrons_at_white, spec.full_well_e * 100 / noise.iso)
        if noise.read_noise_e is not None:
            rows[f"iso{noise.iso}_read_noise_e"] = _row(noise.read_noise_e, spec.read_noise_e)
    return rows | _bend_rows(found, truth)


def _row(measured: Measured, true: float) -> dict[str, float]:
    pull = (measured.value - true) / max(measured.sigma, 1e-12)
    return {"value": measured.value, "sigma": measured.sigma, "true": true, "pull": pull}


def _k2_row(found: Calibration, truth: RigTruth) -> dict[str, dict[str, float]]:
    """Compare the second coefficient, where the boards told it from 0."""
    k2 = None if found.lens is None else found.lens.distortion_k2
    return {} if k2 is None else {"distortion_k2": _row(k2, truth.spec.distortion_k2)}


def _focal_row(found: Calibration, truth: RigTruth) -> dict[str, dict[str, float]]:
    """Compare the focal length, where the boards told it."""
    lens = found.lens
    if lens is None or lens.focal_source != "boards":
        return {}
    return {"focal_px": _row(lens.focal_px, 35 / 35.9 * truth.spec.width)}


def _corner_row(found: Calibration, truth: RigTruth) -> dict[str, float]:
    """Compare how far the lens moves what belongs in the picture's corner: what both coefficients come to."""
    assert found.lens is not None
    spec = truth.spec
    corner_px = np.array([np.hypot(spec.width, spec.height) / 2])
    value, sigma = (float(v[0]) for v in distortion_px(found.lens, corner_px))
    focal_px = 35 / 35.9 * spec.width
    tangent = float(corner_px[0]) / focal_px
    true = focal_px * (spec.distortion_k1 * tangent**3 + spec.distortion_k2 * tangent**5)
    return _row(Measured(value=value, sigma=sigma, count=found.lens.distortion_k1.count), true)


def _bend_rows(found: Calibration, truth: RigTruth) -> dict[str, dict[str, float]]:
    assert found.rail is not None
    carriage = Carriage(truth.spec, lambda t: t, seed=0)
    places = np.array([b.position_mm for b in found.rail.bends])
    rows = {}
    for column, name in enumerate(("pitch_deg", "yaw_deg", "roll_deg")):
        true = carriage.bends_deg(places * truth.mm_per_mm)[:, column]
        value, sigma = (
            np.array([getattr(getattr(b, name), m) for b in found.rail.bends]) for m in ("value", "sigma")
        )
        apart = value - (true - true.mean())
        rows[f"bend_{name}"] = {
            "value": float(value.std()),
            "sigma": float(sigma.mean()),
            "true": float(true.std()),
            "pull": float(np.sqrt(np.mean((apart / sigma) ** 2))),
            "error": float(apart.std()),
        }
    return rows


def tone_error(found: Calibration, truth: RigTruth) -> dict[str, float]:
    """Largest relative error of light over the codes seen, against the median code."""
    assert found.tone is not None
    codes = np.linspace(*found.tone.measured_codes, 100).astype(np.float32)
    ratio = np.log(
        tone_curve(found.tone, "found").light(codes) / standard_tone_curve(truth.transfer).light(codes)
    )
    tag = np.log(standard_tone_curve("bt709").light(codes) / standard_tone_curve(truth.transfer).light(codes))
    sigma = np.interp(codes, found.tone.codes, found.tone.sigma)
    return {
        "pull_rms": float(np.sqrt(np.mean(((ratio - np.median(ratio)) / sigma) ** 2))),
        "largest_relative_error": float(np.abs(ratio - np.median(ratio)).max()),
        "largest_relative_error_of_the_tag": float(np.abs(tag - np.median(tag)).max()),
        "lowest_code": found.tone.measured_codes[0],
        "highest_code": found.tone.measured_codes[1],
    }


def session_errors(
    data: Path, truth: RigTruth, *, name: str, calibration: str | None, seed: int
) -> dict[str, Any]:
    """Align a session whose ground truth ran at half speed, with or without the calibration.

    Compression draws what moves to quarters of a pixel, and weak texture at another depth farther than boards: the
    parallax of a movie that is not lossless tells a gap about 0.1 mm beside the true one.
    """
    rounds = [
        planned_round(1, "gt", "gt", velocity_mm_s=20.0),
        planned_round(2, "plain", velocity_mm_s=40.0),
        planned_round(
            3, "noise", velocity_mm_s=40.0, iso=1600, exposure_s=0.0003125, degradations=("noise",)
        ),
    ]
    rig = RenderedSession(data, rounds, truth=truth, name=name, scene="desk-07", calibration=calibration)
    for k, round_ in enumerate(rounds):
        rig.take(round_.name, seed=100 + 10 * seed + k)
    rig.close()
    before = time.process_time()
    alignment = align_session(rig.folder, workers=1)
    errors = list(pair_errors(rig.folder, data))
    delivered = np.array([e.delivered_px for e in errors])
    estimate = np.array([e.estimate_px for e in errors])
    gaps_mm = np.abs([e.gap_error_mm for e in errors])
    inside = [e.delivered_px <= e.predicted_px for e in errors if e.predicted_px is not None]
    return {
        "pairs": len(errors),
        "rejected": len(rig.folder.pairs()) - len(errors),
        "rounds": {m.round: [m.verdict, *m.reasons] for m in alignment.rounds},
        "velocity_mm_s": {m.round: m.velocity_mm_s for m in alignment.rounds},
        "delivered_epe_px_median": _percentile(delivered, 50),
        "delivered_epe_px_p95": _percentile(delivered, 95),
        "estimate_epe_px_median": _percentile(estimate, 50),
        "estimate_epe_px_p95": _percentile(estimate, 95),
        "gap_error_mm_median": _percentile(gaps_mm, 50),
        "gap_error_mm_p95": _percentile(gaps_mm, 95),
        "coverage": float(np.mean(inside)) if inside else None,
        "warnings": list(alignment.warnings),
        "cpu_s": time.process_time() - before,
    }


def _percentile(values: np.ndarray[Any, Any], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values.size else None


def one_seed(seed: int, *, width: int) -> dict[str, Any]:
    """Calibrate one rig and use it."""
    common = {"width": width, "height": _height(width), "readout_s": READOUT_S, "seed": seed}
    common |= {"distortion_k1": K1, "distortion_k2": K2}
    rig_truth = partial(
        RigTruth, boards=LARGE_BOARDS, mm_per_mm=MM_PER_MM, transfer="srgb", clock_offset_s=CLOCK_OFFSET_S
    )
    truth = rig_truth(simulation(**common, movie_crf=0))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        rig = calibration_session(data, truth, seed=seed)
        before = time.process_time()
        found = calibrate_session(rig.folder)
        cpu_s = time.process_time() - before
        stored = store_calibration(found, data)
        used = rig_truth(simulation(**common))
        return {
            "seed": seed,
            "calibrate_cpu_s": cpu_s,
            "numbers": pulls(found, truth),
            "tone": tone_error(found, truth),
            "not_measured": [m.what for m in found.missing],
            "with": session_errors(data, used, name="with", calibration=stored.hash, seed=seed),
            "without": session_errors(data, used, name="without", calibration=None, seed=seed),
            "with_lossless_movies": session_errors(
                data, truth, name="lossless", calibration=stored.hash, seed=seed
            ),
        }


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Root mean square and mean of every number's pull over the runs, and of its error."""
    names = sorted({name for run in runs for name in run["numbers"]})
    return {name: _summed([run["numbers"][name] for run in runs if name in run["numbers"]]) for name in names}


def _summed(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    pulls_ = np.array([row["pull"] for row in rows])
    errors = np.array([row.get("error", row["value"] - row["true"]) for row in rows])
    return {
        "runs": len(rows),
        "pull_rms": float(np.sqrt(np.mean(pulls_**2))),
        "pull_mean": float(pulls_.mean()),
        "pull_largest": float(np.abs(pulls_).max()),
        "error_rms": float(np.sqrt(np.mean(errors**2))),
    }


def main() -> None:
    """Run and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    known = conditions(asked.width)
    runs = _earlier(asked.output, known)
    for seed in asked.seeds:
        runs[seed] = one_seed(seed, width=asked.width)
        ordered = [runs[seed] for seed in sorted(runs)]
        document = {
            "schema": 2,
            "conditions": known,
            "goal_px": [0.05, 0.10],
            "summary": summary(ordered),
            "runs": ordered,
        }
        asked.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(runs[seed], indent=1), flush=True)


def _earlier(path: Path, known: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Return the runs of the same conditions that stand in the file, by seed."""
    if not path.is_file():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    same = document.get("conditions") == known
    return {run["seed"]: run for run in document["runs"]} if same else {}


if __name__ == "__main__":
    main()
