"""What goes into an export: choose accepted pairs, read a frozen list back in order; `export_freeze` stores one."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    RowMapping,
    Select,
    and_,
    func,
    or_,
    select,
)

from catalog.errors import CatalogError, ExitCode
from catalog.export_formats import FORMATS, ExportFormat, FormatName, OutPaths, Placement
from catalog.manifest import ManifestRow
from catalog.manifest import Split as Part
from catalog.pair_rows import DEGRADATION_BITS
from catalog.records import Degradation, degradation_key
from catalog.selection import (
    DRAWN_IN_ORDER,
    PairSource,
    pair_source,
    pairs,
    rounds,
    scenes,
    sessions,
)
from catalog.splits import DEFAULT_SPLIT
from catalog.tables import Asset, Export, ExportItem, table_of
from catalog.tile_format import Codec

ROWS_AT_ONCE = 1_000
exports, items = table_of(Export), table_of(ExportItem)
gt_files, lq_files = table_of(Asset).alias("gt_files"), table_of(Asset).alias("lq_files")
mask_files = table_of(Asset).alias("mask_files")
_SIDES = {"gt": gt_files, "lq": lq_files, "mask": mask_files}


class EmptyExportError(CatalogError, ValueError):
    """No pair passes the filter."""

    code = "CAT-EXP-001"
    exit_code = ExitCode.INVALID_INPUT


class ExportNameError(CatalogError, ValueError):
    """An export's name would not be a safe folder name."""

    code = "CAT-EXP-005"
    exit_code = ExitCode.INVALID_INPUT


@dataclass(frozen=True)
class ExportRequest:
    """What an export is to hold.

    Raises:
        ExportNameError: The name would not be a safe folder name.
    """

    name: str
    format: FormatName = "folder"
    where: str | None = None
    split: str = DEFAULT_SPLIT
    balance: int | None = None
    """At most so many pairs of each class; None for all."""
    codec: Codec = "zstd"
    """Of the tiles of format ``crops``."""
    tile_px: int = 64
    """Side of these tiles."""
    to: str | None = None
    """URL of a store that receives it as ``<to>/<name>``; None for the data folder."""

    def __post_init__(self) -> None:
        if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", self.name) is None or self.name.endswith(".part"):
            raise ExportNameError(
                f"export name {self.name!r}: small letters, digits, '.', '_' and '-' only, at most 64",
                next_step="choose another name",
            )

    def as_text(self) -> str:
        """Render the request as canonical JSON."""
        fields: dict[str, Any] = {
            "format": self.format,
            "where": self.where,
            "split": self.split,
            "balance": self.balance,
        }
        if self.format == "crops":
            fields |= {"codec": self.codec, "tile_px": self.tile_px}
        if self.to is not None:
            fields["to"] = self.to
        return json.dumps({"name": self.name, **fields}, sort_keys=True)


@dataclass(frozen=True)
class ExportSource:
    """A file that goes into an export."""

    location: str
    """Session folder, relative to the data folder or absolute."""
    relpath: str
    sha256: str
    nbytes: int | None
    target: str
    """Relative to the export folder."""
    bare_sha256: str | None = None
    """Of the file without private metadata, where it carries any."""

    @property
    def exported_sha256(self) -> str:
        """Of the file that the export holds."""
        return self.bare_sha256 or self.sha256


@dataclass(frozen=True)
class ExportItemRow:
    """One pair of an export: what the manifest says and where its files come from."""

    row: ManifestRow
    sources: tuple[ExportSource, ...]


def manifest_line(row: ManifestRow) -> bytes:
    """Render a row exactly as `catalog.manifest.write_manifest` does."""
    return row.model_dump_json().encode() + b"\n"


def choose(connection: Connection, request: ExportRequest) -> Iterator[ExportItemRow]:
    """Yield the pairs that a request asks for now, in the order of the export."""
    source = pair_source(connection, split=request.split)
    layout = FORMATS[request.format](request.name)
    query = _with_files(source.table, source.columns["split"].label("part"))
    query = query.where(_is_chosen(connection, source, request)).order_by(*_order(layout, source))
    for ordinal, row in enumerate(_stream(connection, query), start=1):
        yield _item(row, layout.place(_placement(ordinal, row)))


def _order(layout: ExportFormat, source: PairSource) -> list[ColumnElement[Any]]:
    if layout.shards is not None:  # shuffled for good: who reads in order gets all classes mixed
        return [source.columns["split"], pairs.c.sample_key, pairs.c.uid]
    return [pairs.c.foundir_class, pairs.c.uid] if layout.by_foundir_class else [pairs.c.uid]


def _placement(ordinal: int, row: RowMapping) -> Placement:
    return Placement(
        ordinal,
        row["uid"],
        row["foundir_class"],
        suffix=PurePosixPath(row["lq_relpath"]).suffix,
        masked=row["mask_relpath"] is not None,
        part=row["part"],
        file_bytes=sum(row[f"{side}_nbytes"] or 0 for side in _SIDES),
        picture_bytes=row["width"] * row["height"] * 6,
    )


