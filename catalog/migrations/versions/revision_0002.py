"""Count pairs by round rather than by scene, with their reject reasons, and count files by session.

A round has one level of every degradation, so its counts answer coverage too; and a decision recounts the rounds it
touched, no longer a whole scene. The index that listings use knows the status, which nearly every filter names.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Replace the counts by finer ones, worked out from what is there."""
    op.drop_index(op.f("ix_pairs_degr_key_iso_scene_id_id"), "pairs")
    columns = ["degr_key", "iso", "status", "scene_id", "id"]
    op.create_index(op.f("ix_pairs_degr_key_iso_status_scene_id_id"), "pairs", columns)
    op.drop_table("pair_counts")
    _create_pair_counts()
    _create_file_counts()
    op.execute(
        "INSERT INTO pair_counts (round_id, degr_key, iso, status, reasons, n) "
        "SELECT round_id, degr_key, COALESCE(iso, 0), status, reasons, COUNT(*) FROM pairs "
        "GROUP BY round_id, degr_key, COALESCE(iso, 0), status, reasons"
    )
    op.execute(
        "INSERT INTO file_counts (session_id, state, n) "
        "SELECT session_id, state, COUNT(*) FROM assets GROUP BY session_id, state"
    )


def _create_pair_counts() -> None:
    kind = ("round_id", "degr_key", "iso", "status", "reasons")
    op.create_table(
        "pair_counts",
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("degr_key", TEXT, nullable=False),
        sa.Column("iso", sa.Integer(), nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("reasons", TEXT, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.id"], name=op.f("fk_pair_counts_round_id_rounds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(*kind, name=op.f("pk_pair_counts")),
    )


def _create_file_counts() -> None:
    op.create_table(
        "file_counts",
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["sessions.id"],
            name=op.f("fk_file_counts_session_id_sessions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "state", name=op.f("pk_file_counts")),
    )
