"""Best quotes by two ways: what the exchange tells, and what it answers when it is asked."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import structlog

from app.configuration.domain.sections import QualitySettings, Source
from app.market.domain.data_quality import has_diverged, parted_since
from app.market.domain.models import Ticker
from app.market.domain.stream import QuoteUpdate, Told, TradeUpdate
from app.market.services.state import LiveMarket, Market, Received, Stamping, joined
from app.market.services.symbol_quality import timely

GRACE_S: Final = 2.0  # what was on its way when we asked has come by then
MUTE: Final = 2  # so many moves in a row that were not told of: answers do not help now
TRIAL_S: Final = 15.0  # without a move: quiet, and no longer thought to be mute
_NEVER: Final = float("-inf")
_log = structlog.get_logger("quotes")


def _nobody() -> Mapping[str, float]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Trial:
    """The answer that a mute quote was first seen with, under a subscription, and when."""

    answer: Ticker
    since: float
    begun: float


@dataclass(slots=True)
class MarketQuotes:
    """While the market streams an answer only confirms what was told, or raises suspicion.

    `told_of` names the contracts whose quotes are told at present, and since when. A quote that
    is neither told nor confirmed grows old, whatever the answers say of it; so does one that was
    seen to move twice without being told of, until it is told of again, or has not moved for a
    while since it was subscribed anew. While the stream as a whole is away, the answers are taken.
    A quote that is told otherwise than it is answered, and goes on so, is believed in neither
    form.
    """

    live: LiveMarket
    rules: Callable[[], QualitySettings] = QualitySettings
    told_of: Callable[[], Mapping[str, float]] = _nobody
    heard: dict[str, float] = field(default_factory=dict)  # when it was last told of
    is_stream_away: bool = False  # too few quotes are told of for it to be a stream
    asked: float = _NEVER  # when the newest answer was asked for
    _suspects: dict[str, float] = field(default_factory=dict)  # since when answers differ
    _based: dict[str, float] = field(default_factory=dict)  # subscriptions that an answer began
    _missed: dict[str, int] = field(default_factory=dict)  # moves not told of, in a row
    _named: dict[str, float] = field(default_factory=dict)  # as deaf, when last
    _trials: dict[str, _Trial] = field(default_factory=dict)  # of those that were mute
    _parted: dict[str, float] = field(default_factory=dict)  # since when both ways differ

    def answered(self, tickers: Collection[Ticker], sent: float, *, after_gap: bool = False) -> int:
        """All quotes as they were answered to a request of that monotonic time.

        `after_gap` says that nothing was told for a while: then answers are where it goes on from.
        Gives how many were left out, because they came too late or too early.
        """
        self.asked, market = sent, self.live.market
        kept = timely(market, tickers, self.live.server_clock.now_ms())
        told, is_compared = self.told_of(), market.is_streaming or after_gap
        fresh: dict[str, Received[Ticker]] = {}
        for one in kept:
            before, heard = market.tickers.get(one.code), self.heard.get(one.code, _NEVER)
            if before is None:
                fresh[one.code] = self.live.received(one)
            elif heard > sent:
                fresh[one.code] = before.saying(_with_trade(before.value, one))
            elif not is_compared:
                fresh[one.code] = self.live.received(one)
            else:
                fresh[one.code] = self._compared(one, before, sent, told, after_gap=after_gap)
        news = replace(
            market,
            tickers=joined(market.tickers, fresh),
            diverged=self._diverged(market, kept, sent, told if market.is_streaming else {}),
        )
        self.live.publish(news, Source.TICKERS)
        return len(tickers) - len(kept)

    def _diverged(
        self, market: Market, answers: Collection[Ticker], sent: float, told: Mapping[str, float]
    ) -> frozenset[str]:
        """Contracts whose told quotes are contradicted by the answers, for too long."""
        rules, parted = self.rules(), dict[str, float]()
        for one in answers:
            held = market.tickers.get(one.code)
            if held is None or one.code not in told:
                continue
            since = parted_since(self._parted.get(one.code), held.value, one, sent, rules)
            if since is not None:
                parted[one.code] = since
        self._parted = parted
        found = frozenset(
            code for code, since in parted.items() if has_diverged(since, sent, rules)
        )
        for code in sorted(found - market.diverged):
            _log.warning("feed_divergence", code=code)
        return market.diverged if found == market.diverged else found

    def _compared(
        self,
        one: Ticker,
        before: Received[Ticker],
        sent: float,
        told: Mapping[str, float],
        *,
        after_gap: bool,
    ) -> Received[Ticker]:
        """What is held of a quote that is told, beside the answer."""
        code, traded = one.code, _with_trade(before.value, one)
        since = told.get(code)
        is_new = since is not None and self.heard.get(code, _NEVER) < since <= sent
        if is_new and self._based.get(code) == since:
            is_new = False
        if (after_gap or is_new) and self._missed.get(code, 0) < MUTE:
            if since is not None:
                self._based[code] = since
            return self._asked(one, sent)
        if since is not None and self._missed.get(code, 0) >= MUTE:
            return self._on_trial(one, before, sent, since)
        if since is None and self.is_stream_away:
            return self._asked(one, sent)
        if since is not None and _alike(before.value, one):
            self._suspects.pop(code, None)
            return self._asked(traded, sent)
        if since is not None and since <= sent:
            self._suspects.setdefault(code, sent)
        return before.saying(traded)

    def _on_trial(
        self, one: Ticker, before: Received[Ticker], sent: float, since: float
    ) -> Received[Ticker]:
        """What is held of a quote that was mute: nobody tells of a market that stands still.

        If it moves again without a word it is deaf; if it does not for a while it was quiet.
        """
        code, trial = one.code, self._trials.get(one.code)
        if since <= self._named.get(code, _NEVER):
            self._suspects.setdefault(code, sent)  # it was not even subscribed anew
        elif trial is None or trial.since != since or not _alike(trial.answer, one):
            if trial is not None and trial.since == since:
                self._suspects.setdefault(code, sent)
            self._trials[code] = _Trial(one, since, sent)
        elif sent - trial.begun >= TRIAL_S:
            del self._trials[code]
            self._missed[code] = MUTE - 1  # the next move without a word is one too many
            return self._asked(one, sent)
        return before.saying(_with_trade(before.value, one))

    def told(
        self, held: Received[Ticker], one: Told, update: QuoteUpdate, stamped: Stamping
    ) -> Received[Ticker] | None:
        """The quote with what was told of it; None for what is older than an answer."""
        before = held.value
        code = before.code
        self.heard[code] = one.mono
        for troubles in (self._suspects, self._missed, self._trials, self._named):
            if troubles:
                troubles.pop(code, None)
        if one.stamped_ms < held.at_ms:
            return None
        value = Ticker(  # some thousand a second: `_replace` takes several times as long
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

    def traded(self, held: Received[Ticker], update: TradeUpdate) -> Received[Ticker] | None:
        """With a trade that was told of; None for one that is known. The quote is as old as before.

        What a price is doubted by, and confirmed by, is the last trade beside mark and index.
        """
        before = held.value
        if update.traded_ms <= before.traded_ms:
            return None
        return held.saying(
            before._replace(last=update.price, last_lots=update.lots, traded_ms=update.traded_ms)
        )

    def deaf(self) -> tuple[str, ...]:
        """Contracts that were seen to have moved, and not told of; each is named once a time."""
        now = self.live.monotonic()
        before = now - GRACE_S
        found = tuple(code for code, sent in self._suspects.items() if sent <= before)
        for code in found:
            del self._suspects[code]
            self._missed[code] = self._missed.get(code, 0) + 1
            self._named[code] = now
        return found

    def _asked(self, value: Ticker, sent: float) -> Received[Ticker]:
        """True at the time of asking, at least."""
        passed_ms = (self.live.monotonic() - sent) * 1000
        return Received(value, int(self.live.server_clock.now_ms() - passed_ms), sent)


def _alike(held: Ticker, given: Ticker) -> bool:
    return (held.bid, held.ask) == (given.bid, given.ask)


def _with_trade(held: Ticker, given: Ticker) -> Ticker:
    """The quote of the one with the later of both trades."""
    if given.traded_ms <= held.traded_ms:
        return held
    return held._replace(last=given.last, last_lots=given.last_lots, traded_ms=given.traded_ms)
