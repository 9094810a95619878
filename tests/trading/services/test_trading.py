"""May it be traded, and how much of it."""

import math
from decimal import Decimal

import pytest

from app.foundation.errors import Code, RefusedError
from app.market.domain.models import ContractStatus, Interval
from app.market.domain.price_quarantine import QuarantineReason
from app.portfolio.domain.risk import compute_risk
from app.portfolio.domain.weighting import estimate_covariance
from app.portfolio.services.tradeability import FRESH, MARKET, MEMBER, OPEN, QUALITY, SCORE
from app.trading.domain.position_sizing import Cap
from tests.support.trading_desk import SYMBOLS, WHO, Desk, book


async def failed(desk: Desk, symbol: str) -> list[str]:
    verdict, _ = await desk.trading.should_trade(symbol)
    names = [check.name for check in verdict.checks if not check.passed]
    assert verdict.trade is (not names)
    assert verdict.reason
    return names


async def test_every_check_by_itself(desk: Desk) -> None:
    await desk.filled()
    assert await failed(desk, "c00/usdt") == []
    assert await failed(desk, SYMBOLS[15]) == [MEMBER, SCORE]
    desk.status(SYMBOLS[1], ContractStatus.PAUSED)
    assert await failed(desk, SYMBOLS[1]) == [OPEN]
    desk.stale(SYMBOLS[2])
    assert await failed(desk, SYMBOLS[2]) == [FRESH]
    desk.score({SYMBOLS[3]: 0.54, SYMBOLS[4]: None, SYMBOLS[5]: 0.55})
    assert await failed(desk, SYMBOLS[3]) == [SCORE]
    assert await failed(desk, SYMBOLS[4]) == [SCORE]
    assert await failed(desk, SYMBOLS[5]) == []
    desk.market.halted = True
    assert await failed(desk, SYMBOLS[0]) == [MARKET]
    del desk.market.quotes[SYMBOLS[6]]
    assert FRESH in await failed(desk, SYMBOLS[6])
    with pytest.raises(RefusedError):
        await desk.trading.should_trade("NOSUCH")


async def test_tradeable_are_the_members_that_pass(desk: Desk) -> None:
    await desk.filled(4)
    desk.stale(SYMBOLS[1])
    found, facts = await desk.trading.tradeable()
    assert [one.symbol for one in found] == [SYMBOLS[0], SYMBOLS[2], SYMBOLS[3]]
    assert {one.weight_u for one in found} == {20_000_000}
    assert facts.data_source == "sandbox"
    desk.later(hours=1)
    assert (await desk.trading.tradeable())[0] == ()


async def test_position_size_in_whole_lots(desk: Desk) -> None:
    await desk.filled(4)
    sized, _ = await desk.trading.position_size(SYMBOLS[0], Decimal(1003), Decimal(2))
    assert sized.price == Decimal("10.0")  # one lot is 0.1 coins: one USDT
    assert (sized.size.lots, sized.size.notional) == (401, Decimal(401))
    assert sized.size.margin == Decimal("200.5")
    given, _ = await desk.trading.position_size(
        SYMBOLS[0], Decimal(1000), Decimal(1), Decimal(20), 0.5
    )
    assert given.size.lots == 50
    assert given.size.applied == ("confidence",)


async def test_the_caps_are_measured_on_the_portfolio_and_the_market_of_the_moment(
    desk: Desk,
) -> None:
    await desk.filled(4)  # 20 % each, 80 % invested
    caps = await capped(desk, Decimal(1_000), Decimal(2))
    assert caps["gross_leverage"].value == Decimal("1.6")
    panel = desk.market.panels[Interval.DAY]
    weights = dict.fromkeys(SYMBOLS[:4], 0.2)
    loss = compute_risk(panel, weights).tails[0].var
    assert loss is not None
    assert float(caps["portfolio_var"].value) == pytest.approx(2.0 * loss)
    away = 3.0 * 0.8 / math.sqrt(365.0)
    assert float(caps["liquidation_distance"].limit) == pytest.approx(away)
    assert caps["liquidation_distance"].value == Decimal("0.495")  # 1/2 less 0.5 %
    assert caps["turnover"].limit == Decimal(500_000)  # 1 % of 50 million
    assert caps["depth"].limit == Decimal(99_900)  # a tenth of a million lots at 9.99
    assert not any(one.is_applied for one in caps.values())
    settings = {"volatility_target": 0.05, "var_limit": 0.0, "max_gross_leverage": 1.5}
    await desk.configuration.put({"sizing": settings}, "calmer", WHO)
    calm = await capped(desk, Decimal(1_000), Decimal(2))
    assert calm["volatility_target"].is_applied
    assert "portfolio_var" not in calm
    assert calm["gross_leverage"].is_applied
    known = estimate_covariance(panel, SYMBOLS[:4])
    # The other cap came first: what is left of the leverage is 1.5 / 0.8.
    expected = 1.875 * (known.volatility(weights) or 0.0)
    assert float(calm["volatility_target"].value) == pytest.approx(expected)


