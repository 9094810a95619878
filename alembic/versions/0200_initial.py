"""Initial schema of version 0.2.0: tables, triggers and read-only views.

Revision ID: 0200
Revises:

Each database has one SQL file beside this module. Revisions are append-only: a test pins the
hashes of these files.
"""

from pathlib import Path

from alembic import op

revision = "0200"
down_revision = None
branch_labels = None
depends_on = None


def statements() -> list[str]:
    """Returns the statements for the dialect of the connection, in order."""
    dialect = op.get_bind().dialect.name
    text = Path(__file__).with_name(f"0200_initial.{dialect}.sql").read_text("utf-8")
    return [part.strip() for part in text.split("\n\n") if not part.startswith("--")]


def upgrade() -> None:
    for statement in statements():
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """Drops the objects of `upgrade` in reverse order; functions after their triggers."""
    created = [statement.split(maxsplit=3)[1:3] for statement in reversed(statements())]
    for kinds in ({"VIEW", "TABLE"}, {"FUNCTION"}):  # indexes and triggers go with their table
        for kind, name in created:
            if kind in kinds:
                op.get_bind().exec_driver_sql(f"DROP {kind} {name}")
