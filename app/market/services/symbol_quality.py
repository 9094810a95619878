"""Data-quality checks of one symbol at one moment: quarantine, price inputs, funding time."""

from collections.abc import Iterable
from datetime import datetime

from app.configuration.domain.sections import QualitySettings
from app.market.domain.data_quality import (
    average_price_deviation,
    is_untimely,
    newest_price_deviation,
    volume_jump,
)
from app.market.domain.models import Contract, ContractStats, Ticker
from app.market.domain.price_quarantine import (
    PriceReading,
    PriceState,
    QuarantineReason,
    find_price_contradiction,
    is_frozen,
)
from app.market.domain.quality_report import is_funding_plausible
from app.market.domain.reference_prices import fresh_reference_price
from app.market.services.exchange_clock import instant
from app.market.services.state import Market


def find_quarantine_reason(
    market: Market, code: str, rules: QualitySettings
) -> QuarantineReason | None:
    """Returns the stored reason of a quarantine, else the contradiction of the present prices.

    Prices that arrived after the last check are judged here, so no decision uses them unchecked.
    """
    state = market.quality.get(code)
    if state is not None and state.quarantine_reason is not None:
        return state.quarantine_reason
    stats, ticker = market.stats.get(code), market.tickers.get(code)
    if stats is None:
        return None
    last = None if ticker is None else ticker.value.last
    index = stats.value.index_price
    if index is None:
        index = fresh_reference_price(state, stats.at_ms)
    return find_price_contradiction(last, stats.value.mark_price, index, rules)


def price_reading(market: Market, contract: Contract, server_ms: int) -> PriceReading | None:
    """Returns the present prices of a contract; None before any data of it."""
    stats, ticker = market.stats.get(contract.code), market.tickers.get(contract.code)
    if stats is None:
        return None
    times = [stats.at_ms] if ticker is None else [stats.at_ms, ticker.at_ms]
    return PriceReading(
        at_ms=server_ms,
        stamp=max(times),
        multiplier=contract.multiplier,
        last=None if ticker is None else ticker.value.last,
        mark=stats.value.mark_price,
        index=stats.value.index_price,
        traded_ms=None if ticker is None else ticker.value.traded_ms,
        reference_price=fresh_reference_price(market.quality.get(contract.code), server_ms),
        price_deviation=turnover_price_deviation(market, contract),
        volume_jump=newest_volume_jump(market, contract),
    )


def turnover_price_deviation(market: Market, contract: Contract) -> float | None:
    """Returns how far turnover / volume lies outside the prices of the day and of the newest hour.

    None for an inverse contract: its turnover is computed from its volume.
    """
    stats, hourly = market.stats.get(contract.code), market.hourly.get(contract.code)
    if contract.is_inverse:
        return None
    deviations = [None if hourly is None else newest_price_deviation(hourly.value)]
    if stats is not None:
        one = stats.value
        figures = (one.turnover_24h, one.volume_24h, one.low_24h, one.high_24h)
        known = [float(figure) for figure in figures if figure is not None]
        if len(known) == len(figures):
            deviations.append(average_price_deviation(*known))
    return max((away for away in deviations if away is not None), default=None)


def newest_volume_jump(market: Market, contract: Contract) -> float | None:
    hourly = market.hourly.get(contract.code)
    return None if hourly is None else volume_jump(hourly.value)


def is_without_trades(
    market: Market, contract: Contract, server_ms: int, rules: QualitySettings
) -> bool:
    """True if a contract has no trades while its index moves."""
    state: PriceState | None = market.quality.get(contract.code)
    reading = price_reading(market, contract, server_ms)
    return state is not None and reading is not None and is_frozen(state, reading, rules)


def next_funding(
    stats: ContractStats | None, contract: Contract, server_ms: int
) -> datetime | None:
    """Returns the next funding time; None where it is unknown or implausible.

    Plausible is (now, now + interval]: a time that is one interval off counts as missing, and so
    does one of an unknown interval.
    """
    next_ms = None if stats is None else stats.next_funding_ms
    interval = contract.funding_interval_ms
    if (
        next_ms is None
        or interval is None
        or not is_funding_plausible(next_ms, interval, server_ms)
    ):
        return None
    return instant(next_ms)


def timely_tickers(market: Market, tickers: Iterable[Ticker], server_ms: int) -> tuple[Ticker, ...]:
    """Returns the tickers that are neither older than the stored ones nor in the future."""

    def is_late(one: Ticker) -> bool:
        current = market.tickers.get(one.code)
        before = None if current is None else current.value.traded_ms
        return is_untimely(one.traded_ms, before, server_ms)

    return tuple(one for one in tickers if not is_late(one))
