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


def _create_degradations() -> None:
    op.create_table(
        "degradations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("bit", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_degradations")),
        sa.UniqueConstraint("bit", name=op.f("uq_degradations_bit")),
        sa.UniqueConstraint("name", name=op.f("uq_degradations_name")),
    )


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("t_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("machine", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("session", TEXT, nullable=True),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("before", TEXT, nullable=True),
        sa.Column("after", TEXT, nullable=True),
        sa.Column("batch", TEXT, nullable=False),
        sa.Column("undoes", sa.Integer(), nullable=True),
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
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("request", TEXT, nullable=False),
        sa.Column("request_sha256", TEXT, nullable=False),
        sa.Column("catalog_sha256", TEXT, nullable=False),
        sa.Column("manifest_sha256", TEXT, nullable=False),
        sa.Column("n_items", sa.Integer(), nullable=False),
        sa.Column("left_out", TEXT, nullable=False),
        sa.Column("created_utc_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('running', 'complete')", name=op.f("ck_exports_state_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exports")),
        sa.UniqueConstraint("name", name=op.f("uq_exports_name")),
    )


def _create_scenes() -> None:
    op.create_table(
        "scenes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("group_key", TEXT, nullable=False),
        sa.Column("part", TEXT, nullable=False),
        sa.CheckConstraint("part IN ('train', 'val', 'test')", name=op.f("ck_scenes_part_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scenes")),
        sa.UniqueConstraint("name", name=op.f("uq_scenes_name")),
    )
    op.create_index(op.f("ix_scenes_group_key"), "scenes", ["group_key"])


