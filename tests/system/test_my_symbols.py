"""The facade for embedding code leads to the use cases behind it."""

from dataclasses import fields
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from app.configuration.domain.model import WeightingMethod
from app.foundation.errors import Code, ConflictError, RefusedError
from app.my_symbols import MySymbolsServiceV2
from app.portfolio.domain.controls import LockKind
from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.membership import require_member
from app.portfolio.domain.models import FULL
from app.scoring.domain.board import Board
from tests.support.trading_desk import SYMBOLS, WHO, Desk


class Scores(NamedTuple):
    """The board of the desk as the scoring service gives it."""

    desk: Desk

    def board(self) -> Board:
        board = self.desk.boards.board
        assert board is not None
        return board


def face(desk: Desk) -> MySymbolsServiceV2:
    """The services of the desk behind the face; what the desk has not, nobody calls here."""
    parts: dict[str, Any] = {
        one.name: getattr(desk, one.name, None) for one in fields(MySymbolsServiceV2)
    }
    return MySymbolsServiceV2(**{**parts, "registry": desk.market, "scoring": Scores(desk)})


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
    added = await service.add_symbol(SYMBOLS[9], "in", user="ana")
    assert (added.member.symbol, added.member.rank) == (SYMBOLS[9], 5)
    swapped = await service.replace_symbol(SYMBOLS[9], SYMBOLS[12], "swap")
    assert (swapped.old.symbol, swapped.new.member.rank) == (SYMBOLS[9], 5)
    gone = await service.remove_symbol(SYMBOLS[12], "out")
    assert gone.member.symbol == SYMBOLS[12]
    by_command = (await service.add_symbol_to_portfolio(SYMBOLS[9], "in", WHO)).result
    assert by_command is not None
    left = (await service.remove_symbol_from_portfolio(SYMBOLS[9], "out", WHO)).result
    assert left is not None
    assert (await service.execute_due_replacements(WHO)).result is not None
    kinds = [one.type.value for one in await service.get_portfolio_history(limit=100)]
    assert {"ADD", "REMOVE", "REPLACE"} <= set(kinds)
    events = await service.get_portfolio_history(limit=100)
    ours = [one for one in events if one.actor == "embedded"]
    assert [one.payload.get("user") for one in ours if one.type is EventType.ADD] == ["ana"]
    assert all(one.payload["has_idempotency_key"] is False for one in ours)
    assert (await service.validate_portfolio_integrity()).ok
    before = (await service.get_portfolio()).portfolio
    cleared = await service.clear_portfolio("over")
    assert [one.symbol for one in cleared] == list(SYMBOLS[3::-1])
    after = (await service.get_portfolio()).portfolio
    assert (after.members, after.cash_u, after.version) == ((), FULL, before.version + 4)
    assert await service.clear_portfolio() == ()
    assert (await service.validate_portfolio_integrity()).ok


async def test_a_rebalance_answers_with_old_new_and_change(desk: Desk) -> None:
    await desk.filled(4)
    service = face(desk)
    assert await service.rebalance_portfolio() == {}, "no trigger"
    desk.later(minutes=5)
    desk.score({SYMBOLS[0]: 0.3})
    before = (await service.get_portfolio()).portfolio
    planned = await service.rebalance_portfolio(dry_run=True)
    assert (await service.get_portfolio()).portfolio == before
    done = await service.rebalance_portfolio()
    assert done == planned
    after = (await service.get_portfolio()).portfolio
    assert after.version == before.version + 1
    for symbol, delta in done.items():
        old, new = (require_member(one, symbol).weight_u for one in (before, after))
        assert delta == {
            "old": old / 1_000_000, "new": new / 1_000_000, "change": (new - old) / 1_000_000,
        }  # fmt: skip
    assert (done[SYMBOLS[0]]["old"] > 0, done[SYMBOLS[0]]["new"]) == (True, 0)
    assert {one.symbol for one in after.members if done.get(one.symbol)} == done.keys()


