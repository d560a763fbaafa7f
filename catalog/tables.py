"""The catalog's tables, as SQLAlchemy sees them; `migrations` creates them.

Three kinds of rows, kept apart on purpose:

- what session folders say (scenes to pairs): replaced whole when a session is added again, and the same
  after a rebuild;
- what was found on disk (`Asset.state`, `Asset.verified_at_us`): observation, never content;
- what people decided (events, splits, exports): refers to pairs and scenes by name, so that it survives
  both.

Integer keys are local to one database. Anything another file or machine may name carries a text name:
a pair's is ``<session>/<pair>``.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that sorts by code point on every database: paging and hashes depend on the order."""


class Base(DeclarativeBase):
    """Common metadata; every constraint has a name, so that migrations can drop it on any database."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {str: TEXT}


def table_of(entity: type[Base]) -> Table:
    """Return the table behind a mapped class, for bulk statements."""
    table = entity.__table__
    if not isinstance(table, Table):
        raise TypeError(f"{entity.__name__} is not mapped to a plain table")
    return table


def _owned_by(column: str) -> ForeignKey:
    return ForeignKey(column, ondelete="CASCADE")


class Scene(Base):
    """A place that was recorded; scenes of one ``group_key`` always share a split."""

    __tablename__ = "scenes"
    __table_args__ = (CheckConstraint("part IN ('train', 'val', 'test')", name="part_known"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    group_key: Mapped[str] = mapped_column(index=True)
    part: Mapped[str]
    """Part of the default split: a hash of ``group_key``, fixed for ever."""


class Session(Base):
    """One session folder."""

    __tablename__ = "sessions"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    scene_id: Mapped[int] = mapped_column(ForeignKey("scenes.id"), index=True)
    source: Mapped[str]
    rig: Mapped[str]
    simulated: Mapped[bool]
    created_utc_us: Mapped[int] = mapped_column(BigInteger)
    location: Mapped[str]
    """Folder, relative to the data folder where it lies inside, else absolute."""
    record: Mapped[str]
    """`session.json` as it was read: plan, profile and versions."""
    aligned_by: Mapped[str | None]
    """Versions from `alignment.json` as JSON; None before alignment."""
    fingerprint: Mapped[str]
    """sha256 over everything that was read; equal means there is nothing to do."""


class Round(Base):
    """A round as planned."""

    __tablename__ = "rounds"
    __table_args__ = (
        UniqueConstraint("session_id", "number"),
        UniqueConstraint("session_id", "name"),
        CheckConstraint("role IN ('gt', 'internal', 'external')", name="role_known"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[int] = mapped_column(_owned_by("sessions.id"))
    number: Mapped[int]
    name: Mapped[str]
    role: Mapped[str]
    degr_key: Mapped[str]
    settings: Mapped[str]
    """Settings asked for, JSON."""
    conditions: Mapped[str]
    """External conditions and their levels, JSON."""


class Take(Base):
    """One execution of a round."""

    __tablename__ = "takes"
    __table_args__ = (
        UniqueConstraint("round_id", "number"),
        CheckConstraint("state IN ('valid', 'void', 'missing')", name="state_known"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    round_id: Mapped[int] = mapped_column(_owned_by("rounds.id"))
    number: Mapped[int]
    state: Mapped[str]
    reason: Mapped[str]
    settings: Mapped[str | None]
    """Settings as read back from the camera, JSON; None where nothing was recorded."""


class Pair(Base):
    """A candidate pair; what exports filter on stands here as plain columns."""

    __tablename__ = "pairs"
    __table_args__ = (
        CheckConstraint("gt_take_id <> lq_take_id OR gt_frame_index <> lq_frame_index", name="two_frames"),
        CheckConstraint("verdict IN ('accepted', 'rejected')", name="verdict_known"),
        CheckConstraint("decision IN ('accepted', 'rejected')", name="decision_known"),
        CheckConstraint("status IN ('accepted', 'rejected', 'quarantined')", name="status_known"),
        Index(None, "degr_key", "iso", "status", "scene_id", "id"),
        Index(None, "scene_id", "degr_key"),
        Index(None, "degr_key", "status", "sample_key"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(unique=True)
    session_id: Mapped[int] = mapped_column(_owned_by("sessions.id"), index=True)
    scene_id: Mapped[int] = mapped_column(ForeignKey("scenes.id"))
    round_id: Mapped[int] = mapped_column(_owned_by("rounds.id"), index=True)
    """The degraded frame's round."""
    gt_take_id: Mapped[int] = mapped_column(_owned_by("takes.id"), index=True)
    gt_frame_index: Mapped[int]
    gt_time_s: Mapped[float]
    gt_position_mm: Mapped[float]
    lq_take_id: Mapped[int] = mapped_column(_owned_by("takes.id"), index=True)
    lq_frame_index: Mapped[int]
    lq_time_s: Mapped[float]
    lq_position_mm: Mapped[float]
    degr_key: Mapped[str]
    """Sorted degradation names joined by ``+``: the class."""
    degr_mask: Mapped[int]
    """One bit per degradation (`DegradationName.bit`)."""
    n_degr: Mapped[int]
    foundir_class: Mapped[str | None]
    iso: Mapped[int | None]
    f_number: Mapped[float | None]
    exposure_s: Mapped[float | None]
    focus_m: Mapped[float | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    gt_warped: Mapped[bool]
    residual_px: Mapped[float | None]
    predicted_epe_px: Mapped[float | None]
    position_gap_mm: Mapped[float]
    mu: Mapped[float | None]
    sigma: Mapped[float | None]
    verdict: Mapped[str]
    """What alignment said."""
    reasons: Mapped[str]
    """Reject reasons joined by a comma."""
    decision: Mapped[str | None]
    """What a person said, None where nobody did; a cache of the events."""
    status: Mapped[str]
    """What counts: quarantined if a file is damaged or gone, else the decision, else the verdict."""
    sample_key: Mapped[int] = mapped_column(BigInteger)
    """First 63 bits of sha256(uid): an order that new pairs never reshuffle."""


class Asset(Base):
    """A file whose content is known."""

    __tablename__ = "assets"
    __table_args__ = (
        UniqueConstraint("session_id", "relpath"),
        Index(None, "pair_id", "kind"),
        CheckConstraint("kind IN ('gt', 'lq', 'mask', 'capture', 'record', 'journal')", name="kind_known"),
        CheckConstraint("state IN ('present', 'missing', 'quarantined')", name="state_known"),
        CheckConstraint("nbytes >= 0", name="nbytes_not_negative"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[int] = mapped_column(_owned_by("sessions.id"))
    pair_id: Mapped[int | None] = mapped_column(_owned_by("pairs.id"))
    relpath: Mapped[str]
    """Relative to the session folder."""
    kind: Mapped[str]
    sha256: Mapped[str] = mapped_column(index=True)
    nbytes: Mapped[int | None] = mapped_column(BigInteger)
    """Size when it was recorded or first seen; None until then."""
    state: Mapped[str]
    verified_at_us: Mapped[int | None] = mapped_column(BigInteger, index=True)
    """When its content was last compared, UTC; None for never."""


class Alignment(Base):
    """The evidence of a pair that nobody filters on."""

    __tablename__ = "alignments"

    pair_id: Mapped[int] = mapped_column(_owned_by("pairs.id"), primary_key=True)
    homography: Mapped[str | None]
    """3 x 3 JSON, GT frame pixel to LQ frame pixel, as measured."""
    gt_from_pair: Mapped[str | None]
    """3 x 3 JSON, pixel of the written pair to GT frame pixel."""
    lq_crop: Mapped[str | None]
    """x, y, width, height in the LQ frame, JSON."""
    bound_px: Mapped[float | None]
    blur_kind: Mapped[str]
    blur_size_px: Mapped[float]
    evidence: Mapped[str]
    """What the pair rests on, joined by a comma."""


class PairMetric(Base):
    """A gate's measured value."""

    __tablename__ = "pair_metrics"
    __table_args__ = (PrimaryKeyConstraint("pair_id", "name"),)

    pair_id: Mapped[int] = mapped_column(_owned_by("pairs.id"))
    name: Mapped[str]
    value: Mapped[float | None]


class DegradationName(Base):
    """The vocabulary and its fixed bits."""

    __tablename__ = "degradations"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    bit: Mapped[int] = mapped_column(unique=True)


class PairDegradation(Base):
    """One thing that was made worse in a pair."""

    __tablename__ = "pair_degradations"
    __table_args__ = (PrimaryKeyConstraint("pair_id", "degradation_id"),)

    pair_id: Mapped[int] = mapped_column(_owned_by("pairs.id"))
    degradation_id: Mapped[int] = mapped_column(ForeignKey("degradations.id"))
    level: Mapped[str | None]
    """Level of the external condition of that name, None where there is none."""
    source: Mapped[str]
    """``planned``: it stands in the plan."""


class PairCount(Base):
    """How many pairs of each kind a round gave, kept in the transaction that changes them."""

    __tablename__ = "pair_counts"
    __table_args__ = (PrimaryKeyConstraint("round_id", "degr_key", "iso", "status", "reasons"),)

    round_id: Mapped[int] = mapped_column(_owned_by("rounds.id"))
    degr_key: Mapped[str]
    iso: Mapped[int]
    """0 where the ISO is not known."""
    status: Mapped[str]
    reasons: Mapped[str]
    n: Mapped[int]


class FileCount(Base):
    """How many files of a session are in each state, kept like `PairCount`."""

    __tablename__ = "file_counts"
    __table_args__ = (PrimaryKeyConstraint("session_id", "state"),)

    session_id: Mapped[int] = mapped_column(_owned_by("sessions.id"))
    state: Mapped[str]
    n: Mapped[int]


class Split(Base):
    """A named division of scene groups; fixed once made, extended by new groups."""

    __tablename__ = "splits"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    seed: Mapped[int] = mapped_column(BigInteger)
    train: Mapped[float]
    val: Mapped[float]
    test: Mapped[float]
    rule: Mapped[str]
    """What was asked, readable."""
    rule_sha256: Mapped[str]


class SplitMember(Base):
    """The part of one scene group: the key allows one part per split, so no scene can leak."""

    __tablename__ = "split_members"
    __table_args__ = (
        PrimaryKeyConstraint("split_id", "group_key"),
        CheckConstraint("part IN ('train', 'val', 'test')", name="part_known"),
    )

    split_id: Mapped[int] = mapped_column(_owned_by("splits.id"))
    group_key: Mapped[str]
    part: Mapped[str]


class Export(Base):
    """A frozen list of pairs and what became of it."""

    __tablename__ = "exports"
    __table_args__ = (CheckConstraint("state IN ('running', 'complete')", name="state_known"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    state: Mapped[str]
    request: Mapped[str]
    """The resolved request as canonical JSON."""
    request_sha256: Mapped[str]
    catalog_sha256: Mapped[str]
    """`Catalog.content_hash` when the list was frozen."""
    manifest_sha256: Mapped[str]
    n_items: Mapped[int]
    left_out: Mapped[str]
    """Pairs that passed the filter but stayed out, by reason, JSON."""
    created_utc_us: Mapped[int] = mapped_column(BigInteger)


class ExportItem(Base):
    """One pair of an export, by name: it outlives the pair's row."""

    __tablename__ = "export_items"
    __table_args__ = (PrimaryKeyConstraint("export_id", "ordinal"),)

    export_id: Mapped[int] = mapped_column(_owned_by("exports.id"))
    ordinal: Mapped[int]
    pair_uid: Mapped[str] = mapped_column(index=True)
    part: Mapped[str]
    out_gt: Mapped[str]
    out_lq: Mapped[str]
    out_mask: Mapped[str | None]
    sha256_gt: Mapped[str]
    sha256_lq: Mapped[str]


class Event(Base):
    """Who did what and why; a trigger refuses to change or remove a row."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "kind", "t_utc_us"), Index(None, "subject", "id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    t_utc_us: Mapped[int] = mapped_column(BigInteger)
    actor: Mapped[str]
    machine: Mapped[str]
    kind: Mapped[str]
    subject: Mapped[str]
    """Name of the pair, session, split or export."""
    session: Mapped[str | None] = mapped_column(index=True)
    reason: Mapped[str]
    before: Mapped[str | None]
    after: Mapped[str | None]
    batch: Mapped[str]
    """Shared by the rows of one command."""
    undoes: Mapped[int | None] = mapped_column(ForeignKey("events.id"), unique=True)
    """The decision that this event takes back; nothing can be taken back twice."""
