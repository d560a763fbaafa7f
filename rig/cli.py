"""The command `rig`: plan, check, record and simulate capture sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from catalog.console import Console, keep_to_one_blas_thread, run_app, verb

app = typer.Typer(
    help="Drive the capture rig and record sessions.", no_args_is_help=True, pretty_exceptions_enable=False
)

PlanArgument = Annotated[Path, typer.Argument(help="Plan file (YAML).", show_default=False)]
ProfileOption = Annotated[str, typer.Option("--profile", help="Profile file, or the name of one that ships.")]
ArmOption = Annotated[str | None, typer.Option("--arm", help="Name of a real rig that may move.")]
SceneOption = Annotated[
    Path | None, typer.Option("--scene", help="Folder of photographs for the simulated world.")
]
CalibrationOption = Annotated[
    str | None,
    typer.Option(
        "--calibration", help="Hash or file of the calibration to use.", show_default="the rig's newest"
    ),
]


@verb(app)
def plan(
    console: Console,
    plan: PlanArgument,
    profile: ProfileOption,
    calibration: CalibrationOption = None,
) -> None:
    """Dry run: rounds, travel, time, blur, noise, frames, pairs, disk space and every limit violation."""
    from rig.commands import show_plan

    show_plan(console, plan, profile, calibration=calibration)


@verb(app)
def record(
    console: Console,
    plan: Annotated[Path | None, typer.Argument(help="Plan file (YAML).", show_default=False)] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Profile file, or the name of one that ships.")
    ] = None,
    session: Annotated[str | None, typer.Option("--session", help="Resume this session instead.")] = None,
    arm: ArmOption = None,
    yes_conditions: Annotated[
        bool, typer.Option("--yes-conditions", help="External conditions are set; ask nobody.")
    ] = False,
    scene: SceneOption = None,
    calibration: CalibrationOption = None,
) -> None:
    """Run a session, or resume one with --session; prints its id and folder."""
    from rig.commands import resume, run_plan

    if session is not None and plan is None:
        resume(console, session, arm=arm, yes_conditions=yes_conditions)
    elif plan is not None and profile is not None and session is None:
        run_plan(
            console,
            plan,
            profile,
            arm=arm,
            yes_conditions=yes_conditions,
            photos=scene,
            calibration=calibration,
        )
    else:
        raise typer.BadParameter("give PLAN and --profile, or --session alone")


@verb(app)
def home(
    console: Console,
    profile: ProfileOption,
    arm: ArmOption = None,
) -> None:
    """Find the home switch, through the rig's engine where one runs."""
    from rig.commands import home_rig

    home_rig(console, profile, arm=arm)


@verb(app, takes_negative=True)
def jog(
    console: Console,
    distance_mm: Annotated[float, typer.Argument(help="How far, mm; below 0 towards the home switch.")],
    profile: ProfileOption,
    speed_mm_s: Annotated[float, typer.Option("--speed", help="mm/s; at most 5 while not homed.")] = 5.0,
    arm: ArmOption = None,
) -> None:
    """Move the carriage a little; Ctrl-C stops it."""
    from rig.commands import jog_rig

    jog_rig(console, profile, distance_mm, velocity_mm_s=speed_mm_s, arm=arm)


@verb(app)
def stop(
    console: Console,
    profile: Annotated[
        str | None, typer.Option("--profile", help="This rig alone, with or without an engine.")
    ] = None,
    emergency: Annotated[
        bool, typer.Option("--emergency", help="Reset the controller as well; homing is needed afterwards.")
    ] = False,
) -> None:
    """Stop what moves, on every rig of this user or on one; always allowed."""
    from rig.commands import stop_rigs

    stop_rigs(console, profile, emergency=emergency)


@verb(app)
def devices(
    console: Console,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=1, help="Longest wait for a kind of device, s.")
    ] = 20,
) -> None:
    """List what is connected by addresses that survive replugging, running engines, and the profiles that ship."""
    from rig.commands import list_devices

    raise typer.Exit(list_devices(console, timeout_s=timeout_s))


@verb(app)
def check(
    console: Console,
    profile: Annotated[str, typer.Argument(help="Profile file, or the name of one that ships.")],
    arm: Annotated[str | None, typer.Option("--arm", help="Name of a real rig; it will home.")] = None,
    scene: SceneOption = None,
) -> None:
    """Open everything together, read settings back, check disk, clock, limits and markers in view."""
    from rig.commands import check_rig

    raise typer.Exit(check_rig(console, profile, arm=arm, photos=scene))


@verb(app)
def simulate(
    console: Console,
    profile: ProfileOption = "sim",
    scene: SceneOption = None,
) -> None:
    """Serve a simulated rail and camera in real time for other programs, until SIGTERM."""
    from rig.commands import serve_simulation

    serve_simulation(console, profile, photos=scene)


@verb(app, "import")
def import_(
    console: Console,
    folder: Annotated[Path, typer.Argument(help="Folder with session.yaml and the recordings.")],
) -> None:
    """Make a session from recordings made elsewhere; prints its id and folder."""
    from rig.commands import import_recordings

    import_recordings(console, folder)


@verb(app)
def tui(
    console: Console,
    profile: ProfileOption = "sim",
    plain: Annotated[
        bool, typer.Option("--plain", help="Line by line: for screen readers, logs, scripts.")
    ] = False,
    scene: SceneOption = None,
) -> None:
    """Open the operator's terminal UI; attaches to the rig's engine, or starts one."""
    from rig.commands import open_tui

    raise typer.Exit(open_tui(console, profile, photos=scene, plain=plain))


@verb(app, "help")
def help_(
    console: Console,
    code: Annotated[
        str | None,
        typer.Argument(
            help="Code as an error line shows it, e.g. RIG-DEV-002, or a check of a take, e.g. travel.",
            show_default="lists all of them",
        ),
    ] = None,
) -> None:
    """Explain an error code of any of the four commands, or a check of a take, and how to mend it."""
    from rig.help_pages import explain, list_all

    if code is None:
        list_all(console)
    else:
        explain(console, code)


def main() -> None:
    """Run the command."""
    keep_to_one_blas_thread()
    run_app(app)


if __name__ == "__main__":
    main()
