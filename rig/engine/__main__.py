"""``python -m rig.engine``: an engine alone, as `rig tui` starts it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from catalog.errors import CleanplateError
from rig.engine.devices import Stage
from rig.engine.process import LINGER_S, Engine
from rig.engine.signals import EndingSignals
from rig.errors import EngineError
from rig.profile import RigProfile
from rig.runtime import EngineAddress


def main() -> None:
    """Run an engine alone: ``python -m rig.engine --profile P --data D [--scene DIR]``.

    Prints one JSON line once it listens, then goes on without a terminal: its messages go to ``NAME.log`` beside the
    sockets.
    """
    options = _parse_options()
    with EndingSignals(_ended, last=True) as signals:
        profile = RigProfile.load(options.profile)
        engine = Engine(profile, data=options.data, stage=Stage(profile.name, options.scene))
        with signals.stopping(engine, farewell=engine.interruption, then=engine.over.set), engine:
            _announce(engine.address)
            engine.serve(linger_s=options.linger)


def _ended(by: str) -> EngineError:
    return EngineError(f"the engine was ended by {by} before it listened", next_step="start it again")


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rig.engine", description=main.__doc__)
    parser.add_argument("--profile", required=True, help="profile file, or the name of one that ships")
    parser.add_argument("--data", required=True, type=Path, help="data folder")
    parser.add_argument("--scene", type=Path, help="photographs for a simulated world")
    parser.add_argument("--linger", type=float, default=LINGER_S, help="seconds to stay without clients")
    return parser.parse_args()


def _announce(address: EngineAddress) -> None:
    ready = {"schema": 1, "name": address.name, "folder": str(address.folder), "pid": os.getpid()}
    print(json.dumps(ready), flush=True)  # noqa: T201
    log = os.open(
        address.folder / f"{address.name}.log",
        os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW,
        0o600,
    )
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    os.close(log)


if __name__ == "__main__":
    try:
        main()
    except CleanplateError as error:
        sys.stderr.write(f"error {error.code}: {error}\n")
        sys.exit(error.exit_code)
