"""What is believed of one symbol at one moment of the market."""

from collections.abc import Iterable
from datetime import datetime

from app.configuration.domain.sections import QualitySettings
from app.market.domain.data_quality import (
    is_untimely,
    newest_off_price,
    turnover_off_price,
    volume_jump,
)
from app.market.domain.models import Contract, ContractStats, Ticker
from app.market.domain.price_quarantine import Doubt, PriceState, Reading, disagreement, is_frozen
from app.market.domain.quality_report import is_funding_plausible
from app.market.domain.reference_prices import young
from app.market.services.exchange_clock import instant
from app.market.services.state import Market


def doubt_of(market: Market, code: str, rules: QualitySettings) -> Doubt | None:
    """Why the prices of a contract are not believed: what is remembered, else what they say now.

    A price that came in since the last look is judged here, so that no decision sees it first.
    """
    state = market.quality.get(code)
    if state is not None and state.doubt is not None:
        return state.doubt
    stats, ticker = market.stats.get(code), market.tickers.get(code)
    if stats is None:
        return None
    last = None if ticker is None else ticker.value.last
    index = stats.value.index_price
    if index is None:
        index = young(state, stats.at_ms)
    return disagreement(last, stats.value.mark_price, index, rules)


def reading_of(market: Market, contract: Contract, server_ms: int) -> Reading | None:
    """The prices of a contract as they are now; None before anything was received of it."""
    stats, ticker = market.stats.get(contract.code), market.tickers.get(contract.code)
    if stats is None:
        return None
    times = [stats.at_ms] if ticker is None else [stats.at_ms, ticker.at_ms]
    return Reading(
        at_ms=server_ms,
        stamp=max(times),
        multiplier=contract.multiplier,
        last=None if ticker is None else ticker.value.last,
        mark=stats.value.mark_price,
        index=stats.value.index_price,
        traded_ms=None if ticker is None else ticker.value.traded_ms,
        elsewhere=young(market.quality.get(contract.code), server_ms),
        off_price=off_price_of(market, contract),
        volume_jump=volume_jump_of(market, contract),
    )


def off_price_of(market: Market, contract: Contract) -> float | None:
    """How far turnover / volume lies beyond the prices, of the day and of the newest hour.

    Of an inverse contract nothing is known: its turnover is made from its volume.
    """
    stats, hourly = market.stats.get(contract.code), market.hourly.get(contract.code)
    if contract.is_inverse:
        return None
    found = [None if hourly is None else newest_off_price(hourly.value)]
    if stats is not None:
        one = stats.value
        figures = (one.turnover_24h, one.volume_24h, one.low_24h, one.high_24h)
        known = [float(figure) for figure in figures if figure is not None]
        if len(known) == len(figures):
            found.append(turnover_off_price(*known))
    return max((away for away in found if away is not None), default=None)


def volume_jump_of(market: Market, contract: Contract) -> float | None:
    hourly = market.hourly.get(contract.code)
    return None if hourly is None else volume_jump(hourly.value)


def frozen(market: Market, contract: Contract, server_ms: int, rules: QualitySettings) -> bool:
    """Whether nobody trades it while its index moves on."""
    state: PriceState | None = market.quality.get(contract.code)
    reading = reading_of(market, contract, server_ms)
    return state is not None and reading is not None and is_frozen(state, reading, rules)


def next_funding(
    stats: ContractStats | None, contract: Contract, server_ms: int
) -> datetime | None:
    """When funding is next settled; None where it is not known or cannot be true.

    True is only what lies in (now, now + interval]: a time that is one interval off is missing,
    and so is one of an unknown interval.
    """
    told = None if stats is None else stats.next_funding_ms
    interval = contract.funding_interval_ms
    if told is None or interval is None or not is_funding_plausible(told, interval, server_ms):
        return None
    return instant(told)


def timely(market: Market, tickers: Iterable[Ticker], server_ms: int) -> tuple[Ticker, ...]:
    """Without those that come after newer ones, or from the future."""

    def is_late(one: Ticker) -> bool:
        held = market.tickers.get(one.code)
        before = None if held is None else held.value.traded_ms
        return is_untimely(one.traded_ms, before, server_ms)

    return tuple(one for one in tickers if not is_late(one))
