"""What a swap costs: fee, half the spread, on request impact and the difference of funding."""

from dataclasses import replace
from decimal import Decimal

import pytest

from app.configuration.domain.sections import Family
from app.market.domain.models import Book, Level
from app.portfolio.domain.replacement import ReplacementBlock
from app.scoring.domain.board import FactorReading
from tests.portfolio.services.test_replacement import BETTER, PLANTED, WEAKEST, Cycles, cycles
from tests.support.trading_desk import WHO, Desk, book

__all__ = ["cycles"]  # the fixture
A_UNIT = 10_000 / (4 * 28)  # z per fraction of the slot


async def cost_of(cycles: Cycles, **rules: float | bool) -> float | None:
    await cycles.desk.configuration.put({"replacement": rules}, "test", WHO)
    await cycles.board(BETTER)
    found = await cycles.proposal(WEAKEST)
    assert found.candidate is not None
    assert found.candidate.symbol == PLANTED
    return found.comparison.cost


async def test_a_leg_sweeps_the_book_with_what_it_is_worth(cycles: Cycles) -> None:
    desk: Desk = cycles.desk
    plain = await cost_of(cycles)
    assert plain == pytest.approx(2 * (0.0006 + 0.001) * A_UNIT)
    assert await cost_of(cycles, impact_notional=1_000.0) == pytest.approx(
        plain
    )  # the book is deep
    # Of 1000 USDT half are bought at 10.01 and half at 10.21: a hundredth more than half a spread.
    first, rest = Level(Decimal("10.01"), 500), Level(Decimal("10.21"), 10**6)
    desk.quote(
        PLANTED, book=Book("C30USDTM", 1, (Level(Decimal("9.99"), 10**6),), (first, rest), 0)
    )
    worse = await cost_of(cycles, impact_notional=1_000.0)
    coins = 500.5 / 10.01 + 499.5 / 10.21
    swept = 1_000.0 / coins / 10.0 - 1.0
    assert worse == pytest.approx((0.0006 + 0.001 + 0.0006 + swept) * A_UNIT)
    assert await cost_of(cycles, impact_notional=0.0) == pytest.approx(plain)


async def test_a_book_that_is_too_thin_leaves_the_cost_unknown(cycles: Cycles) -> None:
    cycles.desk.quote(PLANTED, book=book("C30USDTM", lots=50))
    assert await cost_of(cycles, impact_notional=1_000.0) is None
    blocked = (await cycles.proposal(WEAKEST)).blocked_by
    assert ReplacementBlock.COST_UNKNOWN in blocked
    cycles.desk.quote(PLANTED, book=None)
    assert await cost_of(cycles) is None
    assert await cost_of(cycles, impact_notional=0.0) is not None


async def test_funding_is_that_of_the_board(cycles: Cycles) -> None:
    desk: Desk = cycles.desk
    plain = await cost_of(cycles)
    assert plain is not None
    await cycles.board(BETTER)
    for symbol in (PLANTED, WEAKEST):
        await cycles.change(symbol, factors=())
    unknown = await cycles.proposal(WEAKEST)
    assert unknown.comparison.cost is None, "these cards have no such reading"
    board = desk.boards.board
    assert board is not None

    def reading(rate: float) -> FactorReading:
        return FactorReading("funding_rate", Family.FUNDAMENTAL, rate, "1/yr", 0.0, 0.4, 0.0, None)

    rates = {PLANTED: 0.3, WEAKEST: 0.1}
    desk.boards.board = replace(
        board,
        cards=tuple(
            replace(card, factors=(reading(rates.get(card.symbol, 0.0)),)) for card in board.cards
        ),
    )
    found = (await cycles.proposal(WEAKEST)).comparison.cost
    assert found == pytest.approx(plain + 0.2 * 28 / 365 * A_UNIT)
