"""Run a session in an engine of this process: what `rig record` does, for scripts too."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from catalog.session_folder import SessionFolder
from rig.control import Operator, Unattended
from rig.engine.cards import Bystander
from rig.engine.process import Engine
from rig.engine.session import SessionOrder
from rig.engine.signals import EndingSignals
from rig.errors import NotArmedError
from rig.events import AnyEvent
from rig.plan import CapturePlan
from rig.profile import RigProfile


def record_plan(
    plan: CapturePlan,
    profile: RigProfile,
    *,
    data: Path,
    emit: Callable[[AnyEvent], None],
    photos: Path | None = None,
    operator: Operator | Bystander | None = None,
    signals: EndingSignals | None = None,
    calibration: str | None = None,
) -> Path:
    """Record a whole plan as a new session; meanwhile clients may watch it, steer it and stop it.

    Args:
        plan: What to record.
        profile: The rig to record it with.
        data: Data folder; the session appears in its ``sessions`` folder.
        emit: Receives every event, one at a time, from several threads.
        photos: Photographs for a simulated world, None for the bundled ones.
        operator: Answers cards; by default nobody does, and one that needs a person ends the session.
        signals: What this process does with signals already; by default they mean stops while the session runs.
        calibration: Hash or path of the calibration that the session names; by default the rig's newest.

    Returns:
        The session's folder.

    Raises:
        EnvelopeError, PlanError: The plan violates a limit of the rig; nothing has moved.
        DiskSpaceError: The forecast does not fit on the disk; nothing has moved.
        RigBusyError: Another engine runs this rig.
        SessionInterruptedError: Left resumable.
    """
    order = SessionOrder.new(plan, profile, data=data, photos=photos, calibration=calibration)
    return _record(order, data=data, emit=emit, operator=operator, signals=signals)


def resume_session(
    folder: SessionFolder,
    *,
    data: Path,
    emit: Callable[[AnyEvent], None],
    operator: Operator | Bystander | None = None,
    signals: EndingSignals | None = None,
) -> Path:
    """Record what a session still lacks, with the plan and profile it was started with. Raises as `record_plan`."""
    order = SessionOrder.resume(folder)
    return _record(order, data=data, emit=emit, operator=operator, signals=signals)


def _record(
    order: SessionOrder,
    *,
    data: Path,
    emit: Callable[[AnyEvent], None],
    operator: Operator | Bystander | None,
    signals: EndingSignals | None,
) -> Path:
    engine = Engine(
        order.profile,
        data=data,
        stage=order.stage,
        watch=emit,
        operator=operator or Unattended(),
        attended=True,
    )
    engine.expect(order)
    with ExitStack() as stack:
        signals = signals or stack.enter_context(EndingSignals(engine.interruption))
        stack.enter_context(signals.stopping(engine, farewell=engine.interruption))
        stack.enter_context(engine)
        return engine.record(order)


def require_armed(
    profile: RigProfile, arm: str | None, *, interactive: bool, prompt: Callable[[str], str]
) -> None:
    """Make sure that motion on a real rig was asked for twice: by the command and by a word.

    Raises:
        NotArmedError: The word was not given; nothing has moved.
    """
    if profile.simulated or arm == profile.name:
        return
    if arm is not None or not interactive:
        raise NotArmedError(
            f"rig '{profile.name}' is real and was not armed",
            kept="nothing has moved",
            next_step=f"run on a terminal and type MOVE, or give --arm {profile.name}",
        )
    if prompt(f"The carriage of '{profile.name}' will move. Type MOVE to go on").strip() != "MOVE":
        raise NotArmedError("the word MOVE was not given", kept="nothing has moved")