def frozen_items(connection: Connection, key: int) -> Generator[ExportItemRow]:
    """Yield the pairs of a frozen list in order; pairs that left the catalog since are passed over.

    To be closed where it is not read to the end: a server holds a cursor open for it.
    """
    source = pair_source(connection)
    table = source.table.join(items, items.c.pair_uid == pairs.c.uid)
    outs = (items.c.out_gt, items.c.out_lq, items.c.out_mask)
    query = _with_files(table, items.c.part.label("part"), *outs)
    query = query.where(items.c.export_id == key).order_by(items.c.ordinal)
    with closing(_stream(connection, query)) as rows:
        for row in rows:
            yield _item(row, OutPaths(row["out_gt"], row["out_lq"], row["out_mask"]))


class Tally:
    """Counts the pairs of an export by class and part as they pass."""

    def __init__(self) -> None:
        self._cells: Counter[tuple[str, Part]] = Counter()

    @classmethod
    def of(cls, chosen: Iterable[ExportItemRow]) -> Self:
        """Count all of some pairs."""
        tally = cls()
        for item in chosen:
            tally.add(item.row)
        return tally

    def add(self, row: ManifestRow) -> None:
        """Count one pair."""
        self._cells[degradation_key(row.degradations), row.split] += 1

    @property
    def pairs(self) -> int:
        """How many pairs have passed."""
        return self._cells.total()

    def classes(self) -> dict[str, dict[str, int]]:
        """Return the counts by class, then by part."""
        classes: dict[str, dict[str, int]] = {}
        for (name, part), count in sorted(self._cells.items()):
            classes.setdefault(name, {})[part] = count
        return classes


def left_out_counts(connection: Connection, request: ExportRequest) -> dict[str, int]:
    """Count the pairs that pass the filter but stay out, by reason."""
    source = pair_source(connection, split=request.split)
    passing = source.where(request.where)
    counted = select(pairs.c.status, func.count()).select_from(source.table).where(passing)
    by_status = {row[0]: row[1] for row in connection.execute(counted.group_by(pairs.c.status))}
    accepted = by_status.pop("accepted", 0)
    if FORMATS[request.format](request.name).by_foundir_class:
        classed = select(func.count()).select_from(source.table)
        classed = classed.where(passing, pairs.c.status == "accepted", pairs.c.foundir_class.is_not(None))
        count = connection.execute(classed).scalar_one()
        by_status["no FoundIR class"] = accepted - count
        accepted = count
    if request.balance is not None:
        chosen = select(func.count()).select_from(source.table).where(_is_chosen(connection, source, request))
        by_status["balance"] = accepted - connection.execute(chosen).scalar_one()
    return {reason: count for reason, count in sorted(by_status.items()) if count}


def _is_chosen(connection: Connection, source: PairSource, request: ExportRequest) -> ColumnElement[bool]:
    accepted = and_(source.where(request.where), pairs.c.status == "accepted")
    if FORMATS[request.format](request.name).by_foundir_class:
        accepted = and_(accepted, pairs.c.foundir_class.is_not(None))
    if request.balance is None:
        return accepted
    classes = connection.execute(select(pairs.c.degr_key).distinct()).scalars().all()
    capped = [
        select(pairs.c.id)
        .select_from(source.table)
        .where(accepted, pairs.c.degr_key == name)
        .order_by(*DRAWN_IN_ORDER)
        .limit(request.balance)
        for name in classes
    ]
    return or_(False, *(pairs.c.id.in_(chosen) for chosen in capped))


def _with_files(table: FromClause, *more: ColumnElement[Any]) -> Select[Any]:
    """Select what a manifest row and the places of its files need."""
    for side, files in _SIDES.items():
        of_pair = and_(files.c.pair_id == pairs.c.id, files.c.kind == side)
        table = table.join(files, of_pair, isouter=side == "mask")
    facts = [
        files.c[name].label(f"{side}_{name}")
        for side, files in _SIDES.items()
        for name in ("relpath", "sha256", "nbytes")
    ]
    names = (sessions.c.name.label("session"), scenes.c.name.label("scene"), rounds.c.name.label("round"))
    places = (sessions.c.location, sessions.c.source)
    return select(pairs, *names, *places, *facts, *more).select_from(table)


def _stream(connection: Connection, query: Select[Any]) -> Generator[RowMapping]:
    with connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}) as result:
        yield from result.mappings()


def _item(row: RowMapping, outs: OutPaths) -> ExportItemRow:
    targets = {"gt": outs.gt, "lq": outs.lq, "mask": outs.mask}
    sources = [
        ExportSource(
            row["location"], row[f"{side}_relpath"], row[f"{side}_sha256"], row[f"{side}_nbytes"], target
        )
        for side, target in targets.items()
        if target is not None
    ]
    return ExportItemRow(_manifest_row(row, outs), tuple(sources))


def _manifest_row(row: RowMapping, outs: OutPaths) -> ManifestRow:
    settings = {name: row[name] for name in ("iso", "f_number", "exposure_s", "focus_m")}
    same = ("scene", "session", "round", "foundir_class", "mu", "sigma", "residual_px", "predicted_epe_px")
    return ManifestRow(
        id=row["uid"],
        gt=outs.gt,
        lq=outs.lq,
        mask=outs.mask,
        degradations=tuple(d for d in Degradation if row["degr_mask"] & DEGRADATION_BITS[d]),
        settings={name: value for name, value in settings.items() if value is not None},
        split=row["part"],
        width=row["width"],
        height=row["height"],
        sha256_gt=row["gt_sha256"],
        sha256_lq=row["lq_sha256"],
        source=row["source"],
        **{name: row[name] for name in same},
    )
