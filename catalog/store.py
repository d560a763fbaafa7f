"""`Catalog`: everything that is remembered about sessions, pairs and exports, behind one object."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from catalog import decisions, rebuild, splits
from catalog.content_hash import content_hash
from catalog.coverage import Coverage, collect_coverage
from catalog.database import Database, DatabaseUrlError, open_database
from catalog.decisions import DecisionReport
from catalog.errors import CatalogError
from catalog.executors import open_executor
from catalog.export import Exporter, ExportReport
from catalog.export_formats import FORMATS
from catalog.export_list import ExportRequest
from catalog.export_shards import require_writer
from catalog.ingest import AddReport, write_session
from catalog.label_file import Label
from catalog.labels import LabelReport, label_pairs
from catalog.manifest import Split as Part
from catalog.pair_details import PairDetails, pair_details
from catalog.rebuild import RebuildReport
from catalog.sampling import draw_pairs
from catalog.selection import PairRow, find_pairs, pair_source, stream_columns
from catalog.session_content import read_session
from catalog.session_folder import SessionFolder
from catalog.splits import DEFAULT_SPLIT, SplitRule
from catalog.sqlite_database import SqliteDatabase
from catalog.statistics import Statistics, collect_statistics
from catalog.verify import Verifier, VerifyReport

CATALOG_FILE = "catalog.db"


def _ignore(_amount: float) -> None:
    """Take no notice of progress."""


class Catalog:
    """The catalog of one data folder.

    >>> with Catalog("cleanplate-data/catalog.db") as catalog:  # doctest: +SKIP
    ...     catalog.add("bookshelf-03-a")
    ...     sharp = catalog.find("role = internal and predicted_epe_px < 0.1")

    Args:
        url_or_path: Path of a SQLite file, ``sqlite:///path``, or ``postgresql://user@host/database``.
        data: The data folder; places of sessions inside it are stored relative to it. By default the
            folder of the SQLite file.

    Raises:
        DatabaseUrlError: The address is of a kind that this version does not serve.
    """

    def __init__(self, url_or_path: str | Path | Database, *, data: Path | None = None) -> None:
        opened = url_or_path if isinstance(url_or_path, Database) else open_database(url_or_path)
        self.database: Database = opened
        self.data = (data or _folder_of(self.database)).absolute()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    def init(self) -> bool:
        """Create the catalog unless it is there; returns whether it was created.

        Raises:
            SchemaVersionError: One is there, of another version.
            ForeignDatabaseError: Something else is there.
            FileSystemError: The folder lies on a network file system.
        """
        if self.database.state() != "absent":
            self.database.require_current()
            return False
        self.database.create()
        return True

    def migrate(self) -> str | None:
        """Bring an older schema up to date; returns the backup made before, None where nothing was to do.

        Raises:
            CatalogNotFoundError: There is no catalog.
            SchemaVersionError: It belongs to a newer version.
        """
        if self.database.state() != "old":
            self.database.require_current()
            return None
        backup = self.database.back_up(time.time_ns() // 1000)
        self.database.create()
        return backup

    def add(self, session: str | Path) -> AddReport:
        """Add a session folder, by its name in the data folder or by its path; any number of times is once.

        A session that was aligned again replaces its pairs; what people decided about them stays.

        Raises:
            SessionNotFoundError: No such session.
            SessionFolderError: The folder does not fit its schemas; nothing was changed.
            DamagedDataError: Journal or records are damaged; nothing was changed.
            CatalogNotFoundError: There is no catalog; see `init`.
        """
        self.database.require_current()
        content = read_session(SessionFolder.find(str(session), self.data))
        with self.database.write() as connection:
            report = write_session(connection, content, location=self._location(content.root))
            if report.outcome != "unchanged":
                self.database.analyze(connection)
        return report

    def find(
        self,
        where: str | None = None,
        *,
        order: str = "id",
        limit: int = 1_000,
        after: str | None = None,
        split: str = DEFAULT_SPLIT,
    ) -> list[PairRow]:
        """List a page of pairs.

        Args:
            where: A filter in the language of `catalog.query`; every pair by default.
            order: A column of `catalog.selection.ORDERS`, with ``-`` in front for downwards.
            limit: Pairs in the page.
            after: Name of the last pair of the page before.
            split: The split that ``split`` refers to.

        Raises:
            QueryError: The filter does not fit the language.
            OrderError: No such order, or ``after`` is not in the catalog.
            SplitError: No such split.
        """
        self.database.require_current()
        with self.database.read() as connection:
            source = pair_source(connection, split=split)
            return find_pairs(connection, source, where=where, order=order, limit=limit, after=after)

    def stream(
        self, names: Sequence[str], where: str | None = None, *, split: str = DEFAULT_SPLIT
    ) -> Iterator[tuple[Any, ...]]:
        """Yield some columns of every pair, however many there are, from one state of the catalog.

        >>> for uid, iso in catalog.stream(("id", "iso"), "class = noise"):  # doctest: +SKIP
        ...     print(uid, iso)

        Args:
            names: Names of the filter language; ``class`` stands for the degradations.
            where: A filter in the same language; every pair by default.
            split: The split that ``split`` refers to.

        Raises:
            ColumnError: There is no such column.
            QueryError: The filter does not fit the language.
            SplitError: No such split.
        """
        self.database.require_current()
        with self.database.read() as connection:
            source = pair_source(connection, split=split)
            yield from stream_columns(connection, source, names, where=where)

    def sample(
        self, of_each: int, where: str | None = None, *, seed: int = 0, split: str = DEFAULT_SPLIT
    ) -> list[PairRow]:
        """Draw accepted pairs, so many of each class, in an order that growth never reshuffles.

        Args:
            of_each: Pairs of each class, fewer where a class has fewer.
            where: A filter in the language of `catalog.query`.
            seed: Another seed draws other pairs; 0 draws those of an export's ``balance``.
            split: The split that ``split`` refers to.

        Returns:
            Pairs by class; within a class in the order drawn, so that its first ones are a smaller draw.

        Raises:
            SampleError: ``of_each`` is out of range.
            QueryError: The filter does not fit the language.
            SplitError: No such split.
        """
        self.database.require_current()
        with self.database.read() as connection:
            source = pair_source(connection, split=split)
            return draw_pairs(connection, source, where=where, of_each=of_each, seed=seed)

    def show(self, pair: str) -> PairDetails:
        """Return all that is known of a pair, back to the shutter release.

        Raises:
            PairNotFoundError: No pair of that name.
        """
        self.database.require_current()
        with self.database.read() as connection:
            return pair_details(connection, pair, data=self.data)

    def stats(self, where: str | None = None, *, split: str = DEFAULT_SPLIT) -> Statistics:
        """Count pairs by class, status, scene and reason; all of them, or those that pass a filter.

        Raises:
            QueryError: The filter does not fit the language.
            SplitError: No such split.
        """
        self.database.require_current()
        with self.database.read() as connection:
            return collect_statistics(connection, pair_source(connection, split=split), where=where)

    def coverage(self, where: str | None = None, *, split: str = DEFAULT_SPLIT) -> Coverage:
        """Count accepted pairs by degradation, level and scene; raises as `stats`."""
        self.database.require_current()
        with self.database.read() as connection:
            return collect_coverage(connection, pair_source(connection, split=split), where=where)

    def accept(self, pairs: Sequence[str], *, reason: str = "") -> DecisionReport:
        """Accept pairs by hand, whatever alignment said.

        Raises:
            PairNotFoundError: One of them is unknown; nothing was decided.
            NoImagesError: One of them has no images; nothing was decided.
        """
        self.database.require_current()
        with self.database.write() as connection:
            return decisions.decide(connection, pairs, "accepted", reason=reason)

    def reject(self, pairs: Sequence[str], *, reason: str = "") -> DecisionReport:
        """Reject pairs by hand; raises as `accept`."""
        self.database.require_current()
        with self.database.write() as connection:
            return decisions.decide(connection, pairs, "rejected", reason=reason)

    def undo(self, pairs: Sequence[str] = (), *, reason: str = "") -> DecisionReport:
        """Take back the last decision on each of some pairs, or the whole last command.

        Raises:
            NothingToUndoError: No decision is left to take back.
        """
        self.database.require_current()
        with self.database.write() as connection:
            return decisions.undo(connection, pairs, reason=reason)

    def label(
        self, labels: Iterable[tuple[int, Label]], *, reason: str = "", min_confidence: float = 0.0
    ) -> LabelReport:
        """Give pairs the classes that somebody saw or predicted; `undo` takes them back.

        Args:
            labels: With their line numbers, as `catalog.label_file.read_labels` yields them.
            reason: Why; kept with the events.
            min_confidence: Classifiers' labels below it are passed over.

        Raises:
            PairNotFoundError: A line names no pair of the catalog; nothing was labelled then.
        """
        self.database.require_current()
        with self.database.write() as connection:
            return label_pairs(connection, labels, reason=reason, min_confidence=min_confidence)

    def split(self, name: str, rule: SplitRule | None = None) -> dict[str, Part]:
        """Divide all scene groups into train, val and test; returns the part of each.

        Raises:
            SplitError: The name is taken, or the rule names a scene that is unknown.
        """
        self.database.require_current()
        with self.database.write() as connection:
            return splits.create_split(connection, name, rule or SplitRule())

    def export(
        self,
        request: ExportRequest,
        *,
        dry_run: bool = False,
        check: bool = False,
        restart: bool = False,
        workers: int | None = None,
        dask: str | None = None,
        advance: Callable[[float], None] = _ignore,
    ) -> ExportReport:
        """Write a training set to ``<data>/exports/<name>``, or finish an interrupted one.

        Args:
            request: What to export and how.
            dry_run: Only count; nothing is written.
            check: Compare the content of every file, not only its size.
            restart: Throw away what an interrupted export of that name left.
            workers: Processes that write shards and send files to a store; the number of processors unless given.
            dask: Address of a Dask scheduler whose workers do it instead.
            advance: Called with the number of pairs put in place since the last call.

        Raises:
            ExportExistsError: The folder is there; nothing is ever overwritten.
            EmptyExportError: No accepted pair passes the filter.
            ExportInterruptedError: An interrupted export of another request has that name.
            ExportBusyError: Another process is writing it.
            DamagedDataError: A file is missing or is not what was recorded.
            QueryError: The filter does not fit the language.
        """
        self.database.require_current()
        if dry_run:
            return Exporter(self.database, self.data, request).preview()
        with ExitStack() as stack:
            executor, kind = None, FORMATS[request.format](request.name).shards
            if kind is not None:
                require_writer(kind)
            if kind is not None or request.to is not None:
                executor = stack.enter_context(open_executor(workers=workers, dask=dask))
            exporter = Exporter(self.database, self.data, request, executor=executor)
            return exporter.run(check=check, restart=restart, advance=advance)

    def verify(
        self,
        session: str | None = None,
        *,
        budget_s: float | None = None,
        workers: int | None = 1,
        dask: str | None = None,
        advance: Callable[[float], None] = _ignore,
    ) -> VerifyReport:
        """Read files back and compare them with their recorded hashes, longest unseen first.

        Damage is stored and quarantines the pair until another look finds the file whole.

        Args:
            session: Look at this session only.
            budget_s: Stop after so many seconds; None for when everything was looked at.
            workers: Processes that read files; None for the number of processors.
            dask: Address of a Dask scheduler whose workers do it instead.
            advance: Called with the number of files looked at since the last call.

        Raises:
            SessionNotFoundError: No session of that name is in the catalog.
            DamagedDatabaseError: The database itself is damaged.
        """
        self.database.require_current()
        with open_executor(workers=workers, dask=dask) as executor:
            verifier = Verifier(self.database, self.data, session=session, executor=executor)
            return verifier.run(budget_s=budget_s, advance=advance)

    def rebuild(self) -> RebuildReport:
        """Make the catalog anew from the session folders; the old file is kept beside it.

        Decisions, splits and export lists are carried over where the old catalog can be read. Files are
        looked at as `add` does; `verify` compares their content.

        Raises:
            ForeignDatabaseError: The file is not a catalog.
            SchemaVersionError: It was written by a newer version.
        """
        old = self.database if rebuild.is_readable(self.database) else None
        twin = self.database.twin()
        with Catalog(twin, data=self.data) as new:
            new.init()
            if old is not None:
                rebuild.carry_over(old, new.database)
            added, problems = new._add_all(rebuild.session_places(old, self.data))
            after = new.content_hash()
        before = None if old is None else self.content_hash()
        return RebuildReport(
            sessions=tuple(added),
            problems=tuple(problems),
            carried_over=old is not None,
            content_sha256_before=before,
            content_sha256=after,
            backup=self.database.give_way(twin, time.time_ns() // 1000),
        )

    def _add_all(self, places: Sequence[Path]) -> tuple[list[str], list[str]]:
        added, problems = [], []
        for place in places:
            try:
                report = self.add(place)
            except CatalogError as error:
                problems.append(str(error))
                continue
            added.append(report.session)
            problems += [f"{report.session}: {problem}" for problem in report.problems]
        return added, problems

    def content_hash(self) -> str:
        """Hash all that session folders say; a catalog rebuilt from them gives the same."""
        self.database.require_current()
        with self.database.read() as connection:
            return content_hash(connection)

    def _location(self, root: Path) -> str:
        root = root.absolute()
        return root.relative_to(self.data).as_posix() if root.is_relative_to(self.data) else str(root)


def _folder_of(database: Database) -> Path:
    if isinstance(database, SqliteDatabase):
        return database.path.parent
    raise DatabaseUrlError(f"{database.name}: a catalog on a server needs to be told its data folder")
