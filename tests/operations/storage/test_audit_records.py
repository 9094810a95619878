"""The audit compares with the history what has an event of its own beside the portfolio."""

from datetime import timedelta
from decimal import Decimal

import pytest

from app.foundation.sql.database import Database
from app.operations.storage.audit import verify_history
from app.performance.services.service import ResultSubmission
from app.portfolio.domain.controls import LockKind
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk

UNREAD = "a booked result cannot be read"
TRIGGERS = {
    "trades_no_update": "trades",
    "configuration_versions_no_update": "configuration_versions",
}
FACT = "UPDATE service_facts SET value = '{}' WHERE key = '{}'"
PNL = "UPDATE trades SET pnl = '{}' WHERE trade_id = 'a'"
TIME = "UPDATE trades SET occurred_at = {} WHERE trade_id = 'a'"
PLACE = "UPDATE trades SET event_seq = event_seq {} 100 WHERE trade_id = 'a'"
VERSION = "UPDATE configuration_versions SET version = {} WHERE version = {}"
BODY = (
    "UPDATE configuration_versions SET body = CAST(REPLACE(CAST(body AS text), '{}', '{}') AS {})"
)


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


async def test_changes_beside_the_portfolio_are_found(desk: Desk, database_url: str) -> None:
    await lived(desk)
    assert (await verify_history(database_url)).breaks == (), "a lock that has run out may be gone"
    is_sqlite = desk.database.dialect == "sqlite"
    for trigger, table in TRIGGERS.items():
        await execute(desk, f"DROP TRIGGER {trigger}{'' if is_sqlite else f' ON {table}'}")
    json = "text" if is_sqlite else "json"
    switch = '{{"enabled":{},"reason":"","changed_at":null,"changed_by":null}}'
    for altered, as_it_was, told in (
        (PNL.format("12.6"), PNL.format("12.5"), ["the result of event 5 is different"]),
        (
            PLACE.format("+"),
            PLACE.format("-"),
            [
                "the result of event 5 is missing",
                "a stored result has no booking in event 105",
            ],
        ),
        # PostgreSQL keeps times as times, and takes no word for one.
        *((TIME.format("'never'"), TIME.format("booked_at"), [UNREAD]) for _ in range(is_sqlite)),
        (
            VERSION.format(3, 2),
            VERSION.format(2, 3),
            [
                "the settings of version 2 are not those of event 7",
                "no event created version 3 of the settings",
            ],
        ),
        (
            BODY.format("31", "33", json),
            BODY.format("33", "31", json),
            ["the settings of version 2 are not those of event 7"],
        ),
        (
            FACT.format(switch.format("true"), "trading_switch"),
            FACT.format(switch.format("false"), "trading_switch"),
            ["the trading switch differs from its last event"],
        ),
        (
            "UPDATE service_facts SET key = 'lost' WHERE key = 'symbol_locks'",
            "UPDATE service_facts SET key = 'symbol_locks' WHERE key = 'lost'",
            [f"the lock of {SYMBOLS[3]} differs from its last event"],
        ),
        (
            FACT.format("7", "trading_switch"),
            FACT.format(switch.format("false"), "trading_switch"),
            ["settings, switch or locks cannot be read"],
        ),
    ):
        await execute(desk, altered)
        assert [one.detail for one in (await verify_history(database_url)).breaks] == told
        await execute(desk, as_it_was)
    assert (await verify_history(database_url)).ok


async def lived(desk: Desk) -> None:
    """Results, settings, a switch that is off, and a lock of every fate."""
    await desk.filled(3)
    for trade_id in ("a", "b"):
        claim = ResultSubmission(
            trade_id, Decimal("12.5"), "USDT", Decimal(1), Decimal("-0.5"), NOW
        )
        await desk.performance.book(SYMBOLS[0], claim, "fill", WHO)
    await desk.configuration.put({"max_weight_percentage": "31"}, "wider", WHO)
    await desk.controls.lock(SYMBOLS[1], LockKind.PIN, "kept", NOW + timedelta(hours=1), WHO)
    await desk.controls.lock(SYMBOLS[2], LockKind.BAN, "no more", None, WHO)
    await desk.controls.unlock(SYMBOLS[2], "well", WHO)
    desk.later(hours=2)
    await desk.controls.lock(SYMBOLS[3], LockKind.BAN, "never", None, WHO)
    await desk.controls.switch(False, "night", WHO)


async def execute(desk: Desk, sql: str) -> None:
    async with desk.database.write() as unit:
        await unit.connection.exec_driver_sql(sql)
