"""What decisions see of one contract, and how long that is true by itself."""

from math import inf

from app.configuration.domain.sections import Source
from app.market.services.snapshot import MarketMoment
from app.market.services.symbol_quality import doubt_of, frozen
from app.market.services.view import Quote


def quoted(moment: MarketMoment, symbol: str) -> tuple[Quote | None, float]:
    """Contract and prices of a standard symbol, None for one that was never seen.

    With it the last monotonic second at which nothing in it has turned stale that is fresh now.
    """
    entry = moment.known.index.find(symbol)
    if entry is None:
        return None, inf
    market, code = moment.market, entry.contract.code
    stats, ticker, book = market.stats.get(code), market.tickers.get(code), market.books.get(code)
    limit_s, rules = moment.age_limit_s, moment.configuration.quality
    turns = [
        one.mono + limit_s(source)
        for source, one in (
            (Source.CONTRACTS, stats),
            (Source.TICKERS, ticker),
            (Source.BOOKS, book),
        )
        if one is not None and moment.mono - one.mono <= limit_s(source)
    ]
    quote = Quote(
        contract=entry.contract,
        sector=moment.sectors.of(entry.contract.base).sector,
        mark=None if stats is None else stats.value.mark_price,
        bid=None if ticker is None else ticker.value.bid,
        ask=None if ticker is None else ticker.value.ask,
        turnover_24h=None if stats is None else stats.value.turnover_24h,
        is_fresh=moment.is_fresh(entry),
        book=moment.book(entry),
        funding_rate=None if stats is None else stats.value.funding_rate,
        doubt=doubt_of(market, code, rules),
        paused_since=moment.known.record(entry).paused_since,
        lot_changes=moment.known.record(entry).lot_changes,
        is_frozen=frozen(market, entry.contract, moment.server_ms, rules),
    )
    return quote, min(turns, default=inf)