async def test_a_pair_is_replaced_unless_a_rule_forbids_it(desk: Desk) -> None:
    await desk.filled(4)
    service = face(desk)
    assert await service.execute_portfolio_replacement(SYMBOLS[3], SYMBOLS[9])
    view = await service.get_portfolio()
    assert [one.member.symbol for one in view.members] == [*SYMBOLS[:3], SYMBOLS[9]]
    assert not await service.execute_portfolio_replacement(SYMBOLS[3], SYMBOLS[12]), "no member"
    assert not await service.execute_portfolio_replacement(SYMBOLS[0], SYMBOLS[9]), "a member"
    assert (await service.get_portfolio()).portfolio.version == view.portfolio.version
    await service.controls.lock(SYMBOLS[12], LockKind.BAN, "worse", None, WHO)
    assert not await service.execute_portfolio_replacement(SYMBOLS[0], SYMBOLS[12])
    members = (await service.get_portfolio()).portfolio.members
    assert members == view.portfolio.members
    with pytest.raises(RefusedError) as caught:
        await service.execute_portfolio_replacement(SYMBOLS[0], "NOSUCHCOIN")
    assert caught.value.code is Code.SYMBOL_UNKNOWN


async def test_a_result_without_a_trade_id_says_that_it_is_not_repeatable(desk: Desk) -> None:
    await desk.filled(4)
    service = face(desk)
    for _ in range(2):
        booked = await service.update_performance_metrics(SYMBOLS[1], Decimal(5), trade_id="fill-1")
        assert (booked.trade.result.trade_id, booked.is_repeatable) == ("fill-1", True)
    result = booked.trade.result
    assert (result.net, result.currency, result.occurred_at) == (Decimal(5), "USDT", desk.now)
    first, second = [await service.update_performance_metrics(SYMBOLS[1], Decimal(5)) for _ in "ab"]
    assert (first.is_repeatable, second.is_repeatable) == (False, False)
    assert first.trade.result.trade_id != second.trade.result.trade_id
    assert len(await service.performance.trades(None, 10)) == 3


async def test_scores_signals_and_reports_by_the_short_way(desk: Desk) -> None:
    await desk.filled(4)
    service = face(desk)
    ranked = await service.get_symbol_scores(3)
    assert [(one.rank, one.card.symbol) for one in ranked] == [
        (rank, symbol) for rank, symbol in enumerate(SYMBOLS[:3], 1)
    ]
    assert len(await service.get_symbol_scores()) == min(50, len(SYMBOLS))
    code = service.to_kucoin(SYMBOLS[0])
    assert service.to_standard(code) == SYMBOLS[0]
    claim: dict[str, Any] = {
        "source_name": "desk", "signal_type": "momentum", "signal_strength": 0.9,
        "confidence_level": 0.8, "symbol": code, "signal_direction": "BUY",
    }  # fmt: skip
    signal = (await service.process_signal(**claim)).signal
    assert (signal.claim.symbol, signal.claim.direction.value) == (SYMBOLS[0], "BUY")
    waiting = await service.get_pending_signals()
    processed = [one.signal for one in await service.get_processed_signals()]
    assert signal in (*waiting, *processed)
    assert sum((await service.get_signal_statistics()).counts.states.values()) == 1
    for wrong in ({"signal_strength": 1.1}, {"confidence_level": -0.1}, {"signal_direction": "UP"}):
        with pytest.raises(RefusedError) as caught:
            await service.process_signal(**{**claim, **wrong})
        assert caught.value.code is Code.VALIDATION_FAILED
    report = await service.generate_performance_report()
    assert report.version == (await service.get_portfolio()).portfolio.version
    desk.later(hours=1)
    ledgers, _, _ = await service.get_portfolio_performance_attribution(30)
    assert {one.name for one in ledgers[0].symbols} == set(SYMBOLS[:4])


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
