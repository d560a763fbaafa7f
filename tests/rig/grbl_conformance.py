"""What the checks of GRBL 1.1h (20190830) over a real port begin with; ``test_grbl_conformance_*.py`` are the list.

Each docstring there says where in the firmware the behaviour comes from. The list needs an X switch 10 mm below where
the carriage starts and 100 mm free above it, and nothing else: CLEANPLATE_GRBL_PORT=/dev/ttyUSB0 runs it on a real
controller. It writes settings.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from grbl_stranger import BANNER, Stranger, served

BENCH = {
    0: 10,
    1: 255,
    3: 0,
    5: 0,
    6: 0,
    10: 3,
    11: 0.01,
    12: 0.002,
    13: 0,
    20: 0,
    21: 0,
    22: 1,
    23: 1,
    24: 1200,
    25: 3000,
    26: 25,
    27: 2,
    30: 1000,
    31: 0,
    32: 0,
    100: 50,
    110: 7200,
    120: 200,
    130: 400,
}


@pytest.fixture(scope="module")
def opened() -> Iterator[Stranger]:
    with served() as path:
        stranger = Stranger(path)
        stranger.until(lambda lines: BANNER in lines)
        stranger.for_a_while(0.1)
        stranger.tell(*(f"${number}={value}" for number, value in BENCH.items()))
        yield stranger
        stranger.close()


@pytest.fixture
def rail(opened: Stranger) -> Stranger:
    """At rest, unlocked, modes as after a reset; the position is whatever it was."""
    opened.calm()
    return opened


@pytest.fixture
def parser(opened: Stranger) -> Stranger:
    """The same for lines that change nothing: once is enough for many of them."""
    if not opened.fresh:
        opened.calm()
        opened.fresh = True
    return opened


@pytest.fixture
def homed(opened: Stranger) -> Iterator[Stranger]:
    """At -398 with soft and hard limits on; both off again afterwards."""
    opened.home()
    opened.fresh = False
    opened.tell("$20=1", "$21=1")
    yield opened
    opened.calm()
    opened.tell("$20=0", "$21=0")