def _create_splits() -> None:
    op.create_table(
        "splits",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("train", sa.Double(), nullable=False),
        sa.Column("val", sa.Double(), nullable=False),
        sa.Column("test", sa.Double(), nullable=False),
        sa.Column("rule", TEXT, nullable=False),
        sa.Column("rule_sha256", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_splits")),
        sa.UniqueConstraint("name", name=op.f("uq_splits_name")),
    )


def _create_export_items() -> None:
    op.create_table(
        "export_items",
        sa.Column("export_id", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("pair_uid", TEXT, nullable=False),
        sa.Column("part", TEXT, nullable=False),
        sa.Column("out_gt", TEXT, nullable=False),
        sa.Column("out_lq", TEXT, nullable=False),
        sa.Column("out_mask", TEXT, nullable=True),
        sa.Column("sha256_gt", TEXT, nullable=False),
        sa.Column("sha256_lq", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["export_id"], ["exports.id"], name=op.f("fk_export_items_export_id_exports"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("export_id", "ordinal", name=op.f("pk_export_items")),
    )
    op.create_index(op.f("ix_export_items_pair_uid"), "export_items", ["pair_uid"])


def _create_pair_counts() -> None:
    op.create_table(
        "pair_counts",
        sa.Column("scene_id", sa.Integer(), nullable=False),
        sa.Column("degr_key", TEXT, nullable=False),
        sa.Column("iso", sa.Integer(), nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["scene_id"], ["scenes.id"], name=op.f("fk_pair_counts_scene_id_scenes"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("scene_id", "degr_key", "iso", "status", name=op.f("pk_pair_counts")),
    )


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("scene_id", sa.Integer(), nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("rig", TEXT, nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("created_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("location", TEXT, nullable=False),
        sa.Column("record", TEXT, nullable=False),
        sa.Column("aligned_by", TEXT, nullable=True),
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["scene_id"], ["scenes.id"], name=op.f("fk_sessions_scene_id_scenes")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("name", name=op.f("uq_sessions_name")),
    )
    op.create_index(op.f("ix_sessions_scene_id"), "sessions", ["scene_id"])


def _create_split_members() -> None:
    op.create_table(
        "split_members",
        sa.Column("split_id", sa.Integer(), nullable=False),
        sa.Column("group_key", TEXT, nullable=False),
        sa.Column("part", TEXT, nullable=False),
        sa.CheckConstraint("part IN ('train', 'val', 'test')", name=op.f("ck_split_members_part_known")),
        sa.ForeignKeyConstraint(
            ["split_id"], ["splits.id"], name=op.f("fk_split_members_split_id_splits"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("split_id", "group_key", name=op.f("pk_split_members")),
    )


def _create_rounds() -> None:
    op.create_table(
        "rounds",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("degr_key", TEXT, nullable=False),
        sa.Column("settings", TEXT, nullable=False),
        sa.Column("conditions", TEXT, nullable=False),
        sa.CheckConstraint("role IN ('gt', 'internal', 'external')", name=op.f("ck_rounds_role_known")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_rounds_session_id_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rounds")),
        sa.UniqueConstraint("session_id", "name", name=op.f("uq_rounds_session_id_name")),
        sa.UniqueConstraint("session_id", "number", name=op.f("uq_rounds_session_id_number")),
    )


def _create_takes() -> None:
    op.create_table(
        "takes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("settings", TEXT, nullable=True),
        sa.CheckConstraint("state IN ('valid', 'void', 'missing')", name=op.f("ck_takes_state_known")),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.id"], name=op.f("fk_takes_round_id_rounds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_takes")),
        sa.UniqueConstraint("round_id", "number", name=op.f("uq_takes_round_id_number")),
    )


def _create_pairs() -> None:
    op.create_table(
        "pairs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uid", TEXT, nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("scene_id", sa.Integer(), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=False),
        *_frame_columns("gt"),
        *_frame_columns("lq"),
        sa.Column("degr_key", TEXT, nullable=False),
        sa.Column("degr_mask", sa.Integer(), nullable=False),
        sa.Column("n_degr", sa.Integer(), nullable=False),
        sa.Column("foundir_class", TEXT, nullable=True),
        sa.Column("iso", sa.Integer(), nullable=True),
        sa.Column("f_number", sa.Double(), nullable=True),
        sa.Column("exposure_s", sa.Double(), nullable=True),
        sa.Column("focus_m", sa.Double(), nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("gt_warped", sa.Boolean(), nullable=False),
        sa.Column("residual_px", sa.Double(), nullable=True),
        sa.Column("predicted_epe_px", sa.Double(), nullable=True),
        sa.Column("position_gap_mm", sa.Double(), nullable=False),
        sa.Column("mu", sa.Double(), nullable=True),
        sa.Column("sigma", sa.Double(), nullable=True),
        sa.Column("verdict", TEXT, nullable=False),
        sa.Column("reasons", TEXT, nullable=False),
        sa.Column("decision", TEXT, nullable=True),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("sample_key", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("decision IN ('accepted', 'rejected')", name=op.f("ck_pairs_decision_known")),
        sa.CheckConstraint(
            "status IN ('accepted', 'rejected', 'quarantined')", name=op.f("ck_pairs_status_known")
        ),
        sa.CheckConstraint("verdict IN ('accepted', 'rejected')", name=op.f("ck_pairs_verdict_known")),
        sa.CheckConstraint(
            "gt_take_id <> lq_take_id OR gt_frame_index <> lq_frame_index", name=op.f("ck_pairs_two_frames")
        ),
        sa.ForeignKeyConstraint(
            ["gt_take_id"], ["takes.id"], name=op.f("fk_pairs_gt_take_id_takes"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["lq_take_id"], ["takes.id"], name=op.f("fk_pairs_lq_take_id_takes"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.id"], name=op.f("fk_pairs_round_id_rounds"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["scene_id"], ["scenes.id"], name=op.f("fk_pairs_scene_id_scenes")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_pairs_session_id_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pairs")),
        sa.UniqueConstraint("uid", name=op.f("uq_pairs_uid")),
    )
    _index_pairs()


def _frame_columns(side: str) -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column(f"{side}_take_id", sa.Integer(), nullable=False),
        sa.Column(f"{side}_frame_index", sa.Integer(), nullable=False),
        sa.Column(f"{side}_time_s", sa.Double(), nullable=False),
        sa.Column(f"{side}_position_mm", sa.Double(), nullable=False),
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
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("homography", TEXT, nullable=True),
        sa.Column("gt_from_pair", TEXT, nullable=True),
        sa.Column("lq_crop", TEXT, nullable=True),
        sa.Column("bound_px", sa.Double(), nullable=True),
        sa.Column("blur_kind", TEXT, nullable=False),
        sa.Column("blur_size_px", sa.Double(), nullable=False),
        sa.Column("evidence", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["pair_id"], ["pairs.id"], name=op.f("fk_alignments_pair_id_pairs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("pair_id", name=op.f("pk_alignments")),
    )


def _create_assets() -> None:
    op.create_table(
        "assets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("pair_id", sa.Integer(), nullable=True),
        sa.Column("relpath", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("nbytes", sa.BigInteger(), nullable=True),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("verified_at_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('gt', 'lq', 'mask', 'capture', 'record', 'journal')", name=op.f("ck_assets_kind_known")
        ),
        sa.CheckConstraint(
            "state IN ('present', 'missing', 'quarantined')", name=op.f("ck_assets_state_known")
        ),
        sa.CheckConstraint("nbytes >= 0", name=op.f("ck_assets_nbytes_not_negative")),
        sa.ForeignKeyConstraint(
            ["pair_id"], ["pairs.id"], name=op.f("fk_assets_pair_id_pairs"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_assets_session_id_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assets")),
        sa.UniqueConstraint("session_id", "relpath", name=op.f("uq_assets_session_id_relpath")),
    )
    op.create_index(op.f("ix_assets_pair_id_kind"), "assets", ["pair_id", "kind"])
    op.create_index(op.f("ix_assets_sha256"), "assets", ["sha256"])
    op.create_index(op.f("ix_assets_verified_at_us"), "assets", ["verified_at_us"])


def _create_pair_degradations() -> None:
    op.create_table(
        "pair_degradations",
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("degradation_id", sa.Integer(), nullable=False),
        sa.Column("level", TEXT, nullable=True),
        sa.Column("source", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["degradation_id"],
            ["degradations.id"],
            name=op.f("fk_pair_degradations_degradation_id_degradations"),
        ),
        sa.ForeignKeyConstraint(
            ["pair_id"], ["pairs.id"], name=op.f("fk_pair_degradations_pair_id_pairs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("pair_id", "degradation_id", name=op.f("pk_pair_degradations")),
    )


def _create_pair_metrics() -> None:
    op.create_table(
        "pair_metrics",
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["pair_id"], ["pairs.id"], name=op.f("fk_pair_metrics_pair_id_pairs"), ondelete="CASCADE"
        ),
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
