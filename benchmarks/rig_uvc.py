"""A UVC camera recorded for a minute with preview on: is every dropped or doubled frame reported, and are there any?

A process of its own sends 1080p JPEG frames at 50 per second that carry their number in their pixels. First as they
are: none may be lost. Then with frames left out and doubled on purpose: each must be found, at its place, and nothing
else. The recording is judged by the numbers in its pixels, which the recorder never looks at.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "rig"))

from numbered_frames import background, number_of, numbered

from alignment.decode import open_movie
from rig.clock import SessionClock
from rig.devices.frame_audit import find_gaps
from rig.devices.opencv_camera import OpencvCamera, UvcSettings
from rig.sim.mjpeg import MjpegServer, paced
from rig.take import duplicated_frames

WIDTH, HEIGHT, RATE_HZ = 1920, 1080, 50.0
PREVIEW_HZ = 4.0
LEAD_S = 4.0
"""The source runs so long before and after the recording."""
RESULTS = Path(__file__).parent / "results" / "rig_uvc.json"


def shown_numbers(count: int, *, seed: int | None) -> list[int | None]:
    """List what the source shows at each tick: its number, None where left out, the last one where doubled."""
    shown: list[int | None] = list(range(count))
    if seed is None:
        return shown
    rng = random.Random(seed)
    for tick in range(400, count - 400, 97):
        if rng.random() < 0.5:
            for k in range(tick, tick + rng.choice((1, 1, 2, 5))):
                shown[k] = None
        else:
            shown[tick] = tick - 1
    return shown


def serve(duration_s: float, seed: int | None) -> None:
    """Serve the stream until stdin closes."""
    pictures = [background(WIDTH, HEIGHT, seed=k) for k in range(2)]
    count = int(duration_s * RATE_HZ)
    frames = [numbered(pictures[k % 2], k) for k in range(count)]
    shown = shown_numbers(count, seed=seed)

    def series() -> Iterator[bytes]:
        due = paced(
            lambda k: b"" if shown[k] is None else frames[shown[k] or 0], rate_hz=RATE_HZ, count=count
        )
        yield from (jpeg for jpeg in due if jpeg)

    server = MjpegServer(series)
    print(json.dumps({"address": server.address, "jpeg_bytes": len(frames[0])}), flush=True)
    sys.stdin.read()


def record(duration_s: float, *, seed: int | None) -> dict[str, object]:
    """Record the stream once and compare what was reported with what the pixels say."""
    command = [sys.executable, "-P", __file__, "--serve", str(duration_s + 2 * LEAD_S)]
    command += [] if seed is None else ["--seed", str(seed)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as source,
        tempfile.TemporaryDirectory(dir=Path.cwd()) as spool,
    ):
        assert source.stdin is not None
        assert source.stdout is not None
        ready = json.loads(source.stdout.readline())
        settings = UvcSettings(
            kind="uvc", path=ready["address"], width=WIDTH, height=HEIGHT, frame_rate_hz=RATE_HZ
        )
        camera = OpencvCamera(settings, SessionClock(), spool=Path(spool))
        try:
            result = _take(
                camera, duration_s, shown_numbers(int((duration_s + 2 * LEAD_S) * RATE_HZ), seed=seed)
            )
        finally:
            camera.close()
            source.stdin.close()
    return {"jpeg_bytes": ready["jpeg_bytes"], **result}


def _take(camera: OpencvCamera, duration_s: float, shown: list[int | None]) -> dict[str, object]:
    camera.open()
    over, previews = threading.Event(), []
    cpu_s, wall_s = time.process_time(), time.monotonic()
    camera.start_movie()
    watcher = threading.Thread(target=lambda: previews.extend(_watch(camera, over)))
    watcher.start()
    time.sleep(duration_s)
    over.set()
    watcher.join()
    files = camera.stop_movie()
    peak_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    cpu_share = (time.process_time() - cpu_s) / (time.monotonic() - wall_s)
    times = [t for f in files if f.arrivals for t in f.arrivals.arrived_s]
    with open_movie([Path(f.folder) / f.name for f in files]) as movie:
        seen = [number_of(frame.grey()) for frame in movie.frames()]
    missing = {g.after: g.missing for g in find_gaps(times)}
    doubled = set(duplicated_frames(files))
    true_missing, true_doubled = _truth(seen, shown)
    return {
        "seconds": duration_s,
        "frames": len(seen),
        "segments": len(files),
        "previews": len(previews),
        "cpu_share_of_one_core": round(cpu_share, 3),
        "peak_memory_mb": peak_mb,
        "dropped_true": sum(true_missing.values()),
        "dropped_reported": sum(missing.values()),
        "doubled_true": len(true_doubled),
        "doubled_reported": len(doubled),
        "gaps_misplaced_or_wrong": len(set(missing.items()) ^ set(true_missing.items())),
        "doubles_misplaced": len(doubled ^ true_doubled),
        "lost_by_the_recorder": _lost_by_us(seen, shown),
    }


def _watch(camera: OpencvCamera, over: threading.Event) -> Iterator[int]:
    """Look at live view as an engine does: decode, make it small."""
    import cv2
    import numpy as np

    while not over.wait(1 / PREVIEW_HZ):
        picture = cv2.imdecode(np.frombuffer(camera.preview(), np.uint8), cv2.IMREAD_REDUCED_COLOR_4)
        yield int(picture.mean())


def _truth(seen: list[int], shown: list[int | None]) -> tuple[dict[int, int], set[int]]:
    """Work out from the numbers in the pixels which ticks are missing and which frames are doubled."""
    ticks = [k for k, number in enumerate(shown) if number is not None]
    first = next(k for k in ticks if shown[k] == seen[0])
    doubled = {k for k in range(1, len(seen)) if seen[k] == seen[k - 1]}
    at, missing = first, {}
    for k in range(1, len(seen)):
        following = at + 1
        while following < len(shown) and shown[following] != seen[k]:
            following += 1
        if following - at > 1:
            missing[k - 1] = following - at - 1
        at = following
    return missing, doubled


def _lost_by_us(seen: list[int], shown: list[int | None]) -> int:
    """Count frames that the source sent between the first and last recorded one and that are not in the recording."""
    sent = [number for number in shown if number is not None]
    start = sent.index(seen[0])
    end = len(sent) - 1 - sent[::-1].index(seen[-1])
    return (end - start + 1) - len(seen)


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.seed)
        return
    result = {
        "machine": {"cores": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version()},
        "stream": {"width": WIDTH, "height": HEIGHT, "rate_hz": RATE_HZ, "preview_hz": PREVIEW_HZ},
        "as_it_is": record(options.seconds, seed=None),
        "with_faults": record(options.seconds, seed=1),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
