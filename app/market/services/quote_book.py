"""Quotes of all contracts, reconciled from two ways: streamed updates and polled answers."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import structlog

from app.configuration.domain.sections import QualitySettings, Source
from app.market.domain.data_quality import diverged_since, has_diverged
from app.market.domain.models import Ticker
from app.market.domain.stream import MarketUpdate, QuoteUpdate, TradeUpdate
from app.market.services.state import LiveMarket, Market, Received, Stamping, joined
from app.market.services.symbol_quality import timely_tickers

GRACE_S: Final = 2.0  # updates in flight at the time of a poll arrive within it
MAX_MISSED_MOVES: Final = (
    2  # moves in a row without an update; polls no longer confirm such a quote
)
TRIAL_S: Final = 15.0  # time without a move after which a mute topic counts as quiet
_NEVER: Final = float("-inf")
_log = structlog.get_logger("quotes")


def _no_streams() -> Mapping[str, float]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _QuietTrial:
    """First polled quote of a mute topic, its subscription `since`, and the time of that poll."""

    answer: Ticker
    since: float
    begun: float  # monotonic time of the poll


@dataclass(slots=True)
class QuoteBook:
    """Quotes from stream and polls.

    While the market streams, a poll only confirms a streamed quote or raises suspicion.
    `streamed_since` returns the contracts whose quotes are streamed, and since when. A quote that
    is neither streamed nor confirmed ages, whatever polls say. So does one that moved twice without
    an update, until it is updated again or has not moved for a while since its resubscription.
    While the stream as a whole is away, polled quotes are used. A streamed quote that differs from
    the polled one for too long makes both untrusted.
    """

    live: LiveMarket
    rules: Callable[[], QualitySettings] = QualitySettings
    streamed_since: Callable[[], Mapping[str, float]] = _no_streams
    last_update: dict[str, float] = field(default_factory=dict)  # monotonic time of the last update
    is_stream_away: bool = False  # too few quotes are streamed
    last_poll: float = _NEVER  # when the newest poll was sent
    _suspects: dict[str, float] = field(default_factory=dict)  # since when polls differ
    _polled_bases: dict[str, float] = field(default_factory=dict)  # subscriptions based on a poll
    _missed: dict[str, int] = field(default_factory=dict)  # moves in a row without an update
    _reported: dict[str, float] = field(default_factory=dict)  # when last reported as stalled
    _trials: dict[str, _QuietTrial] = field(default_factory=dict)  # of mute topics
    _differing_since: dict[str, float] = field(default_factory=dict)  # since when both ways differ

    def apply_polled(
        self, tickers: Collection[Ticker], sent: float, *, after_gap: bool = False
    ) -> int:
        """Applies polled quotes; `sent` is the monotonic time of the request.

        `after_gap` means that updates were missed: the stream then continues from the polled
        quotes. Returns the number of quotes that were dropped as too late or too early.
        """
        self.last_poll, market = sent, self.live.market
        accepted = timely_tickers(market, tickers, self.live.server_clock.now_ms())
        streamed, is_compared = self.streamed_since(), market.is_streaming or after_gap
        fresh: dict[str, Received[Ticker]] = {}
        for one in accepted:
            before, updated = market.tickers.get(one.code), self.last_update.get(one.code, _NEVER)
            if before is None:
                fresh[one.code] = self.live.received(one)
            elif updated > sent:
                fresh[one.code] = before.with_value(_with_trade(before.value, one))
            elif not is_compared:
                fresh[one.code] = self.live.received(one)
            else:
                fresh[one.code] = self._compare(one, before, sent, streamed, after_gap=after_gap)
        new_market = replace(
            market,
            tickers=joined(market.tickers, fresh),
            diverged=self._find_diverged(
                market, accepted, sent, streamed if market.is_streaming else {}
            ),
        )
        self.live.publish(new_market, Source.TICKERS)
        return len(tickers) - len(accepted)

    def _find_diverged(
        self,
        market: Market,
        answers: Collection[Ticker],
        sent: float,
        streamed: Mapping[str, float],
    ) -> frozenset[str]:
        """Returns contracts whose streamed and polled quotes have differed for too long."""
        rules, differing = self.rules(), dict[str, float]()
        for one in answers:
            stored = market.tickers.get(one.code)
            if stored is None or one.code not in streamed:
                continue
            since = diverged_since(
                self._differing_since.get(one.code), stored.value, one, sent, rules
            )
            if since is not None:
                differing[one.code] = since
        self._differing_since = differing
        diverged = frozenset(
            code for code, since in differing.items() if has_diverged(since, sent, rules)
        )
        for code in sorted(diverged - market.diverged):
            _log.warning("feed_divergence", code=code)
        return market.diverged if diverged == market.diverged else diverged

    def _compare(
        self,
        one: Ticker,
        before: Received[Ticker],
        sent: float,
        streamed: Mapping[str, float],
        *,
        after_gap: bool,
    ) -> Received[Ticker]:
        """Returns the quote to store after comparing a streamed quote with the polled one."""
        code, traded = one.code, _with_trade(before.value, one)
        since = streamed.get(code)
        is_new = since is not None and self.last_update.get(code, _NEVER) < since <= sent
        if is_new and self._polled_bases.get(code) == since:
            is_new = False
        if (after_gap or is_new) and self._missed.get(code, 0) < MAX_MISSED_MOVES:
            if since is not None:
                self._polled_bases[code] = since
            return self._stamp_polled(one, sent)
        if since is not None and self._missed.get(code, 0) >= MAX_MISSED_MOVES:
            return self._try(one, before, sent, since)
        if since is None and self.is_stream_away:
            return self._stamp_polled(one, sent)
        if since is not None and _is_equal_quote(before.value, one):
            self._suspects.pop(code, None)
            return self._stamp_polled(traded, sent)
        if since is not None and since <= sent:
            self._suspects.setdefault(code, sent)
        return before.with_value(traded)

    def _try(
        self, one: Ticker, before: Received[Ticker], sent: float, since: float
    ) -> Received[Ticker]:
        """Returns the quote to store for a mute topic, whose market may be without moves.

        Another move without an update shows a stalled topic; no move for `TRIAL_S` a quiet one.
        """
        code, trial = one.code, self._trials.get(one.code)
        if since <= self._reported.get(code, _NEVER):
            self._suspects.setdefault(code, sent)  # not resubscribed yet
        elif trial is None or trial.since != since or not _is_equal_quote(trial.answer, one):
            if trial is not None and trial.since == since:
                self._suspects.setdefault(code, sent)
            self._trials[code] = _QuietTrial(one, since, sent)
        elif sent - trial.begun >= TRIAL_S:
            del self._trials[code]
            # The next move without an update makes it mute again.
            self._missed[code] = MAX_MISSED_MOVES - 1
            return self._stamp_polled(one, sent)
        return before.with_value(_with_trade(before.value, one))

    def apply_streamed(
        self, current: Received[Ticker], one: MarketUpdate, update: QuoteUpdate, stamped: Stamping
    ) -> Received[Ticker] | None:
        """Returns the quote with a streamed update; None for one older than the stored quote."""
        before = current.value
        code = before.code
        self.last_update[code] = one.mono
        for records in (self._suspects, self._missed, self._trials, self._reported):
            if records:
                records.pop(code, None)
        if one.stamped_ms < current.at_ms:
            return None
        value = Ticker(  # some thousand a second; `_replace` takes several times as long
            code,
            before.last,
            before.last_lots,
            update.bid,
            update.bid_lots,
            update.ask,
            update.ask_lots,
            before.traded_ms,
        )
        return stamped(value, one.stamped_ms, one.mono)

    def apply_trade(
        self, current: Received[Ticker], update: TradeUpdate
    ) -> Received[Ticker] | None:
        """Returns the quote with a newer streamed trade, as old as before; None for a known trade.

        Quarantine compares the last trade with mark and index.
        """
        before = current.value
        if update.traded_ms <= before.traded_ms:
            return None
        return current.with_value(
            before._replace(last=update.price, last_lots=update.lots, traded_ms=update.traded_ms)
        )

    def take_stalled(self) -> tuple[str, ...]:
        """Returns contracts that moved without an update; each is reported once per detection."""
        now = self.live.monotonic()
        before = now - GRACE_S
        stalled = tuple(code for code, sent in self._suspects.items() if sent <= before)
        for code in stalled:
            del self._suspects[code]
            self._missed[code] = self._missed.get(code, 0) + 1
            self._reported[code] = now
        return stalled

    def _stamp_polled(self, value: Ticker, sent: float) -> Received[Ticker]:
        """Stamps a polled value with the time of its request, when it was certainly true."""
        passed_ms = (self.live.monotonic() - sent) * 1000
        return Received(value, int(self.live.server_clock.now_ms() - passed_ms), sent)


def _is_equal_quote(current: Ticker, polled: Ticker) -> bool:
    return (current.bid, current.ask) == (polled.bid, polled.ask)


def _with_trade(current: Ticker, polled: Ticker) -> Ticker:
    """Returns the first quote with the later of both trades."""
    if polled.traded_ms <= current.traded_ms:
        return current
    return current._replace(
        last=polled.last, last_lots=polled.last_lots, traded_ms=polled.traded_ms
    )
