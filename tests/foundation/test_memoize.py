"""Views of the whole market are cached exactly as long as they are valid."""

import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from app.configuration.domain.model import Configuration, EligibilitySettings
from app.configuration.domain.sections import Source
from app.foundation.memoize import ViewCache
from app.foundation.sql.database import Database
from app.market.domain.eligibility import (
    EligibilityCandidate,
    EligibilityLimits,
    Funnel,
    first_failure,
)
from app.market.services.backfill import first_fill
from app.market.services.service import MarketData
from app.market.services.snapshot import COUNT_S
from app.market.services.state import DailyFacts, Market
from app.market.services.view import quote_until
from tests.support.live_market import LiveMarket, open_market

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
async def live(database: Database) -> AsyncIterator[LiveMarket]:
    async with open_market(database, contracts=14) as opened:
        yield opened


def seen(data: MarketData) -> tuple[Funnel, int]:
    """Compared with what somebody finds who remembers nothing."""
    moment = data.moment()
    anew = replace(moment, memory=ViewCache())
    found = (moment.funnel(), moment.stale_symbols())
    assert found == (anew.funnel(), anew.stale_symbols())
    assert moment.status() is anew.status()
    for symbol in (*(entry.symbol for entry in moment.known.index.entries), "NOSUCH"):
        assert data.quote(symbol) == quote_until(anew, symbol)[0]
    return found


async def test_it_is_worked_out_once_and_anew_when_something_turns(live: LiveMarket) -> None:
    settings = [Configuration()]
    data = live.market()
    data.configuration = lambda: settings[0]
    await first_fill(data)
    funnel, stale = seen(data)
    assert funnel.eligible
    assert stale == 0
    assert data.moment().funnel() is funnel
    name = funnel.eligible[0]
    assert data.quote(name) is data.quote(name)
    before = data.quote(name)
    assert before is not None
    assert before.is_fresh

    oldest = min(one.mono for one in data.live.market.tickers.values())
    limit_s = settings[0].age_limit_s(Source.TICKERS)
    live.clock.pass_(oldest + limit_s - live.clock.monotonic())
    assert seen(data) == (funnel, 0)  # at its limit a quote is fresh
    live.clock.pass_(0.5)
    assert seen(data)[0].eligible == ()
    assert seen(data)[1] > 0
    after = data.quote(name)
    assert after is not None
    assert not after.is_fresh

    await data.refresh_market()
    assert seen(data)[1] == 0
    floors = EligibilitySettings(min_daily_bars=10_000)
    settings[0] = replace(settings[0], eligibility=floors)
    assert seen(data)[0].eligible == ()


def _without_turnover(market: Market, code: str) -> Market:
    was = market.stats[code]
    poor = was.with_value(replace(was.value, turnover_24h=Decimal(1)))
    return replace(market, stats={**market.stats, code: poor})


def _without_quote(market: Market, code: str) -> Market:
    return replace(market, tickers={key: it for key, it in market.tickers.items() if key != code})


def _young(market: Market, code: str) -> Market:
    return replace(market, daily_facts={**market.daily_facts, code: DailyFacts(1, None)})


def _doubted(market: Market, code: str) -> Market:
    was = market.tickers[code]
    strange = was.with_value(was.value._replace(last=was.value.last * 1000))
    return replace(market, tickers={**market.tickers, code: strange})


def _contradicted(market: Market, code: str) -> Market:
    return replace(market, diverged=frozenset({code}))


@pytest.mark.parametrize(
    "change", [_without_turnover, _without_quote, _young, _doubted, _contradicted]
)
async def test_a_change_of_one_symbol_recomputes_that_symbol_alone(
    live: LiveMarket, change: Callable[[Market, str], Market], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = live.market()
    await first_fill(data)
    before = data.funnel()
    name = before.eligible[0]
    entry = data.resolve(name)
    data.live.market = change(data.live.market, entry.contract.code)
    judged: list[str] = []

    def judge(one: EligibilityCandidate, limits: EligibilityLimits) -> str | None:
        judged.append(one.symbol)
        return first_failure(one, limits)

    monkeypatch.setattr("app.market.services.eligibility.first_failure", judge)
    assert data.funnel().eligible == before.eligible[1:]
    assert judged == [name]
    seen(data)


async def test_the_number_of_eligible_symbols_is_counted_every_few_seconds(
    live: LiveMarket,
) -> None:
    data = live.market()
    await first_fill(data)
    before = data.facts().eligible
    entry = data.resolve(data.funnel().eligible[0])
    data.live.market = _without_quote(data.live.market, entry.contract.code)
    assert data.facts().eligible == before
    live.clock.pass_(COUNT_S + 0.01)
    assert data.facts().eligible == before - 1


async def test_eligibility_is_computed_off_the_event_loop(
    live: LiveMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, judges = live.market(), set[threading.Thread]()
    await first_fill(data)
    before = data.facts().eligible

    def judge(one: EligibilityCandidate, limits: EligibilityLimits) -> str | None:
        judges.add(threading.current_thread())
        return first_failure(one, limits)

    monkeypatch.setattr("app.market.services.eligibility.first_failure", judge)
    for wanted in (before - 1, before - 2):
        entry = data.resolve(data.eligible()[0].symbol)
        data.live.market = _without_quote(data.live.market, entry.contract.code)
        live.clock.pass_(COUNT_S + 0.01)
        judges.clear()
        if wanted == before - 1:
            await data.count()
            assert data.facts().eligible == wanted
        else:
            assert len(await data.eligible_in_thread()) == wanted
        assert judges
        assert threading.main_thread() not in judges
