"""Constraints that callers can break have an error each, the same on both databases."""

import pytest
from sqlalchemy import text

from app.configuration.storage.configuration import ConfigurationRepository
from app.container.tables import APPEND_ONLY
from app.foundation.errors import Code, ServiceError
from app.foundation.sql.database import Database
from app.foundation.sql.errors import CONSTRAINTS
from app.foundation.sql.schema import metadata
from app.market.storage.symbols import SymbolRepository
from app.portfolio.storage.history import HistoryRepository
from tests.support.stored_values import LATER, STAMP, T0, draft, listed, record, symbol_id


def test_B05_every_rule_names_a_constraint() -> None:
    tables = metadata.tables.values()
    names = {str(rule.name) for table in tables for rule in table.constraints}
    names |= {str(index.name) for table in tables for index in table.indexes if index.unique}
    names |= {f"{table.name}_append_only" for table in APPEND_ONLY}
    assert CONSTRAINTS.keys() <= names


_MEMBER = (
    "INSERT INTO portfolio_members (portfolio_id, symbol_id, entered_version, symbol, contract,"
    " status, rank, included_at, inclusion_reason, weight_u, target_weight_u)"
    " VALUES ('main', '{id}', {version}, 'BTCUSDT', 'XBTUSDTM', 'Active', {rank}, {now}, 'x',"
    " {weight}, {target})"
)
_SYMBOL = (
    "INSERT INTO contracts (id, code, symbol, base, quote, settle, kind, status, sector,"
    " cap_category, first_seen, last_seen) VALUES ('{id}', '{code}', '{symbol}', 'A', 'B', 'B',"
    " 'perpetual', 'Open', 'x', 'x', {now}, {now})"
)
_SPECIFICATION = (
    "INSERT INTO contract_specs (symbol_id, valid_from, is_inverse, multiplier, lot_size,"
    " tick_size) VALUES ('{id}', {now}, false, '1', 1, '1')"
)
_HISTORY = (
    "INSERT INTO portfolio_history SELECT aggregate, seq, type, symbol, other_symbol, payload,"
    " reason, actor, request_id, occurred_at, configuration_version, input_hash, code_version,"
    " prev_hash, hash FROM portfolio_history"
)
_CONFIGURATION = (
    "INSERT INTO configuration_versions SELECT version, body, created_at, created_by"
    " FROM configuration_versions"
)
_ALGORITHM = (
    "INSERT INTO scoring_algorithms (name, version, body, created_at, created_by)"
    " VALUES ('a', 1, '1', {now}, 'x')"
)
_KEY = (
    "INSERT INTO idempotency_keys (principal, key, route, fingerprint, state, locked_until,"
    " created_at) VALUES ('p', 'k', 'r', 'f', 'running', {now}, {now})"
)
_TRADE = (
    "INSERT INTO trades (trade_id, event_seq, symbol_id, symbol, contract, currency, pnl, fees,"
    " funding, occurred_at, booked_at) VALUES ('{trade}', {seq}, '{id}', 'BTCUSDT', 'XBTUSDTM',"
    " 'USDT', '1', '0', '0', {now}, {now})"
)
_RUN = (
    "INSERT INTO rebalance_runs (run_id, portfolio_id, state, reason, scheduled_at, actor,"
    " request_id, owner, requested_at, lease_until, finished_at) VALUES ('{run}', 'main',"
    " '{state}', 'x', {tick}, 'x', 'x', 'x', {now}, {now}, {finished})"
)
_PROPOSAL = (
    "INSERT INTO proposals (proposal_id, portfolio_id, kind, subject, state, version, reason,"
    " action, opened_at, expires_at) VALUES ('{proposal}', 'main', 'rebalance', 'portfolio',"
    " 'open', 1, 'x', '1', {now}, {now})"
)
_ALERT = (
    "INSERT INTO alerts (id, rule, subject, symbols, severity, state, message, since,"
    " last_seen_at, opened_at) VALUES ('{id}', 'low_score', 'BTCUSDT', '[]', 'warning', 'open',"
    " 'x', {now}, {now}, {now})"
)
_CHANNEL = (
    "INSERT INTO notification_channels (id, name, kind, url, kinds, enabled, created_at)"
    " VALUES ('{id}', 'desk', 'webhook', 'x', '[]', true, {now})"
)
_BTC = symbol_id("BTC")
_ETH = symbol_id("ETH")
_SOUND = {"id": _BTC, "version": 1, "rank": 1, "weight": 1, "target": 1}

