"""May it be traded, and how much of it."""

from decimal import Decimal

import pytest

from app.domain.errors import RefusedError
from app.domain.market import ContractStatus
from app.services.trading import FRESH, MARKET, MEMBER, OPEN, SCORE
from tests.services.desk import SYMBOLS, WHO, Desk


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
    assert given.size.caps == ("confidence",)


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
