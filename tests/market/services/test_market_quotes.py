"""A quote that was mute: when its answers are believed again."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from app.market.domain.models import Ticker
from app.market.services.exchange_clock import ServerClock, instant
from app.market.services.quote_book import MAX_MISSED_MOVES, TRIAL_S, QuoteBook
from app.market.services.state import LiveMarket

CODE, START_MS = "ETHUSDTM", 1_795_000_000_000
ASK_S = 5.0


@dataclass
class Bench:
    """Quotes of one contract that nobody tells of; asked for every five seconds."""

    now: float = 0.0
    since: float = 0.0  # the subscription
    live: LiveMarket = field(init=False)
    quotes: QuoteBook = field(init=False)

    def __post_init__(self) -> None:
        clock = ServerClock(None, self._wall, lambda: self.now)  # type: ignore[arg-type]  # never asked
        clock.adopt_sample(START_MS, 0.0, 0.0)
        self.live = LiveMarket(clock, lambda: self.now)
        self.quotes = QuoteBook(self.live, streamed_since=lambda: {CODE: self.since})
        self.ask(100)
        self.live.market = replace(self.live.market, is_streaming=True)

    def _wall(self) -> datetime:
        return instant(round(self.now * 1000))

    def ask(self, bid: int) -> bool:
        """Whether it is named as stalled before the next time."""
        side = Decimal(bid)
        one = Ticker(CODE, side, 1, side, 1, side + 1, 1, START_MS - 1_000)
        self.quotes.apply_polled([one], self.now)
        self.now += ASK_S
        return CODE in self.quotes.take_stalled()

    def shown(self) -> tuple[int, float]:
        """The bid that is shown, and since when it is known to be true."""
        held = self.live.market.tickers[CODE]
        return int(held.value.bid or 0), held.mono

    def made_mute(self) -> None:
        self.ask(101)  # where a new subscription goes on from
        named = 0
        while named < MAX_MISSED_MOVES:
            named += self.ask(102)
        assert self.ask(102), "it was not subscribed anew"
        assert self.shown() == (101, ASK_S)
        self.anew()

    def anew(self) -> None:
        """It is subscribed anew."""
        self.since = self.now + 1.0
        self.now += ASK_S


def test_W16_what_was_mute_is_believed_again_once_it_has_stood_still_for_a_while() -> None:
    bench = Bench()
    bench.made_mute()
    begun = bench.now
    while bench.now - begun < TRIAL_S:
        assert not bench.ask(102)
        assert bench.shown() == (101, ASK_S), "not yet"
    at = bench.now
    bench.ask(102)
    assert bench.shown() == (102, at)


def test_W16_what_was_mute_and_moves_without_a_word_is_named_and_stays_stale() -> None:
    bench = Bench()
    bench.made_mute()
    assert not bench.ask(102)
    for bid in range(103, 110):
        assert bench.ask(bid)
        bench.anew()
        assert not bench.ask(bid), "a new trial"
        assert bench.shown() == (101, ASK_S)


def test_W16_after_a_trial_one_move_without_a_word_is_one_too_many() -> None:
    bench = Bench()
    bench.made_mute()
    for _ in range(5):
        bench.ask(102)
    assert bench.shown()[0] == 102
    assert bench.ask(103)
    bench.anew()
    assert not bench.ask(103)
    assert bench.shown()[0] == 102
