"""The four portfolio alerts over a real portfolio."""

from dataclasses import replace
from decimal import Decimal

import pytest

from app.domain.alert_settings import Severity
from app.domain.alerts import Rule
from app.domain.errors import RefusedError
from app.domain.market import ContractStatus, Interval
from tests.services.desk import NOW, SYMBOLS, Desk


async def test_all_four_rules_fire_and_can_be_chosen_from(desk: Desk) -> None:
    await desk.filled(5)
    assert (await desk.alerts.current())[0] == ()
    desk.status(SYMBOLS[0], ContractStatus.PAUSED)
    desk.score({SYMBOLS[1]: 0.3})
    desk.quote(SYMBOLS[2], mark=Decimal(7))
    panel = desk.market.panels[Interval.DAY]
    close = panel.close.copy()
    close[:, panel.symbols.index(SYMBOLS[4])] = close[:, panel.symbols.index(SYMBOLS[3])]
    desk.market.panels[Interval.DAY] = replace(panel, close=close)
    alerts, facts = await desk.alerts.current()
    assert [(one.rule, one.subject) for one in alerts] == [
        (Rule.NOT_TRADEABLE, SYMBOLS[0]),
        (Rule.HIGH_CORRELATION, f"{SYMBOLS[3]}-{SYMBOLS[4]}"),
        (Rule.LOW_SCORE, SYMBOLS[1]),
        (Rule.POOR_PERFORMANCE, SYMBOLS[2]),
    ]
    assert facts.as_of == alerts[0].since == NOW
    by_symbol, _ = await desk.alerts.current(symbol=f"{SYMBOLS[4].lower()}")
    assert [one.rule for one in by_symbol] == [Rule.HIGH_CORRELATION]
    critical, _ = await desk.alerts.current(severity=Severity.CRITICAL)
    assert [one.rule for one in critical] == [Rule.NOT_TRADEABLE]
    low, _ = await desk.alerts.current(rule=Rule.LOW_SCORE)
    assert [one.value for one in low] == [0.3]
    with pytest.raises(RefusedError):
        await desk.alerts.current(symbol="NOSUCH")


async def test_without_market_data_there_are_no_guesses(desk: Desk) -> None:
    await desk.filled(3)
    desk.market.quotes.clear()
    desk.market.panels.clear()
    desk.market.seen_at = None
    desk.boards.board = None
    assert (await desk.alerts.current())[0] == ()
