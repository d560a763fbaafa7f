"""The report's terms and values: devices, what the alignment rests on, its parameters, versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignment.report_source import ReportSource
from alignment.report_words import NOTHING, number, utc_time, with_unit
from catalog.journal import JournalRow


@dataclass(frozen=True)
class Fact:
    """A term and its value."""

    term: str
    value: str


def device_facts(source: ReportSource) -> tuple[Fact, ...]:
    """Say with what the session was recorded."""
    record = source.record
    lens = record.lens
    facts = [
        Fact("rig", f"{record.rig}{' (simulated)' if record.simulated else ''}"),
        Fact("recorded", f"{utc_time(record.created_utc_us)}, {record.source}"),
        *_rail_facts(source.journal.rows),
        *_camera_facts(source),
        Fact(
            "lens",
            f"{lens.focal_mm:g} mm on {lens.sensor_width_mm:g} mm, scene {lens.scene_depth_mm[0]:g} to "
            f"{lens.scene_depth_mm[1]:g} mm away"
            if lens
            else NOTHING,
        ),
        Fact("calibration", record.calibration or "none"),
        *(
            Fact(
                f"board {i}",
                f"{b.columns} × {b.rows} squares of {b.square_mm:g} mm, markers {b.marker_mm:g} mm, "
                f"{b.dictionary} from {b.first_id}",
            )
            for i, b in enumerate(record.boards, start=1)
        ),
    ]
    return tuple(facts)


def _rail_facts(rows: Sequence[JournalRow]) -> list[Fact]:
    names = dict.fromkeys(str(r.get("rail")) for r in rows if r.kind == "devices" and r.get("rail"))
    return [Fact("rail", name) for name in names]


def _camera_facts(source: ReportSource) -> list[Fact]:
    bodies = dict.fromkeys(
        (
            name,
            f"{c.model or 'model unknown'}, serial {c.serial or 'unknown'}, {c.width} × {c.height} px {c.kind}",
            f"matrix {c.colour.matrix}, range {c.colour.range}, transfer {c.colour.transfer}",
        )
        for r in source.rounds
        if r.valid and r.valid.record
        for name, c in r.valid.record.cameras.items()
    )
    return [
        f for name, body, colour in bodies for f in (Fact(f"camera {name}", body), Fact("colour", colour))
    ]


def alignment_facts(source: ReportSource) -> tuple[Fact, ...]:
    """Say what the alignment rests on."""
    alignment = source.alignment
    if alignment is None:
        return ()
    disparity = alignment.disparity_px_per_mm
    return (
        Fact("focal length", f"{with_unit(alignment.focal_px, 1, 'px')} (from {alignment.focal_source})"),
        Fact("scale at the board", with_unit(alignment.px_per_mm, 4, "px/mm")),
        Fact("tone curve", alignment.tone_curve),
        Fact(
            "picture motion",
            f"{number(disparity[0], 4)} to {number(disparity[1], 4)} px per mm of travel"
            if disparity
            else NOTHING,
        ),
        Fact("parallax limit", with_unit(alignment.position_limit_mm, 3, "mm")),
    )


def parameter_facts(source: ReportSource) -> tuple[Fact, ...]:
    """List thresholds and parameters of the alignment."""
    parameters = source.alignment.parameters if source.alignment else {}
    return tuple(Fact(name.replace("_", " "), _plain_value(value)) for name, value in parameters.items())


def _plain_value(value: float | str | bool) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def version_facts(versions: Mapping[str, str]) -> tuple[Fact, ...]:
    """List versions by name."""
    return tuple(Fact(name, version) for name, version in sorted(versions.items()))
