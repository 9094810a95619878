"""Storms of faults over a streamed market in virtual time: the connections' machine and the quotes.

Nothing here waits or listens: the exchange, the network and the clock are made of a seed.
"""

import bisect
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from app.adapters.kucoin.stream.protocol import Action, Backfill, Control, Send
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Source
from app.market.domain.models import Ticker
from app.market.domain.stream import (
    LatestUpdate,
    MarketUpdate,
    QuoteUpdate,
    StreamTopic,
    TopicKind,
    UpdateOrder,
)
from app.market.services.exchange_clock import ServerClock, instant
from app.market.services.quote_book import QuoteBook
from app.market.services.state import LiveMarket
from tests.adapters.kucoin.stream_world import Heard, Socket, World, quotes

START_MS = 1_795_000_000_000
LOOK_S, ASK_S = 1.0, 5.0
HEALED_S = 60.0  # after the last fault every contract is fresh
SETTINGS = Configuration()


@dataclass
class Price:
    """The true quotes of one contract: each holds until the next one begins."""

    pace_s: float
    begun: list[float] = field(default_factory=lambda: [0.0])

    def at(self, now: float) -> int:
        return bisect.bisect_right(self.begun, now) - 1

    def was_true(self, number: int, since: float) -> bool:
        """Whether the quote of that number held at some time after `since`."""
        return number + 1 >= len(self.begun) or self.begun[number + 1] > since


