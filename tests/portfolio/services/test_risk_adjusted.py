"""Rebalances that weigh cost and risk, on both databases: settings in, fewer or smaller trades."""

from decimal import Decimal

import pytest

from app.configuration.domain.model import WeightingMethod
from app.portfolio.domain.rebalance_plan import Trigger
from app.portfolio.domain.weighting import Flag
from tests.portfolio.services.test_rebalancing import rebalanced
from tests.support.trading_desk import SYMBOLS, WHO, Desk


async def test_a_band_by_cost_saves_the_trades_of_those_who_stand_inside_it(desk: Desk) -> None:
    await desk.filled()
    await desk.configuration.put({"rebalancing": {"cost_based_no_trade_band": True}}, "dear", WHO)
    desk.score(dict.fromkeys(SYMBOLS[:10], 0.9))
    await rebalanced(desk)
    desk.quote(SYMBOLS[0], mark=Decimal("12.3"))
    everybody = len((await desk.rebalancing.weights()).lines)
    made = await rebalanced(desk)
    assert made.plan.triggers == (Trigger.DRIFT,)
    assert 0 < len(made.plan.changes) < everybody
    assert SYMBOLS[0] in {change.symbol for change in made.plan.changes}
    weights = made.plan.allocation.weights_u
    assert sum(weights.values()) + made.plan.allocation.cash_u == 100_000_000
    again = await rebalanced(desk)
    assert (again.plan.changes, again.version) == ((), made.version)


async def test_a_volatility_target_leaves_cash(desk: Desk) -> None:
    await desk.filled()
    free = (await desk.rebalancing.optimize(await _method(desk))).risk_after
    assert free is not None
    limit = 0.6 * free
    await desk.configuration.put({"rebalancing": {"volatility_target": limit}}, "calm", WHO)
    made = await rebalanced(desk)
    assert Trigger.RISK in made.plan.triggers
    assert Flag.VOLATILITY_TARGET in made.plan.allocation.flags
    assert made.cash_u > 30_000_000
    found = await desk.rebalancing.optimize(await _method(desk))
    assert found.risk_after == pytest.approx(limit, rel=1e-4)
    assert (await rebalanced(desk)).plan.changes == ()


async def _method(desk: Desk) -> WeightingMethod:
    return (await desk.configuration.current()).rebalancing.method