async def capped(desk: Desk, balance: Decimal, leverage: Decimal) -> dict[str, Cap]:
    sized, _ = await desk.trading.position_size(SYMBOLS[0], balance, leverage)
    assert sized.size.reason is None
    return {cap.name.value: cap for cap in sized.size.caps}


async def test_a_position_needs_a_book_and_a_history(desk: Desk) -> None:
    await desk.filled(4)

    async def reason() -> str | None:
        sized, _ = await desk.trading.position_size(SYMBOLS[0], Decimal(1_000), Decimal(1))
        return sized.size.reason

    thin = book("C00USDTM", lots=100)  # 99.9 USDT on the thinner side
    desk.quote(SYMBOLS[0], book=thin)
    sized, _ = await desk.trading.position_size(SYMBOLS[0], Decimal(1_000), Decimal(1))
    assert (sized.size.binding, sized.size.lots) == ("depth", 9)
    desk.quote(SYMBOLS[0], book=None)
    assert await reason() == "book_unknown"
    desk.quote(SYMBOLS[0], book=thin)
    desk.market.panels.pop(Interval.DAY)
    assert await reason() == "portfolio_var_unknown"
    await desk.configuration.put({"sizing": {"var_limit": 0}}, "none", WHO)
    assert await reason() is None
    await desk.configuration.put({"sizing": {"volatility_target": 1}}, "calm", WHO)
    assert await reason() == "portfolio_volatility_unknown"


async def test_no_position_with_the_reason(desk: Desk) -> None:
    await desk.filled(4)
    one = Decimal(1)
    not_member, _ = await desk.trading.position_size(SYMBOLS[9], Decimal(1000), one)
    assert (not_member.size.lots, not_member.size.reason) == (0, "it is not a member")
    desk.quote(SYMBOLS[0], mark=None)
    unpriced, _ = await desk.trading.position_size(SYMBOLS[0], Decimal(1000), one)
    assert unpriced.size.reason == "price_unknown"
    desk.score({SYMBOLS[1]: 0.2})
    await desk.portfolio.add(SYMBOLS[40], "low", WHO)
    desk.score({SYMBOLS[40]: 0.9})
    idle, _ = await desk.trading.position_size(SYMBOLS[40], Decimal(1000), one)
    assert idle.size.reason == "no_weight"


async def test_D02_a_symbol_in_quarantine_is_not_traded_and_its_weight_stays(desk: Desk) -> None:
    await desk.filled(8)
    before = {
        one.member.symbol: one.member.weight_u for one in (await desk.portfolio.view()).members
    }
    desk.quote(SYMBOLS[1], quarantine_reason=QuarantineReason.LAST_OFF_MARK, mark=Decimal(10_000))
    assert await failed(desk, SYMBOLS[1]) == [QUALITY]
    verdict, _ = await desk.trading.should_trade(SYMBOLS[1])
    assert "quarantine" in verdict.reason
    sized, _ = await desk.trading.position_size(SYMBOLS[1], Decimal(1000), Decimal(1))
    assert sized.size.lots == 0
    desk.score({SYMBOLS[0]: 0.3})  # its share goes to the others
    done = await desk.rebalancing.rebalance(WHO)
    assert done.result is not None
    ruled = {one.symbol: one for one in done.result.plan.changes}
    assert {*ruled} == {SYMBOLS[0], *SYMBOLS[2:8]}, "all but the one in quarantine"
    after = {
        one.member.symbol: one.member.weight_u for one in (await desk.portfolio.view()).members
    }
    assert after[SYMBOLS[1]] == before[SYMBOLS[1]]
    desk.quote(SYMBOLS[9], quarantine_reason=QuarantineReason.MARK_OFF_INDEX)
    with pytest.raises(RefusedError) as caught:
        await desk.portfolio.add(SYMBOLS[9], "try", WHO)
    assert caught.value.code is Code.SYMBOL_NOT_TRADABLE
    assert "quarantine" in str(caught.value)


