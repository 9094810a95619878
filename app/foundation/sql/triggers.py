"""Triggers that keep append-only tables append-only, on both databases."""

from typing import Any, Final

from sqlalchemy import Table, event

_SQLITE: Final = """\
CREATE TRIGGER {table}_no_{verb} BEFORE {VERB} ON {table}
BEGIN SELECT RAISE(ABORT, '{table}_append_only'); END"""
_FUNCTION: Final = """\
CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
    MESSAGE = '{table}_append_only', CONSTRAINT = '{table}_append_only';
END $$"""
_POSTGRESQL: Final = """\
CREATE TRIGGER {table}_no_{verb} BEFORE {VERB} ON {table}
FOR EACH {level} EXECUTE FUNCTION {table}_refuse()"""


def statements(table: str, dialect: str) -> tuple[str, ...]:
    """The DDL that makes `table` refuse UPDATE, DELETE and (PostgreSQL) TRUNCATE."""
    if dialect == "sqlite":
        return tuple(
            _SQLITE.format(table=table, verb=verb, VERB=verb.upper())
            for verb in ("update", "delete")
        )
    return (
        _FUNCTION.format(table=table),
        *(
            _POSTGRESQL.format(table=table, verb=verb, VERB=verb.upper(), level=level)
            for verb, level in (("update", "ROW"), ("delete", "ROW"), ("truncate", "STATEMENT"))
        ),
    )


def make_append_only(table: Table) -> None:
    """Creates the triggers of `table` together with it."""

    def after_create(target: Any, connection: Any, **_: Any) -> None:
        for statement in statements(table.name, connection.dialect.name):
            connection.exec_driver_sql(statement)

    event.listen(table, "after_create", after_create)
