"""Our own sources say each thing once, above their thresholds, and can be switched off."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from app.foundation.errors import RateLimitedError
from app.foundation.sql.database import Database
from app.market.domain.models import Interval
from app.market.domain.panel import Panel
from app.signals.domain.models import Direction, Signal
from app.signals.domain.sources import GeneratedSignal, SourceInput
from app.signals.services.sources import BUILT_IN, SignalSources
from tests.support.signal_fixtures import BEST, claim, informed
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def desk(database: Database) -> Desk:
    opened = await Desk(database).open()
    crowded(opened)
    return opened


def crowded(desk: Desk, run_id: str = "board-1") -> None:
    """Funding of one symbol is far from that of the others; hourly bars say nothing."""
    informed(desk, BEST, funding_rate=9.0)
    board = desk.boards.board
    assert board is not None
    cards = []
    for at, one in enumerate(board.cards):
        readings = tuple(
            reading._replace(raw=-0.6 + 0.01 * (at % 5))
            if reading.name == "funding_rate" and one.symbol != BEST
            else reading
            for reading in one.factors
        )
        cards.append(replace(one, factors=readings))
    desk.boards.board = replace(board, run_id=run_id, cards=tuple(cards))


async def signals(desk: Desk) -> list[Signal]:
    found = await desk.signals.processed(24, 100)
    return [one.signal for one in found]


def loud(desk: Desk) -> None:
    """One bar of one symbol with much turnover, closed at its high."""
    panel = desk.market.panels[Interval.HOUR]
    hours, step = 200, panel.interval.ms
    flat = np.full((hours, len(panel.symbols)), 10.0)
    close, turnover = flat.copy(), np.ones_like(flat)
    column = panel.symbols.index(BEST)
    close[-1, column], turnover[-1, column] = 10.2, 40.0
    low = flat - 0.01  # a range, so that there is one to leave
    opened = panel.opened_ms[-1] - step * np.arange(hours - 1, -1, -1, dtype=np.int64)
    desk.market.panels[Interval.HOUR] = Panel(
        panel.interval, panel.symbols, opened, flat, close, low, close, turnover, turnover
    )


async def test_what_a_source_says_is_a_signal_once_also_after_a_restart(desk: Desk) -> None:
    assert await desk.signal_sources.poll() == 1
    (one,) = await signals(desk)
    claim = one.claim
    assert (claim.source, claim.type, claim.symbol) == ("fundamental", "funding_extreme", BEST)
    assert claim.direction is Direction.SELL
    assert claim.source_id == f"{BEST}:funding_extreme:2026-03-01T00:00Z"
    assert await desk.signal_sources.poll() == 0, "the same board"
    crowded(desk, "board-2")
    commits = desk.database.commits
    assert await desk.signal_sources.poll() == 0
    assert desk.database.commits == commits, "what was just said is not sent again"
    assert await SignalSources(desk.signals).poll() == 0, "a restart"
    assert len(await signals(desk)) == 1


async def test_closed_bars_make_signals_of_the_technical_source(desk: Desk) -> None:
    informed(desk)
    loud(desk)
    assert await desk.signal_sources.poll() == 2
    found = {one.claim.type: one.claim for one in await signals(desk)}
    assert set(found) == {"breakout", "volume_spike"}
    spike = found["volume_spike"]
    assert (spike.source, spike.symbol, spike.direction) == ("technical", BEST, Direction.BUY)


async def test_each_source_can_be_switched_off_and_thresholds_are_settings(desk: Desk) -> None:
    loud(desk)
    await desk.configuration.put(
        {"signals": {"sources": {"fundamental": False, "technical": False}}}, "quiet", WHO
    )
    assert await SignalSources(desk.signals).poll() == 0
    strict = {"sources": {"fundamental": True}, "source_strength": 0.999}
    await desk.configuration.put({"signals": strict}, "strict", WHO)
    assert await SignalSources(desk.signals).poll() == 0
    await desk.configuration.put({"signals": {"source_strength": 0.6}}, "as before", WHO)
    assert await SignalSources(desk.signals).poll() == 3
    assert {one.claim.source for one in await signals(desk)} == {"fundamental", "technical"}


async def test_a_corrected_bar_does_not_take_back_what_was_said(desk: Desk) -> None:
    await desk.signal_sources.poll()
    informed(desk, BEST, funding_rate=9.0)
    assert await SignalSources(desk.signals).poll() == 0, "the spread of the others is another"
    assert len(await signals(desk)) == 1


@dataclass
class Other:
    """A source from outside."""

    name: str
    says: Sequence[GeneratedSignal] = ()
    error: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def generate(self, seen: SourceInput) -> Sequence[GeneratedSignal]:
        assert seen.board is not None
        if self.error is not None:
            raise self.error
        if not self.says:
            await self.gate.wait()
        return self.says


async def test_a_source_that_fails_or_hangs_does_not_silence_the_others(desk: Desk) -> None:
    idea = GeneratedSignal(SYMBOLS[1], "news", NOW, Direction.BUY, 0.9, 0.9)
    weak = replace(idea, strength=0.1)
    unknown = replace(idea, symbol="NOBODYUSDT")
    others = (
        Other("broken", error=ValueError("no")),
        Other("hung"),
        Other("news", (idea, weak, unknown)),
    )
    sources = SignalSources(desk.signals, (*others, BUILT_IN[1]), timeout_s=0.5)
    assert await sources.poll() == 2
    assert {one.claim.source for one in await signals(desk)} == {"news", "fundamental"}


async def test_without_a_board_to_decide_on_nobody_is_asked(desk: Desk) -> None:
    desk.boards.board = None
    assert await desk.signal_sources.poll() == 0


async def test_where_too_many_wait_the_board_is_looked_at_again(desk: Desk) -> None:
    await desk.configuration.put({"signals": {"max_pending": 1}}, "few", WHO)
    board, desk.boards.board = desk.boards.board, None
    await desk.signals.submit(claim(), WHO)
    desk.boards.board = board
    with pytest.raises(RateLimitedError):
        await desk.signal_sources.poll()
    await desk.signals.process_queue()
    assert await desk.signal_sources.poll() == 1
