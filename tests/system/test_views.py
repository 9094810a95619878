"""Views under the customer's names: they read as the tables do, and refuse every change."""

from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.sql import migrations
from app.foundation.sql.database import Database
from app.operations.storage.views import VIEWS
from app.portfolio.storage.portfolio import PortfolioRepository
from app.scoring.storage.runs import ScoringRepository
from tests.scoring.storage.test_scoring import _SCORED, _board
from tests.support.trading_desk import SYMBOLS, Desk

COLUMNS = {
    "symbols": (
        "id", "symbol", "root_symbol", "base_currency", "quote_currency", "lot_size", "tick_size",
        "max_leverage", "is_eligible_for_management", "sector_category", "market_cap_category",
        "created_at", "updated_at",
    ),
    "portfolio_composition": (
        "id", "symbol_id", "position_rank", "inclusion_date", "current_score",
        "weight_percentage", "status", "is_replacement_candidate",
    ),
    "system_configuration": ("config_key", "config_value"),
}  # fmt: skip


async def _rows(database: Database, view: str) -> list[dict[str, object]]:
    async with database.read() as unit:
        found = await unit.connection.execute(text(f"SELECT * FROM {view}"))  # noqa: S608  # ours
        return [dict(row) for row in found.mappings()]


async def test_views_read_as_the_tables_do(database: Database) -> None:
    desk = await Desk(database).filled(4)
    scored = tuple(replace(_SCORED, symbol=name, rank=at) for at, name in enumerate(SYMBOLS[:4], 1))
    async with database.write() as unit:
        board = replace(_board(1, *scored), is_provisional=False)
        await unit.get(ScoringRepository).save(board, None)
    async with database.read() as unit:
        portfolio = await unit.get(PortfolioRepository).load()
        document = (await unit.get(ConfigurationRepository).current()).version
    members = {row["symbol_id"]: row for row in await _rows(database, "portfolio_composition")}
    assert members.keys() == {member.symbol_id for member in portfolio.members}
    for member in portfolio.members:
        row = members[member.symbol_id]
        assert row["position_rank"] == member.rank
        assert Decimal(str(row["weight_percentage"])) == Decimal(member.weight_u) / 1_000_000
        assert row["current_score"] == _SCORED.composite
        assert (row["status"], bool(row["is_replacement_candidate"])) == ("Active", False)
    contracts = {row["symbol"]: row for row in await _rows(database, "symbols")}
    assert {name for name, row in contracts.items() if row["is_eligible_for_management"]} == {
        *SYMBOLS[:4]
    }
    settings = await _rows(database, "system_configuration")
    assert {row["version"] for row in settings} == {document}
    assert {"rebalancing", "retention"} <= {row["config_key"] for row in settings}
    assert (await desk.portfolio.view()).portfolio.version == portfolio.version


async def test_without_a_board_eligibility_and_score_are_unknown(database: Database) -> None:
    await Desk(database).filled(2)
    assert {row["is_eligible_for_management"] for row in await _rows(database, "symbols")} == {None}
    assert {row["current_score"] for row in await _rows(database, "portfolio_composition")} == {
        None
    }


@pytest.mark.parametrize("view", VIEWS)
async def test_views_have_the_customers_columns_and_refuse_every_change(
    database: Database, database_url: str, view: str
) -> None:
    await Desk(database).filled(2)
    names = ", ".join(COLUMNS[view])
    for change in (
        f"INSERT INTO {view} ({names}) SELECT {names} FROM {view}",  # noqa: S608  # ours
        f"UPDATE {view} SET {COLUMNS[view][1]} = {COLUMNS[view][1]}",  # noqa: S608  # ours
        f"DELETE FROM {view}",  # noqa: S608  # ours
    ):
        async with database.write() as unit:
            connection = unit.connection
            with pytest.raises(DBAPIError, match="view"):
                await connection.execute(text(change))
            await connection.rollback()
    assert await migrations.current(database_url) == migrations.head()