class Storm(World):
    """A world whose topics tell true quotes, and in which faults come and go."""

    def __init__(self, seed: int, contracts: int = 8) -> None:
        super().__init__(seed=seed, step_s=0.25)
        self.chance = random.Random(seed)
        self.prices = {
            topic.code: Price(self.chance.choice((2.0, 10.0, 60.0, 900.0)))
            for topic in quotes(contracts)
        }
        clock = ServerClock(None, self._wall, self._mono)  # type: ignore[arg-type]  # never asked
        clock.adopt_sample(START_MS, self.now, 0.0)
        self.live = LiveMarket(clock, self._mono)
        self.quotes = QuoteBook(self.live, streamed_since=self._told_of)
        self.newest: dict[StreamTopic, LatestUpdate] = {}
        self.answers = self._answer
        self.accepts = self._accept
        self.tickets = lambda number: "no_ticket" not in self.faults
        self.mute = lambda serial, topic: topic.code in self.muted or serial in self.muted_lines
        self.faults: dict[str, float] = {}  # and until when
        self.muted: set[str] = set()
        self.muted_lines: set[int] = set()
        self.behind: list[int] = []
        self.is_short_since: float | None = None
        self.stale_decisions = self.looks = self.fresh_seen = 0
        self.storms: set[str] = set()
        self._late: list[tuple[float, int, StreamTopic, int, float]] = []
        self._looked = self._asked = self._caught = 0.0

    def _wall(self) -> datetime:
        return instant(round(self.now * 1000))

    def _mono(self) -> float:
        return self.now

    def _told_of(self) -> dict[str, float]:
        return {topic.code: since for topic, since in self.fleet.live().items()}

    # --- what the exchange does

    def _accept(self, socket: Socket) -> Control | None:
        if "expired" in self.faults:
            return Control("error", code=401, text="token is expired")
        return None if "no_welcome" in self.faults else Control("welcome")

    def _answer(self, command: Send) -> Control | None:
        if "no_ack" in self.faults and self.chance.random() < 0.5:
            return None
        if "busy" in self.faults and command.kind == "subscribe" and self.chance.random() < 0.5:
            return Control("error", command.number, 509, "exceed max permits per second")
        return Control("ack", command.number)

    def _speak(self) -> None:
        """Whatever has moved since is told where it was asked for."""
        for code, price in self.prices.items():
            if self.chance.random() < self.update_interval_s / price.pace_s:
                price.begun.append(self.now)
                self._tell(StreamTopic(TopicKind.QUOTE, code), price.at(self.now))
        due = [one for one in self._late if one[0] <= self.now]
        self._late = [one for one in self._late if one[0] > self.now]
        for _, serial, topic, number, stamped in due:
            self._deliver(serial, topic, number, stamped)

    def _tell(self, topic: StreamTopic, number: int) -> None:
        for serial, socket in list(self.sockets.items()):
            if topic not in socket.topics or socket.is_dead or self.mute(serial, topic):
                continue
            if "lossy" in self.faults and self.chance.random() < 0.3:
                continue
            if "late" in self.faults and self.chance.random() < 0.3:
                at = self.now + self.chance.uniform(0.5, 4.0)
                self._late.append((at, serial, topic, number, self.now))
                continue
            for _ in range(2 if "twice" in self.faults else 1):
                self._deliver(serial, topic, number, self.now)

    def _deliver(self, serial: int, topic: StreamTopic, number: int, stamped: float) -> None:
        """As the stream does with a message, but at once."""
        if serial not in self.sockets or self.hear(serial, topic) is not Heard.WANTED:
            return
        stamped_ms = self._ms(stamped)
        newest = self.newest.setdefault(topic, LatestUpdate())
        order = newest.classify(stamped_ms, number, self.live.server_clock.now_ms())
        held = self.live.market.tickers.get(topic.code)
        if (
            order in {UpdateOrder.NEWER, UpdateOrder.RESTARTED}
            and self.is_live(topic)
            and held is not None
        ):
            side = Decimal(1000 + number)
            update = QuoteUpdate(side, 1, side + 1, 1)
            one = MarketUpdate(topic, update, stamped_ms, self.now)
            if (
                told := self.quotes.apply_streamed(held, one, update, self.live.stamps())
            ) is not None:
                market = self.live.market
                tickers = {**market.tickers, topic.code: told}
                self.live.publish(replace(market, tickers=tickers), Source.TICKERS)

    def _ms(self, at: float) -> int:
        return self.live.server_clock.now_ms() - round((self.now - at) * 1000)

    # --- what the service does

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Backfill):
                self.backfills += 1
                self.behind.append(action.connection)
            else:
                super()._perform([action])

    def step(self) -> None:
        self.run(self.step_s)
        for fault in [name for name, until in self.faults.items() if until <= self.now]:
            del self.faults[fault]
        if "mute" not in self.faults:
            self.muted, self.muted_lines = set(), set()
        if self.behind and self.now - self._caught >= 2.0:
            self._caught = self.now
            if self._ask(after_gap=True):
                lines, self.behind = self.behind, []
                for line in lines:
                    super()._perform(self.fleet.caught_up(line, self.now))
        if self.now - self._looked >= LOOK_S:
            self._looked = self.now
            self._look()

    def _look(self) -> None:
        told, market = self._told_of(), self.live.market
        if 2 * len(told) >= len(self.prices):
            self.is_short_since, is_streaming = None, True
        else:
            self.is_short_since = self.now if self.is_short_since is None else self.is_short_since
            away_s = self.now - self.is_short_since
            is_streaming = market.is_streaming and away_s < SETTINGS.feed.polling_fallback_after_s
        self.live.market = replace(market, is_streaming=is_streaming)
        self.quotes.is_stream_away = self.is_short_since is not None
        deaf = [StreamTopic(TopicKind.QUOTE, code) for code in self.quotes.take_stalled()]
        self._perform(self.fleet.resubscribe(deaf, self.now))
        if self.now - max(self._asked, self.quotes.last_poll) >= ASK_S:
            self._asked = self.now
            self._ask()
        self._decide()

    def _ask(self, *, after_gap: bool = False) -> bool:
        """All quotes as they are answered; false where they are not."""
        if "rest_away" in self.faults:
            return False
        answers = []
        for code, price in self.prices.items():
            side, traded_ms = Decimal(1000 + price.at(self.now)), START_MS - 1_000
            answers.append(Ticker(code, side, 1, side, 1, side + 1, 1, traded_ms))
        self.quotes.apply_polled(answers, self.now, after_gap=after_gap)
        return True

    def limit_s(self) -> float:
        return SETTINGS.age_limit_s(Source.TICKERS, streaming=True)

    def fresh(self) -> dict[str, int]:
        """Contracts that may be decided on, with the number of the quote that is shown."""
        market, limit_s = self.live.market, self.limit_s()
        return {
            code: int(one.value.bid or 0) - 1000
            for code, one in market.tickers.items()
            if self.now - one.mono <= limit_s and code not in market.diverged
        }

    def _decide(self) -> None:
        """Whatever is called fresh was true within its age limit, or it is a stale decision."""
        limit_s = self.limit_s() + LOOK_S
        self.looks += 1
        for code, number in self.fresh().items():
            self.fresh_seen += 1
            self.stale_decisions += not self.prices[code].was_true(number, self.now - limit_s)

    # --- storms

    def rage(self, seconds: float) -> None:
        """Faults begin and end, several at a time."""
        end, due = self.now + seconds, self.now
        while self.now < end:
            if self.now >= due:
                due = self.now + self.chance.expovariate(1 / 25.0)
                self._begin(self.chance.choice(FAULTS), self.chance.uniform(1.0, 90.0))
            self.step()

    def calm(self, seconds: float, holds: Callable[[], bool]) -> float:
        """All faults are over; the seconds until it holds, or so many."""
        self.faults.clear()
        begun = self.now
        while self.now - begun < seconds and not holds():
            self.step()
        return self.now - begun

    def all_true(self) -> bool:
        """Every contract may be decided on, and shows what is true or was a moment ago."""
        fresh = self.fresh()
        return fresh.keys() == self.prices.keys() and all(
            self.prices[code].was_true(number, self.now - ASK_S) for code, number in fresh.items()
        )

    def _begin(self, fault: str, seconds: float) -> None:
        self.storms.add(fault)
        if fault == "cut":
            self.cut(self.chance.choice(("closed_1000", "closed_1001", "closed_1006")))
        elif fault == "half_open":
            for socket in self.sockets.values():
                socket.is_dead = True
        elif fault == "mute":
            self.muted |= set(self.chance.sample(sorted(self.prices), 2))
            self.muted_lines |= set(sorted(self.sockets)[:1])
        self.faults[fault] = self.now + seconds


FAULTS = (
    "cut", "cut", "half_open", "mute", "no_ticket", "expired", "no_welcome", "no_ack", "busy",
    "lossy", "late", "twice", "rest_away",
)  # fmt: skip
