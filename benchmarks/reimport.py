"""Import a recorded session's own movies without its telemetry, align again, and compare the pairs.

A rig without a readable rail must come to the same pairs: the markers alone give the motion. The session must have
been aligned by the same code: `alignment run` first.

    python -P -m benchmarks.reimport SESSION_FOLDER [--workers 1]

Writes ``benchmarks/results/reimport.json``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from alignment.pairing import align_session
from catalog.evidence import PairRecord
from catalog.session_folder import SessionFolder
from rig.footage import import_footage

RESULT = Path(__file__).parent / "results" / "reimport.json"


def footage_of(session: SessionFolder, folder: Path) -> None:
    """Write a folder as a person would: the movies, a sheet with the board, no telemetry and no lens."""
    record = session.record()
    rounds = []
    for name, take in session.valid_takes().items():
        movie = take.folder / take.record().cameras["main"].files[0]
        shutil.copy(movie, folder / f"{name}.mov")
        settings = take.record().cameras["main"].settings_read.model_dump(exclude_none=True)
        rounds.append(
            {
                "name": name,
                "files": f"{name}.mov",
                "role": take.round.role,
                "degradations": [d.value for d in take.round.degradations],
                "settings": settings,
            }
        )
    boards = [b.model_dump() for b in record.boards]
    sheet = {"schema": 1, "scene": record.scene, "boards": boards, "rounds": rounds}
    (folder / "session.yaml").write_text(yaml.safe_dump(sheet, sort_keys=False))


def compare(own: list[PairRecord], imported: list[PairRecord], size: tuple[int, int]) -> dict[str, Any]:
    """Compare accepted pairs: the same frames, and how far the homographies lie apart at the frame's corners."""
    key = {(p.lq.round, p.lq.frame_index): p for p in imported if p.verdict == "accepted"}
    accepted = [p for p in own if p.verdict == "accepted"]
    same = [(p, key[k]) for p in accepted if (k := (p.lq.round, p.lq.frame_index)) in key]
    identical = [(a, b) for a, b in same if a.gt.frame_index == b.gt.frame_index]
    corners = np.array(
        [[0, 0, 1], [size[0], 0, 1], [0, size[1], 1], [size[0], size[1], 1], [size[0] / 2, size[1] / 2, 1]]
    )

    def distance_px(a: PairRecord, b: PairRecord) -> float:
        mapped = [corners @ np.array(p.homography).T for p in (a, b)]
        flat = [m[:, :2] / m[:, 2:] for m in mapped]
        return float(np.max(np.linalg.norm(flat[0] - flat[1], axis=1)))

    apart = [distance_px(a, b) for a, b in identical]
    return {
        "pairs_own": len(accepted),
        "pairs_imported": len(key),
        "identical_share": round(len(identical) / len(accepted), 4),
        "homography_apart_px_median": round(float(np.median(apart)), 5),
        "homography_apart_px_p95": round(float(np.percentile(apart, 95)), 5),
    }


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("session", type=Path)
    parser.add_argument("--workers", type=int)
    asked = parser.parse_args()
    own = SessionFolder(asked.session.absolute())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "footage"
        folder.mkdir()
        footage_of(own, folder)
        imported = SessionFolder(import_footage(folder, data=Path(scratch) / "data"))
        align_session(imported, workers=asked.workers)
        camera = next(iter(own.valid_takes().values())).record().cameras["main"]
        numbers = compare(own.pairs(), imported.pairs(), (camera.width, camera.height))
    picture = {"width": camera.width, "height": camera.height, "rounds": len(own.valid_takes())}
    print(json.dumps(numbers))
    RESULT.write_text(json.dumps({"schema": 1, **picture, **numbers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