_CASES: dict[str, tuple[list[str], Code]] = {
    "uq_portfolio_members_symbol_id_active": (
        [_MEMBER.format(**{**_SOUND, "version": 2, "rank": 2}, now="{now}")],
        Code.SYMBOL_ALREADY_IN_PORTFOLIO,
    ),
    "pk_portfolio_members": (
        [
            "UPDATE portfolio_members SET status = 'Removed', left_at = {now}",
            _MEMBER.format(**_SOUND, now="{now}"),
        ],
        Code.SYMBOL_ALREADY_IN_PORTFOLIO,
    ),
    "uq_portfolio_members_rank_active": (
        [_MEMBER.format(**{**_SOUND, "id": _ETH}, now="{now}")],
        Code.VERSION_CONFLICT,
    ),
    "fk_portfolio_members_symbol_id": (
        [_MEMBER.format(**{**_SOUND, "id": "none", "rank": 2}, now="{now}")],
        Code.SYMBOL_UNKNOWN,
    ),
    "ck_portfolio_members_weight_u_range": (
        [_MEMBER.format(**{**_SOUND, "id": _ETH, "rank": 2, "weight": -1}, now="{now}")],
        Code.CONSTRAINTS_INFEASIBLE,
    ),
    "ck_portfolio_members_target_weight_u_range": (
        ["UPDATE portfolio_members SET target_weight_u = 100000001"],
        Code.CONSTRAINTS_INFEASIBLE,
    ),
    "ck_portfolio_cash_u_range": (
        ["UPDATE portfolio SET cash_u = 100000001"],
        Code.CONSTRAINTS_INFEASIBLE,
    ),
    "uq_contracts_code_current": (
        [_SYMBOL.format(id="new", code="BTCUSDTM", symbol="NEW", now="{now}")],
        Code.SYMBOL_AMBIGUOUS,
    ),
    "uq_contracts_symbol_current": (
        [_SYMBOL.format(id="new", code="NEW", symbol="BTCUSDT", now="{now}")],
        Code.SYMBOL_AMBIGUOUS,
    ),
    "uq_contract_specs_symbol_id_open": (
        [_SPECIFICATION.format(id=_BTC, now="{later}")],
        Code.VERSION_CONFLICT,
    ),
    "pk_contract_specs": (
        [
            "UPDATE contract_specs SET valid_to = {later}",
            _SPECIFICATION.format(id=_BTC, now="{now}"),
        ],
        Code.VERSION_CONFLICT,
    ),
    "pk_portfolio_history": ([_HISTORY], Code.VERSION_CONFLICT),
    "pk_configuration_versions": ([_CONFIGURATION], Code.VERSION_CONFLICT),
    "pk_scoring_algorithms": ([_ALGORITHM, _ALGORITHM], Code.VERSION_CONFLICT),
    "pk_idempotency_keys": ([_KEY, _KEY], Code.IDEMPOTENCY_IN_PROGRESS),
    "pk_trades": (
        [
            _TRADE.format(trade="t", seq=1, id=_BTC, now="{now}"),
            _TRADE.format(trade="t", seq=2, id=_BTC, now="{now}"),
        ],
        Code.TRADE_ID_REUSED,
    ),
    "uq_notification_channels_name": (
        [_CHANNEL.format(id="one", now="{now}"), _CHANNEL.format(id="two", now="{now}")],
        Code.CHANNEL_NAME_TAKEN,
    ),
    "uq_trades_event_seq": (
        [
            _TRADE.format(trade="t", seq=1, id=_BTC, now="{now}"),
            _TRADE.format(trade="u", seq=1, id=_BTC, now="{now}"),
        ],
        Code.VERSION_CONFLICT,
    ),
    "uq_proposals_open": (
        [_PROPOSAL.format(proposal=name, now="{now}") for name in ("one", "other")],
        Code.VERSION_CONFLICT,
    ),
    "uq_alerts_rule_subject_live": (
        [_ALERT.format(id=one, now="{now}") for one in ("one", "other")],
        Code.VERSION_CONFLICT,
    ),
    "uq_rebalance_runs_active": (
        [
            _RUN.format(run=run, state=state, tick="NULL", now="{now}", finished="NULL")
            for run, state in (("one", "planned"), ("other", "running"))
        ],
        Code.REBALANCE_IN_PROGRESS,
    ),
    "uq_rebalance_runs_tick": (
        [
            _RUN.format(run=run, state=state, tick="{now}", now="{now}", finished="{later}")
            for run, state in (("one", "failed"), ("two", "done"), ("three", "unchanged"))
        ],
        Code.REBALANCE_IN_PROGRESS,
    ),
    "fk_trades_symbol_id": (
        [_TRADE.format(trade="t", seq=1, id="nobody", now="{now}")],
        Code.SYMBOL_UNKNOWN,
    ),
    "ck_portfolio_members_rank_positive": (
        ["UPDATE portfolio_members SET rank = 0"],
        Code.INTERNAL_ERROR,
    ),
    "portfolio_history_append_only": (["DELETE FROM portfolio_history"], Code.INTERNAL_ERROR),
}


async def _carried_out(database: Database, statements: list[str]) -> None:
    async with database.write() as unit:
        for statement in statements:
            await unit.connection.execute(text(statement))


async def test_B05_each_violated_constraint_has_its_own_error(database: Database) -> None:
    assert CONSTRAINTS.keys() <= _CASES.keys()
    await listed(database, "BTC", "ETH")
    times = {
        "now": f"'{T0.strftime('%Y-%m-%dT%H:%M:%S.%fZ')}'",
        "later": f"'{LATER.strftime('%Y-%m-%dT%H:%M:%S.%fZ')}'",
    }
    async with database.write() as unit:
        await unit.connection.execute(text(_MEMBER.format(**_SOUND, **times)))
        await unit.get(HistoryRepository).append([draft()], STAMP)
        await unit.get(ConfigurationRepository).get_or_create(T0, "x")
    for name, (statements, code) in _CASES.items():
        with pytest.raises(ServiceError) as caught:
            await _carried_out(database, [statement.format(**times) for statement in statements])
        assert (name, caught.value.code) == (name, code)
        rule = CONSTRAINTS.get(name)
        assert type(caught.value) is (ServiceError if rule is None else rule.kind)
        # Nothing of the database's own words reaches a caller.
        assert name not in caught.value.detail
    async with database.read() as unit:
        assert await unit.get(SymbolRepository).all() == (record("BTC"), record("ETH"))