async def test_D07_a_symbol_that_nobody_trades_does_not_come_in(desk: Desk) -> None:
    await desk.filled(4)
    desk.quote(SYMBOLS[9], is_frozen=True)
    with pytest.raises(RefusedError) as caught:
        await desk.portfolio.add(SYMBOLS[9], "try", WHO)
    assert caught.value.code is Code.SYMBOL_NOT_TRADABLE
    desk.quote(SYMBOLS[0], is_frozen=True)
    assert await failed(desk, SYMBOLS[0]) == [QUALITY]


async def test_D02_D07_a_portfolio_begins_without_what_nobody_trades_or_believes(
    desk: Desk,
) -> None:
    await desk.open()
    desk.score(dict.fromkeys(SYMBOLS, 0.8))
    desk.quote(SYMBOLS[0], is_frozen=True)
    desk.quote(SYMBOLS[1], quarantine_reason=QuarantineReason.MARK_OFF_INDEX)
    await desk.portfolio.initialize(8, "start", WHO)
    assert await desk.members() == list(SYMBOLS[2:10])


async def test_D02_D07_D21_who_stands_still_keeps_its_weight_whatever_sets_the_others(
    desk: Desk,
) -> None:
    async def held() -> dict[str, int]:
        shown = (await desk.portfolio.view()).members
        return {one.member.symbol: one.member.weight_u for one in shown}

    await desk.filled(10)
    before, still = await held(), SYMBOLS[1:4]
    desk.quote(SYMBOLS[1], is_frozen=True)
    desk.quote(SYMBOLS[2], quarantine_reason=QuarantineReason.MARK_OFF_INDEX)
    desk.stale(SYMBOLS[3])
    desk.score({**dict.fromkeys(still, 0.999), SYMBOLS[0]: 0.3})
    shown = await desk.rebalancing.weights()
    target_u = {one.member.symbol: one.target_u for one in shown.lines}
    assert {one: target_u[one] for one in still} == {one: before[one] for one in still}
    await desk.rebalancing.rebalance(WHO)
    middle = await held()
    await desk.portfolio.remove(SYMBOLS[9], "its share goes to the others", WHO)
    after = await held()
    for one in still:
        assert before[one] == middle[one] == after[one], one
    assert middle[SYMBOLS[0]] == 0
    assert after[SYMBOLS[4]] > middle[SYMBOLS[4]] > before[SYMBOLS[4]]


async def test_D08_nothing_is_traded_on_a_quote_that_makes_no_sense(desk: Desk) -> None:
    await desk.filled(2)
    assert await failed(desk, SYMBOLS[0]) == []
    for bid, ask in (("10.01", "9.99"), ("10", "10"), ("0", "10"), ("9.7", "10.25")):
        desk.quote(SYMBOLS[0], bid=Decimal(bid), ask=Decimal(ask))
        assert await failed(desk, SYMBOLS[0]) == [QUALITY], (bid, ask)
    desk.quote(SYMBOLS[0], bid=None)
    assert await failed(desk, SYMBOLS[0]) == [QUALITY]
    desk.quote(SYMBOLS[0], bid=Decimal("9.76"), ask=Decimal("10.24"))
    assert await failed(desk, SYMBOLS[0]) == []


async def test_D08_what_a_trade_costs_is_not_known_from_a_quote_that_makes_no_sense(
    desk: Desk,
) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})

    async def cost() -> float | None:
        made = (await desk.rebalancing.rebalance(WHO, dry_run=True)).result
        assert made is not None
        assert SYMBOLS[0] in {one.symbol for one in made.plan.changes}
        return made.cost

    known = await cost()
    assert known is not None
    for bid, ask in (("10.01", "9.99"), ("10", "10"), ("9.7", "10.25")):
        desk.quote(SYMBOLS[0], bid=Decimal(bid), ask=Decimal(ask))
        assert await cost() is None, (bid, ask)
    desk.quote(SYMBOLS[0], bid=Decimal("9.99"), ask=Decimal("10.01"))
    assert await cost() == known
