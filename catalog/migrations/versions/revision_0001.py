"""Create the catalog: sessions and their pairs, observations of files, decisions, splits and exports."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

DEGRADATIONS = (
    "noise",
    "motion_blur",
    "defocus_blur",
    "gaussian_blur",
    "jpeg",
    "haze",
    "rain",
    "raindrop",
    "low_light",
    "snow",
    "moire",
    "flare",
    "reflection",
    "mosaic",
    "downsampling",
)
"""The vocabulary on the day of this revision; a place in it is a bit for ever."""


def upgrade() -> None:
    """Create every table, the vocabulary and the guard of the event log."""
    _create_degradations()
    _create_events()
    _create_exports()
    _create_scenes()
    _create_splits()
    _create_export_items()
    _create_pair_counts()
    _create_sessions()
    _create_split_members()
    _create_rounds()
    _create_takes()
    _create_pairs()
    _create_alignments()
    _create_assets()
    _create_pair_degradations()
    _create_pair_metrics()
    _fill_degradations()
    _guard_events()


def _text(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, TEXT, nullable=nullable)


def _integer(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Integer(), nullable=nullable)


def _long(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _real(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Double(), nullable=nullable)


def _owned_by(owner: str, table: str, column: str) -> sa.ForeignKeyConstraint:
    """Refer to a row that takes this one with it when it goes."""
    name = op.f(f"fk_{table}_{column}_{owner}")
    return sa.ForeignKeyConstraint([column], [f"{owner}.id"], name=name, ondelete="CASCADE")


def _create_degradations() -> None:
    op.create_table(
        "degradations",
        _integer("id"),
        _text("name"),
        _integer("bit"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_degradations")),
        sa.UniqueConstraint("bit", name=op.f("uq_degradations_bit")),
        sa.UniqueConstraint("name", name=op.f("uq_degradations_name")),
    )


def _create_events() -> None:
    op.create_table(
        "events",
        _integer("id"),
        _long("t_utc_us"),
        _text("actor"),
        _text("machine"),
        _text("kind"),
        _text("subject"),
        _text("session", nullable=True),
        _text("reason"),
        _text("before", nullable=True),
        _text("after", nullable=True),
        _text("batch"),
        _integer("undoes", nullable=True),
        sa.ForeignKeyConstraint(["undoes"], ["events.id"], name=op.f("fk_events_undoes_events")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("undoes", name=op.f("uq_events_undoes")),
    )
    op.create_index(op.f("ix_events_kind_t_utc_us"), "events", ["kind", "t_utc_us"])
    op.create_index(op.f("ix_events_session"), "events", ["session"])
    op.create_index(op.f("ix_events_subject_id"), "events", ["subject", "id"])


def _create_exports() -> None:
    op.create_table(
        "exports",
        _integer("id"),
        _text("name"),
        _text("state"),
        _text("request"),
        _text("request_sha256"),
        _text("catalog_sha256"),
        _text("manifest_sha256"),
        _integer("n_items"),
        _text("left_out"),
        _long("created_utc_us"),
        sa.CheckConstraint("state IN ('running', 'complete')", name=op.f("ck_exports_state_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exports")),
        sa.UniqueConstraint("name", name=op.f("uq_exports_name")),
    )


def _create_scenes() -> None:
    op.create_table(
        "scenes",
        _integer("id"),
        _text("name"),
        _text("group_key"),
        _text("part"),
        sa.CheckConstraint("part IN ('train', 'val', 'test')", name=op.f("ck_scenes_part_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scenes")),
        sa.UniqueConstraint("name", name=op.f("uq_scenes_name")),
    )
    op.create_index(op.f("ix_scenes_group_key"), "scenes", ["group_key"])


def _create_splits() -> None:
    op.create_table(
        "splits",
        _integer("id"),
        _text("name"),
        _long("seed"),
        _real("train"),
        _real("val"),
        _real("test"),
        _text("rule"),
        _text("rule_sha256"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_splits")),
        sa.UniqueConstraint("name", name=op.f("uq_splits_name")),
    )


def _create_export_items() -> None:
    op.create_table(
        "export_items",
        _integer("export_id"),
        _integer("ordinal"),
        _text("pair_uid"),
        _text("part"),
        _text("out_gt"),
        _text("out_lq"),
        _text("out_mask", nullable=True),
        _text("sha256_gt"),
        _text("sha256_lq"),
        _owned_by("exports", "export_items", "export_id"),
        sa.PrimaryKeyConstraint("export_id", "ordinal", name=op.f("pk_export_items")),
    )
    op.create_index(op.f("ix_export_items_pair_uid"), "export_items", ["pair_uid"])


def _create_pair_counts() -> None:
    op.create_table(
        "pair_counts",
        _integer("scene_id"),
        _text("degr_key"),
        _integer("iso"),
        _text("status"),
        _integer("n"),
        _owned_by("scenes", "pair_counts", "scene_id"),
        sa.PrimaryKeyConstraint("scene_id", "degr_key", "iso", "status", name=op.f("pk_pair_counts")),
    )


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        _integer("id"),
        _text("name"),
        _integer("scene_id"),
        _text("source"),
        _text("rig"),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        _long("created_utc_us"),
        _text("location"),
        _text("record"),
        _text("aligned_by", nullable=True),
        _text("fingerprint"),
        sa.ForeignKeyConstraint(["scene_id"], ["scenes.id"], name=op.f("fk_sessions_scene_id_scenes")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("name", name=op.f("uq_sessions_name")),
    )
    op.create_index(op.f("ix_sessions_scene_id"), "sessions", ["scene_id"])


def _create_split_members() -> None:
    op.create_table(
        "split_members",
        _integer("split_id"),
        _text("group_key"),
        _text("part"),
        sa.CheckConstraint("part IN ('train', 'val', 'test')", name=op.f("ck_split_members_part_known")),
        _owned_by("splits", "split_members", "split_id"),
        sa.PrimaryKeyConstraint("split_id", "group_key", name=op.f("pk_split_members")),
    )


def _create_rounds() -> None:
    op.create_table(
        "rounds",
        _integer("id"),
        _integer("session_id"),
        _integer("number"),
        _text("name"),
        _text("role"),
        _text("degr_key"),
        _text("settings"),
        _text("conditions"),
        sa.CheckConstraint("role IN ('gt', 'internal', 'external')", name=op.f("ck_rounds_role_known")),
        _owned_by("sessions", "rounds", "session_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rounds")),
        sa.UniqueConstraint("session_id", "name", name=op.f("uq_rounds_session_id_name")),
        sa.UniqueConstraint("session_id", "number", name=op.f("uq_rounds_session_id_number")),
    )


def _create_takes() -> None:
    op.create_table(
        "takes",
        _integer("id"),
        _integer("round_id"),
        _integer("number"),
        _text("state"),
        _text("reason"),
        _text("settings", nullable=True),
        sa.CheckConstraint("state IN ('valid', 'void', 'missing')", name=op.f("ck_takes_state_known")),
        _owned_by("rounds", "takes", "round_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_takes")),
        sa.UniqueConstraint("round_id", "number", name=op.f("uq_takes_round_id_number")),
    )


def _create_pairs() -> None:
    op.create_table(
        "pairs",
        _integer("id"),
        _text("uid"),
        _integer("session_id"),
        _integer("scene_id"),
        _integer("round_id"),
        *_frame_columns("gt"),
        *_frame_columns("lq"),
        _text("degr_key"),
        _integer("degr_mask"),
        _integer("n_degr"),
        _text("foundir_class", nullable=True),
        _integer("iso", nullable=True),
        _real("f_number", nullable=True),
        _real("exposure_s", nullable=True),
        _real("focus_m", nullable=True),
        _integer("width", nullable=True),
        _integer("height", nullable=True),
        sa.Column("gt_warped", sa.Boolean(), nullable=False),
        _real("residual_px", nullable=True),
        _real("predicted_epe_px", nullable=True),
        _real("position_gap_mm"),
        _real("mu", nullable=True),
        _real("sigma", nullable=True),
        _text("verdict"),
        _text("reasons"),
        _text("decision", nullable=True),
        _text("status"),
        _long("sample_key"),
        sa.CheckConstraint("decision IN ('accepted', 'rejected')", name=op.f("ck_pairs_decision_known")),
        sa.CheckConstraint(
            "status IN ('accepted', 'rejected', 'quarantined')", name=op.f("ck_pairs_status_known")
        ),
        sa.CheckConstraint("verdict IN ('accepted', 'rejected')", name=op.f("ck_pairs_verdict_known")),
        sa.CheckConstraint(
            "gt_take_id <> lq_take_id OR gt_frame_index <> lq_frame_index", name=op.f("ck_pairs_two_frames")
        ),
        _owned_by("takes", "pairs", "gt_take_id"),
        _owned_by("takes", "pairs", "lq_take_id"),
        _owned_by("rounds", "pairs", "round_id"),
        sa.ForeignKeyConstraint(["scene_id"], ["scenes.id"], name=op.f("fk_pairs_scene_id_scenes")),
        _owned_by("sessions", "pairs", "session_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pairs")),
        sa.UniqueConstraint("uid", name=op.f("uq_pairs_uid")),
    )
    _index_pairs()


def _frame_columns(side: str) -> tuple[sa.Column[Any], ...]:
    return (
        _integer(f"{side}_take_id"),
        _integer(f"{side}_frame_index"),
        _real(f"{side}_time_s"),
        _real(f"{side}_position_mm"),
    )


def _index_pairs() -> None:
    op.create_index(op.f("ix_pairs_degr_key_iso_scene_id_id"), "pairs", ["degr_key", "iso", "scene_id", "id"])
    op.create_index(
        op.f("ix_pairs_degr_key_status_sample_key"), "pairs", ["degr_key", "status", "sample_key"]
    )
    op.create_index(op.f("ix_pairs_gt_take_id"), "pairs", ["gt_take_id"])
    op.create_index(op.f("ix_pairs_lq_take_id"), "pairs", ["lq_take_id"])
    op.create_index(op.f("ix_pairs_round_id"), "pairs", ["round_id"])
    op.create_index(op.f("ix_pairs_scene_id_degr_key"), "pairs", ["scene_id", "degr_key"])
    op.create_index(op.f("ix_pairs_session_id"), "pairs", ["session_id"])


def _create_alignments() -> None:
    op.create_table(
        "alignments",
        _integer("pair_id"),
        _text("homography", nullable=True),
        _text("gt_from_pair", nullable=True),
        _text("lq_crop", nullable=True),
        _real("bound_px", nullable=True),
        _text("blur_kind"),
        _real("blur_size_px"),
        _text("evidence"),
        _owned_by("pairs", "alignments", "pair_id"),
        sa.PrimaryKeyConstraint("pair_id", name=op.f("pk_alignments")),
    )


def _create_assets() -> None:
    op.create_table(
        "assets",
        _integer("id"),
        _integer("session_id"),
        _integer("pair_id", nullable=True),
        _text("relpath"),
        _text("kind"),
        _text("sha256"),
        _long("nbytes", nullable=True),
        _text("state"),
        _long("verified_at_us", nullable=True),
        sa.CheckConstraint(
            "kind IN ('gt', 'lq', 'mask', 'capture', 'record', 'journal')", name=op.f("ck_assets_kind_known")
        ),
        sa.CheckConstraint(
            "state IN ('present', 'missing', 'quarantined')", name=op.f("ck_assets_state_known")
        ),
        sa.CheckConstraint("nbytes >= 0", name=op.f("ck_assets_nbytes_not_negative")),
        _owned_by("pairs", "assets", "pair_id"),
        _owned_by("sessions", "assets", "session_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assets")),
        sa.UniqueConstraint("session_id", "relpath", name=op.f("uq_assets_session_id_relpath")),
    )
    op.create_index(op.f("ix_assets_pair_id_kind"), "assets", ["pair_id", "kind"])
    op.create_index(op.f("ix_assets_sha256"), "assets", ["sha256"])
    op.create_index(op.f("ix_assets_verified_at_us"), "assets", ["verified_at_us"])


def _create_pair_degradations() -> None:
    op.create_table(
        "pair_degradations",
        _integer("pair_id"),
        _integer("degradation_id"),
        _text("level", nullable=True),
        _text("source"),
        sa.ForeignKeyConstraint(
            ["degradation_id"],
            ["degradations.id"],
            name=op.f("fk_pair_degradations_degradation_id_degradations"),
        ),
        _owned_by("pairs", "pair_degradations", "pair_id"),
        sa.PrimaryKeyConstraint("pair_id", "degradation_id", name=op.f("pk_pair_degradations")),
    )


def _create_pair_metrics() -> None:
    op.create_table(
        "pair_metrics",
        _integer("pair_id"),
        _text("name"),
        _real("value", nullable=True),
        _owned_by("pairs", "pair_metrics", "pair_id"),
        sa.PrimaryKeyConstraint("pair_id", "name", name=op.f("pk_pair_metrics")),
    )


def _fill_degradations() -> None:
    table = sa.table("degradations", sa.column("name", sa.Text), sa.column("bit", sa.Integer))
    op.bulk_insert(table, [{"name": name, "bit": bit} for bit, name in enumerate(DEGRADATIONS)])


def _guard_events() -> None:
    body = "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
    if op.get_bind().dialect.name == "postgresql":
        refuse = "BEGIN RAISE EXCEPTION 'events are append-only'; END"
        op.execute(
            f"CREATE FUNCTION refuse_event_change() RETURNS trigger LANGUAGE plpgsql AS $$ {refuse} $$"
        )
        body = "FOR EACH ROW EXECUTE FUNCTION refuse_event_change()"
    for action in ("UPDATE", "DELETE"):
        op.execute(f"CREATE TRIGGER events_refuse_{action.lower()} BEFORE {action} ON events {body}")
