"""The facade for embedding code leads to the use cases behind it."""

from dataclasses import fields
from decimal import Decimal
from typing import Any

import pytest

from app.configuration.domain.model import WeightingMethod
from app.foundation.errors import Code, ConflictError
from app.my_symbols import MySymbolsServiceV2
from app.performance.services.service import ResultSubmission
from app.portfolio.domain.controls import LockKind
from app.portfolio.domain.models import FULL
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk


def face(desk: Desk) -> MySymbolsServiceV2:
    """The services of the desk behind the face; what the desk has not, nobody calls here."""
    parts: dict[str, Any] = {
        one.name: getattr(desk, one.name, None) for one in fields(MySymbolsServiceV2)
    }
    return MySymbolsServiceV2(**parts)


async def test_the_controls_by_the_short_way(desk: Desk) -> None:
    await desk.filled(4)
    service = face(desk)
    await service.controls.lock(SYMBOLS[20], LockKind.WATCH, "new", None, WHO)
    assert [one.lock.symbol for one in (await service.controls.watch_list()).lines] == [SYMBOLS[20]]
    await service.controls.lock(SYMBOLS[20], LockKind.BAN, "worse", None, WHO)
    with pytest.raises(ConflictError) as caught:
        await service.add_symbol_to_portfolio(SYMBOLS[20], "try", WHO)
    assert caught.value.code is Code.SYMBOL_BANNED
    await service.controls.unlock(SYMBOLS[20], "fine", WHO)
    await service.controls.switch(False, "stop", WHO)
    tradeable, _ = await service.get_tradeable_symbols()
    assert tradeable == ()
    with pytest.raises(ConflictError) as caught:
        await service.add_symbol_to_portfolio(SYMBOLS[20], "try", WHO)
    assert caught.value.code is Code.TRADING_DISABLED
    await service.controls.switch(True, "go on", WHO)
    assert len((await service.get_tradeable_symbols())[0]) == 4


async def test_weights_by_another_method(desk: Desk) -> None:
    await desk.filled()
    found = await face(desk).optimize_portfolio_weights(WeightingMethod.EQUAL)
    assert {line.proposed_u for line in found.lines} == {10_000_000}
    before = (await face(desk).get_portfolio()).portfolio
    assert before.version == 1, "it writes nothing"


async def test_every_change_by_the_short_way(desk: Desk) -> None:
    await desk.filled(4)
    service = face(desk)
    added = (await service.add_symbol_to_portfolio(SYMBOLS[9], "in", WHO)).result
    assert added is not None
    assert (added.member.symbol, added.member.rank) == (SYMBOLS[9], 5)
    swapped = (await service.replace_symbol(SYMBOLS[9], SYMBOLS[12], "swap", WHO)).result
    assert swapped is not None
    assert (swapped.old.symbol, swapped.new.member.rank) == (SYMBOLS[9], 5)
    gone = (await service.remove_symbol_from_portfolio(SYMBOLS[12], "out", WHO)).result
    assert gone is not None
    desk.later(minutes=5)
    desk.score({SYMBOLS[0]: 0.3})
    looked = (await service.rebalance_portfolio(WHO, dry_run=True)).result
    assert looked is not None
    assert [one.symbol for one in looked.plan.changes if one.action == "exit"] == [SYMBOLS[0]]
    version = (await service.get_portfolio()).portfolio.version
    done = (await service.rebalance_portfolio(WHO)).result
    assert done is not None
    assert (done.version, done.plan.changes) == (version + 1, looked.plan.changes)
    assert (await service.execute_portfolio_replacement(WHO)).result is not None
    result = ResultSubmission("fill-1", Decimal(5), "USDT", Decimal(1), Decimal(0), NOW)
    trade = (await service.update_performance_metrics(SYMBOLS[1], result, "fill", WHO)).result
    assert trade is not None
    assert trade.result.trade_id == "fill-1"
    kinds = [one.type.value for one in await service.get_portfolio_history(limit=100)]
    assert {"ADD", "REMOVE", "REPLACE", "REBALANCE", "PERFORMANCE"} <= set(kinds)
    assert (await service.validate_portfolio_integrity()).ok


async def test_every_question_by_the_short_way(desk: Desk) -> None:
    await desk.filled(4)
    service = face(desk)
    names = SYMBOLS[:4]
    weights = await service.calculate_dynamic_weights()
    assert sum(line.target_u for line in weights.lines) + weights.target_cash_u == FULL
    verdict, _ = await service.should_trade_symbol(SYMBOLS[0])
    assert verdict.trade, verdict.reason
    tradeable, _ = await service.get_tradeable_symbols()
    assert [one.symbol for one in tradeable] == list(names)
    sized, _ = await service.get_position_size_for_symbol(SYMBOLS[0], Decimal(10_000))
    assert sized.size.lots > 0
    assert {
        one.outgoing.side.symbol
        for one in (await service.evaluate_portfolio_replacement()).proposals
    } == {
        SYMBOLS[2],
        SYMBOLS[3],
    }
    related = await service.check_portfolio_correlation()
    assert (related.symbols, len(related.correlations)) == (names, 6)
    alerts = await service.check_portfolio_alerts()
    assert ("price_anomaly", SYMBOLS[0]) in {(one.rule.value, one.subject) for one in alerts}
    analytics = await service.get_portfolio_analytics()
    assert (analytics.portfolio_size, analytics.replacement_candidates) == (4, SYMBOLS[3:1:-1])
    assert (await service.get_portfolio_metrics()).scores == pytest.approx(
        [0.99, 0.975, 0.96, 0.945]
    )
    safety = await service.validate_portfolio_safety()
    assert (safety.issues, safety.tradeable) == ((), names)
