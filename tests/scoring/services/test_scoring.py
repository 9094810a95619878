"""The scoring service on both databases: saved, told, shared, refused, remembered."""

import asyncio
import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from types import MappingProxyType
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest

from app.alerts.storage.alerts import AlertRepository
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Family, RetentionSettings, Source
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code, NotFoundError, RefusedError, UnavailableError
from app.foundation.idempotency import Command, IdempotentExecutor, StoredResponse
from app.foundation.sql.database import Database, UnitOfWork
from app.market.domain.models import Book, Level
from app.market.domain.panel import COVERING, ScoringInputs, source_coverage
from app.market.domain.symbols import SymbolEntry, SymbolIndex
from app.scoring.domain.board import Board
from app.scoring.domain.board_retention import StoredRun
from app.scoring.domain.events import ScoresUpdated, score_changes
from app.scoring.domain.factors import FACTORS
from app.scoring.domain.input_hash import input_hash
from app.scoring.domain.ranking import AlgorithmType
from app.scoring.services.board_retention import BoardRetention
from app.scoring.services.replay import pack_inputs, unpack_inputs
from app.scoring.services.score_reliability import ScoreReliabilityCache
from app.scoring.services.service import Scoring
from app.scoring.storage.hourly_bars import HourlyBarRepository
from app.scoring.storage.moments import MomentRepository
from app.scoring.storage.runs import ScoringRepository
from app.scoring.storage.tables import scoring_run_coverage
from tests.support.portfolios import contract
from tests.support.scoring_inputs import make_inputs, names

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
INPUTS = make_inputs(16, excluded={"ZUSDT": "status_open"})


def index_of(symbols: tuple[str, ...]) -> SymbolIndex:
    return SymbolIndex.from_contracts(
        (f"00000000-0000-4000-8000-{number:012}", contract(base=base, code=f"{base}USDTM"))
        for number, base in enumerate(symbol.removesuffix("USDT") for symbol in symbols)
    )


@dataclass
class Market:
    """Whatever inputs the test sets; `enter` runs in the scoring thread."""

    inputs: ScoringInputs = INPUTS
    silent: tuple[Source, ...] = ()
    filled: bool = True
    state: DataStatus = DataStatus.FRESH
    source: DataSource = DataSource.SANDBOX
    asked: int = 0
    enter: Callable[[], object] = lambda: None
    clock_uncertainty_s: float = 0.0
    quote_span_s: float = float("inf")
    known: SymbolIndex = field(default_factory=lambda: index_of((*names(16), "ZUSDT", "NEWUSDT")))

    def moment(self) -> "Market":
        return self

    def status(self) -> DataStatus:
        return self.state

    def is_filled(self) -> bool:
        return self.filled

    def unknown(self) -> tuple[Source, ...]:
        return self.silent

    def under(self, configuration: Configuration) -> "Market":
        del configuration
        return self

    def scoring_inputs(self) -> ScoringInputs:
        self.asked += 1
        self.enter()
        return self.inputs

    def resolve(self, text: str) -> SymbolEntry:
        return self.known.resolve(text)

    def id_of(self, symbol: str) -> str | None:
        return self.known.id_of(symbol)


STEADY = (
    ScoreReliabilityCache()
)  # of the one market of these tests: a month of boards, worked out once


RISKY = MappingProxyType(
    {
        Family.TECHNICAL: 0.4,
        Family.FUNDAMENTAL: 0.1,
        Family.MARKET_STRUCTURE: 0.1,
        Family.RISK: 0.4,
    }
)


@dataclass
class Bench:
    """The service with levers on time, market and settings."""

    database: Database
    market: Market = field(default_factory=Market)
    settings: Configuration = field(default_factory=Configuration)
    now: datetime = NOW
    events: list[object] = field(default_factory=list)
    _numbers: Any = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.database.publish = self.events.append
        self.scoring = self.service()

    def service(self) -> Scoring:
        ticks = count()
        return Scoring(
            market=self.market,
            database=self.database,
            clock=lambda: self.now,
            monotonic=lambda: next(ticks) * 0.25,
            new_id=lambda: f"00000000-0000-4000-8000-{next(self._numbers):012}",
            configuration=lambda: self.settings,
            idempotency=IdempotentExecutor(self.database, lambda: self.now),
            score_reliability=STEADY,
        )


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database)


async def test_a_run_is_saved_whole_told_and_kept(bench: Bench) -> None:
    assert bench.scoring.latest() is None
    board = await bench.scoring.calculate()
    assert bench.scoring.latest() is board
    assert (board.universe_size, len(board.cards)) == (16, 17)
    assert (board.calculated_at, board.duration_ms) == (NOW, 250.0)
    assert (board.data_source, board.configuration_version) == (DataSource.SANDBOX, 1)
    unavailable = len(board.cards) - 16
    assert bench.events == [
        ScoresUpdated(
            board.run_id,
            board.as_of,
            16,
            unavailable,
            board.duration_ms / 1e3,
            NOW,
            score_changes(None, board),
        )
    ]
    stored = await bench.scoring.run(board.run_id)
    same(stored, board)

    nudged = tuple(
        one if one.composite is None else replace(one, composite=math.nextafter(one.composite, 1.0))
        for one in board.cards
    )
    assert score_changes(board, replace(board, cards=nudged)) == ()  # one ulp is no change


def same(stored: Board, board: Board) -> None:
    assert replace(stored, cards=(), coverage={}) == replace(board, cards=(), coverage={})
    assert dict(stored.coverage) == dict(board.coverage)
    for mine, theirs in zip(stored.cards, board.cards, strict=True):
        assert dict(mine.families) == dict(theirs.families)
        assert mine.factors == theirs.factors
        assert mine.confidence == theirs.confidence
        for name in ("symbol", "status", "reason", "composite", "z", "rank", "volatility"):
            assert getattr(mine, name) == getattr(theirs, name)


async def test_after_a_restart_the_newest_board_is_there(bench: Bench) -> None:
    assert await bench.scoring.load() is None
    await bench.scoring.calculate()
    bench.now += timedelta(minutes=5)
    newest = await bench.scoring.calculate()
    restarted = bench.service()
    board = await restarted.load()
    assert board is not None
    assert restarted.latest() is board
    same(board, newest)


async def test_before_the_first_board_everything_says_so(bench: Bench) -> None:
    asks: tuple[Callable[[], object], ...] = (
        bench.scoring.board,
        lambda: bench.scoring.rankings(AlgorithmType.COMPOSITE),
        lambda: bench.scoring.explain("BTCUSDT"),
    )
    for ask in asks:
        with pytest.raises(UnavailableError) as caught:
            ask()
        assert caught.value.code is Code.NO_BOARD_YET
        assert caught.value.retry_after_s


def older(source: Source, symbols: int) -> Mapping[Source, Any]:
    ages = INPUTS.ages_s[source].copy()
    ages[:symbols] = INPUTS.half_lives_s[source] * 2
    return {**INPUTS.ages_s, source: ages}


@pytest.mark.parametrize("source", [Source.CONTRACTS, Source.TICKERS, Source.DAILY_CANDLES])
async def test_a_stale_market_is_not_scored(bench: Bench, source: Source) -> None:
    before = await bench.scoring.calculate()
    bench.market.inputs = replace(INPUTS, ages_s=older(source, 9))
    with pytest.raises(UnavailableError) as caught:
        await bench.scoring.calculate()
    assert caught.value.code is Code.MARKET_DATA_STALE
    assert caught.value.facts == {"source": source, "fresh_share": "0.4375"}
    assert bench.scoring.latest() is before
    assert len(bench.events) == 1
    bench.market.inputs = replace(INPUTS, ages_s=older(source, 3))
    after = await bench.scoring.calculate()
    assert after.run_id != before.run_id


@pytest.mark.parametrize("source", [Source.CONTRACTS, Source.TICKERS, Source.DAILY_CANDLES])
async def test_a_source_that_is_silent_as_a_whole_is_refused(bench: Bench, source: Source) -> None:
    bench.market.inputs, bench.market.silent = nobody({"AUSDT": "status_open"}), (source,)
    with pytest.raises(UnavailableError) as caught:
        await bench.scoring.calculate()
    assert caught.value.code is Code.MARKET_DATA_STALE
    assert caught.value.facts == {"source": source}
    assert bench.scoring.latest() is None


@pytest.mark.parametrize(("silent", "is_scored"), [(16, True), (17, False)])
async def test_who_was_left_out_for_its_quote_counts_as_not_fresh(
    bench: Bench, silent: int, is_scored: bool
) -> None:
    out = {f"OUT{number}USDT": "ticker" for number in range(silent)}
    bench.market.inputs = replace(INPUTS, excluded={**out, "ZUSDT": "status_open"})
    if is_scored:
        assert (await bench.scoring.calculate()).universe_size == 16
        return
    with pytest.raises(UnavailableError) as caught:
        await bench.scoring.calculate()
    assert caught.value.facts == {"source": Source.TICKERS, "fresh_share": "0.4848"}


async def test_an_outage_that_emptied_the_funnel_is_not_an_empty_board(bench: Bench) -> None:
    bench.market.inputs = nobody({"AUSDT": "ticker", "BUSDT": "status_open"})
    with pytest.raises(UnavailableError) as caught:
        await bench.scoring.calculate()
    assert caught.value.facts == {"source": Source.TICKERS, "fresh_share": "0.0000"}


async def test_a_whole_board_is_one_that_was_begun_after_the_first_fill(bench: Bench) -> None:
    bench.market.filled = False
    bench.market.enter = lambda: setattr(bench.market, "filled", True)  # while it is calculated
    await bench.scoring.calculate()
    assert not bench.scoring.complete_board_ready.is_set()
    await bench.scoring.calculate()
    assert bench.scoring.complete_board_ready.is_set()
    assert bench.scoring.has_complete_board()
    restarted = bench.service()
    assert await restarted.load() is not None
    assert not restarted.complete_board_ready.is_set()


async def test_a_call_after_the_first_fill_does_not_share_a_run_from_before_it(
    bench: Bench,
) -> None:
    bench.market.filled = False
    entered, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def enter() -> None:
        loop.call_soon_threadsafe(entered.set)
        go_on.wait(60)

    bench.market.enter = enter
    async with asyncio.TaskGroup() as tasks:
        early = tasks.create_task(bench.scoring.calculate())
        await entered.wait()
        sharing = tasks.create_task(bench.scoring.calculate())  # before the fill is complete
        await asyncio.sleep(0)
        bench.market.filled = True
        late = [tasks.create_task(bench.scoring.calculate()) for _ in range(3)]
        await asyncio.sleep(0)
        go_on.set()
    assert sharing.result().run_id == early.result().run_id
    assert {one.result().run_id for one in late} == {bench.scoring.board().run_id}
    assert late[0].result().run_id != early.result().run_id
    assert bench.market.asked == 2
    assert bench.scoring.has_complete_board()


async def test_nothing_known_is_not_an_empty_board(bench: Bench) -> None:
    bench.market.inputs = nobody({})
    with pytest.raises(UnavailableError) as caught:
        await bench.scoring.calculate()
    assert caught.value.code is Code.MARKET_DATA_STALE
    bench.market.inputs = nobody({"AUSDT": "status_open"})
    board = await bench.scoring.calculate()
    assert (board.universe_size, len(board.cards)) == (0, 1)


def nobody(excluded: Mapping[str, str]) -> ScoringInputs:
    """Inputs without an eligible symbol."""
    one = make_inputs(1)
    return replace(
        one,
        symbols=(),
        daily=replace(one.daily, symbols=(), **_no_columns(one.daily)),
        hourly=replace(one.hourly, symbols=(), **_no_columns(one.hourly)),
        bid=np.empty(0), ask=np.empty(0), multiplier=np.empty(0), books=(), funding=(),
        open_interest=np.empty((len(one.open_interest_ms), 0)),
        ages_s={source: np.empty(0) for source in Source},
        excluded=excluded,
    )  # fmt: skip


def _no_columns(panel: Any) -> dict[str, Any]:
    fields = ("open", "high", "low", "close", "volume", "turnover")
    return {name: np.empty((len(panel.opened_ms), 0)) for name in fields}


async def test_simultaneous_calls_share_one_run(bench: Bench) -> None:
    boards = await asyncio.gather(*(bench.scoring.calculate() for _ in range(8)))
    assert len({board.run_id for board in boards}) == 1
    assert bench.market.asked == 1
    again = await bench.scoring.calculate()
    assert again.run_id != boards[0].run_id


async def test_simultaneous_calls_share_a_refusal(bench: Bench) -> None:
    bench.market.inputs = replace(INPUTS, ages_s=older(Source.TICKERS, 16))
    results = await asyncio.gather(
        *(bench.scoring.calculate() for _ in range(3)), return_exceptions=True
    )
    assert [type(one) for one in results] == [UnavailableError] * 3
    assert bench.market.asked == 1


async def test_who_waits_takes_over_when_the_first_caller_leaves(bench: Bench) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        go_on.wait(60)

    bench.market.enter = hold
    first = asyncio.ensure_future(bench.scoring.calculate())
    await asyncio.to_thread(entered.wait, 60)
    second = asyncio.ensure_future(bench.scoring.calculate())
    await asyncio.sleep(0)
    first.cancel()
    go_on.set()
    board = await second
    assert first.cancelled()
    assert bench.scoring.latest() is board
    assert bench.market.asked == 2


async def test_the_loop_turns_while_scores_are_calculated(bench: Bench) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        go_on.wait(60)

    bench.market.enter = hold
    running = asyncio.ensure_future(bench.scoring.calculate())
    await asyncio.to_thread(entered.wait, 60)
    go_on.set()
    assert (await running).universe_size == 16


@dataclass(frozen=True)
class Key:
    key: str
    fingerprint: str


def rendered(board: Board) -> StoredResponse:
    return StoredResponse(200, {}, board.run_id.encode())


async def test_a_key_has_one_run(bench: Bench) -> None:
    command = Command("tester", "r-1", idempotency_key=Key("k", "f"))
    first = await bench.scoring.calculate_once(command, rendered)
    assert not first.is_replay
    board = bench.scoring.latest()
    assert board is not None
    assert first.answer == rendered(board)
    again = await bench.scoring.calculate_once(command, rendered)
    assert (again.answer, again.is_replay) == (first.answer, True)
    assert bench.market.asked == 1
    with pytest.raises(RefusedError) as caught:
        await bench.scoring.calculate_once(
            replace(command, idempotency_key=Key("k", "other")), rendered
        )
    assert caught.value.code is Code.IDEMPOTENCY_KEY_REUSED
    plain = await bench.scoring.calculate_once(Command("tester", "r-2"), rendered)
    assert not plain.is_replay
    assert plain.answer != first.answer


async def test_a_keyed_run_holds_no_lock_while_it_calculates_and_is_shared(bench: Bench) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        go_on.wait(60)

    bench.market.enter = hold
    command = Command("tester", "r-1", idempotency_key=Key("k", "f"))
    keyed = asyncio.ensure_future(bench.scoring.calculate_once(command, rendered))
    await asyncio.to_thread(entered.wait, 60)
    plain = asyncio.ensure_future(bench.scoring.calculate())
    try:
        async with asyncio.timeout(30), bench.database.write() as unit:
            await unit.get(ConfigurationRepository).get_or_create(NOW, "test")
    finally:
        go_on.set()
    outcome, board = await keyed, await plain
    assert outcome.answer == rendered(board)
    assert bench.market.asked == 1
    async with bench.database.read() as unit:
        assert len(await unit.get(ScoringRepository).history("BTCUSDT", None, 9)) == 1


async def test_a_refused_run_gives_its_key_free(bench: Bench) -> None:
    command = Command("tester", "r-1", idempotency_key=Key("k", "f"))
    bench.market.inputs = replace(INPUTS, ages_s=older(Source.TICKERS, 16))
    with pytest.raises(UnavailableError):
        await bench.scoring.calculate_once(command, rendered)
    bench.market.inputs = INPUTS
    assert not (await bench.scoring.calculate_once(command, rendered)).is_replay


async def test_the_later_run_is_the_newer_one_whatever_its_clock_says(bench: Bench) -> None:
    await bench.scoring.calculate()
    follower = bench.service()
    await follower.refresh()
    bench.now -= timedelta(seconds=1)
    newest = await bench.scoring.calculate()
    assert bench.scoring.latest() is newest
    await follower.refresh()
    assert follower.latest() == newest


async def test_a_clock_that_jumps_a_day_ahead_and_back_freezes_no_board(bench: Bench) -> None:
    await bench.scoring.calculate()
    bench.now += timedelta(days=1)
    jumped = await bench.scoring.calculate()
    assert bench.scoring.latest_complete() is jumped
    bench.now = NOW + timedelta(minutes=5)
    assert bench.scoring.age_status(jumped) is DataStatus.STALE, "its age is not known"
    restarted = bench.service()
    await restarted.load()
    assert restarted.latest() == jumped
    assert restarted.age_status(jumped) is DataStatus.STALE
    follower = bench.service()
    await follower.refresh()
    assert follower.latest() == jumped
    after = await bench.scoring.calculate()
    assert (bench.scoring.latest(), bench.scoring.latest_complete()) == (after, after)
    assert bench.scoring.age_status(after) is DataStatus.FRESH
    await follower.refresh()
    assert (follower.latest(), follower.latest_complete()) == (after, after)


async def test_rankings_by_composite_and_by_family(bench: Bench) -> None:
    board = await bench.scoring.calculate()
    of, lines = bench.scoring.rankings(AlgorithmType.COMPOSITE)
    assert of is board
    assert [line.rank for line in lines] == [*range(1, 17), None]
    _, eligible = bench.scoring.rankings(AlgorithmType.COMPOSITE, eligible_only=True)
    assert len(eligible) == 16
    _, by_risk = bench.scoring.rankings(AlgorithmType.RISK)
    scores = [line.card.families[Family.RISK] for line in by_risk[:-1]]
    assert scores == sorted(scores, key=lambda one: -(one or 0.0))
    assert (by_risk[-1].rank, by_risk[-1].card.symbol) == (None, "ZUSDT")


async def test_explain_takes_any_spelling_and_refuses_strangers(bench: Bench) -> None:
    board = await bench.scoring.calculate()
    of, card = bench.scoring.explain("btcusdt")
    assert of is board
    assert card.symbol == "BTCUSDT"
    assert card.z is not None
    shares = [one.contribution for one in card.factors if one.contribution is not None]
    assert sum(shares) == pytest.approx(card.z, abs=1e-9)
    with pytest.raises(RefusedError) as unknown:
        bench.scoring.explain("NOSUCHUSDT")
    assert unknown.value.code is Code.SYMBOL_UNKNOWN
    with pytest.raises(NotFoundError):
        bench.scoring.explain("NEWUSDT")  # listed after the board was made


async def test_history_is_newest_first_and_goes_on(bench: Bench) -> None:
    runs = []
    for _ in range(5):
        runs.append((await bench.scoring.calculate()).run_id)
        bench.now += timedelta(minutes=5)
    page = await bench.scoring.history("BTC-USDT", None, 3)
    assert [board.run_id for board in page] == runs[:1:-1]
    assert {card.symbol for board in page for card in board.cards} == {"BTCUSDT"}
    last = page[-1]
    rest = await bench.scoring.history("BTCUSDT", (last.calculated_at, last.run_id), 3)
    assert [board.run_id for board in rest] == runs[1::-1]


async def test_runs_that_are_not_there(bench: Bench) -> None:
    with pytest.raises(NotFoundError):
        await bench.scoring.run("00000000-0000-4000-8000-999999999999")


async def thinned(bench: Bench, decided: Collection[str] = ()) -> int:
    async def find(_unit: UnitOfWork, _runs: Sequence[StoredRun]) -> Collection[str]:
        return decided

    retention = BoardRetention(bench.database, lambda: bench.now, find)
    return await retention.delete_old(RetentionSettings())


async def stored(bench: Bench, run_id: str) -> bytes | None:
    async with bench.database.read() as unit:
        return await unit.get(ScoringRepository).inputs(run_id)


async def test_inputs_go_after_a_day_and_boards_are_thinned_to_one_an_hour_then_one_a_day(
    bench: Bench,
) -> None:
    first = await bench.scoring.calculate()
    assert await stored(bench, first.run_id)
    bench.now = NOW + timedelta(days=1, seconds=1)
    assert await thinned(bench) == 0
    assert await stored(bench, first.run_id) is None
    assert (await bench.scoring.run(first.run_id)).run_id == first.run_id

    bench.now = NOW + timedelta(minutes=5)
    second = await bench.scoring.calculate()
    bench.now = NOW + timedelta(hours=2)
    third = await bench.scoring.calculate()
    bench.now = NOW + timedelta(days=7, hours=3)
    assert await thinned(bench) == 1, "of the first hour the newest stays"
    with pytest.raises(NotFoundError):
        await bench.scoring.run(first.run_id)
    for later in (timedelta(days=8), timedelta(days=90)):
        bench.now = NOW + later
        assert await thinned(bench) == 0
    for later in (timedelta(days=91), timedelta(days=4_000)):
        bench.now = NOW + later
        await thinned(bench)
        same(await bench.scoring.run(third.run_id), third)
        with pytest.raises(NotFoundError):
            await bench.scoring.run(second.run_id)


async def test_a_board_that_a_decision_rests_on_stays_with_its_inputs(bench: Bench) -> None:
    decided = await bench.scoring.calculate()
    bench.now += timedelta(minutes=5)
    later = await bench.scoring.calculate()
    bench.now += timedelta(days=400)
    assert await thinned(bench, {decided.run_id}) == 0
    assert await stored(bench, decided.run_id)
    assert await stored(bench, later.run_id) is None
    assert await thinned(bench) == 1
    assert await stored(bench, decided.run_id) is None


async def test_inputs_are_kept_as_they_were_used(bench: Bench) -> None:
    bid = INPUTS.bid.copy()
    bid[3] = np.nan
    bench.market.inputs = replace(INPUTS, bid=bid, books=(None, *INPUTS.books[1:]))
    board = await bench.scoring.calculate()
    async with bench.database.read() as unit:
        packed = await unit.get(ScoringRepository).inputs(board.run_id)
    assert packed is not None
    kept = unpack_inputs(packed)
    assert kept["symbols"] == list(INPUTS.symbols)
    assert kept["bid"][3] is None
    assert kept["bid"][4] == bid[4]
    assert kept["books"][0] is None
    book = INPUTS.books[1]
    assert book is not None
    assert kept["books"][1]["asks"][0] == [str(book.asks[0].price), book.asks[0].lots]
    daily = kept["daily"]
    assert len(set(daily.pop("sums"))) == 16
    assert daily == {
        "interval_ms": 86_400_000, "first_ms": int(INPUTS.daily.opened_ms[0]), "bars": 200,
        "there": [None] * 16,
    }  # fmt: skip
    assert kept["funding"][2][0] == [
        INPUTS.funding[2][0].settled_ms, str(INPUTS.funding[2][0].rate), 28_800_000,
    ]  # fmt: skip
    change = np.log(np.array(kept["open_interest"][0]) / np.array(kept["open_interest"][1]))
    readings = {card.symbol: card.factors for card in board.cards}
    for symbol, value in zip(INPUTS.symbols, change.tolist(), strict=True):
        reading = next(f for f in readings[symbol] if f.name == "open_interest_change")
        assert reading.raw == pytest.approx(value)


def test_packed_books_are_stored_and_scored_as_the_same_numbers() -> None:
    prices = ("70000", "69999.10", "1.5", "0.00001230", "1E-7", "1E-10")
    side = tuple(Level(Decimal(price), 3 * 10**at) for at, price in enumerate(prices))
    plain = replace(INPUTS, books=(None, Book("X", 1, side, (), 5), *INPUTS.books[2:]))
    books = tuple(book and book.packed() for book in plain.books)
    packed = replace(plain, books=books)
    assert books == plain.books
    assert books[1] is not None
    assert [(str(price), lots) for price, lots in books[1].bids] == [
        (str(Decimal(price)), 3 * 10**at) for at, price in enumerate(prices)
    ]
    assert (books[1].bids[0], books[1].bids[:2], books[1].asks[:2]) == (side[0], side[:2], ())
    assert (len(books[1].bids), len(books[1].asks)) == (6, 0)
    assert hash(books[1]) == hash(plain.books[1])
    assert books[1].packed().bids is books[1].bids
    assert pack_inputs(packed) == pack_inputs(plain)
    assert input_hash(packed) == input_hash(plain)


async def test_other_weights_are_another_version_and_versions_stay(bench: Bench) -> None:
    (before,) = await bench.scoring.algorithms()
    assert (before.version, before.created_at) == (1, None)
    first = await bench.scoring.calculate()
    assert first.algorithm_version == 1
    assert (await bench.scoring.calculate()).algorithm_version == 1
    weights = dict.fromkeys(Family, 0.25)
    bench.settings = replace(bench.settings, version=2, family_weights=weights)
    second = await bench.scoring.calculate()
    assert (second.algorithm_version, second.configuration_version) == (2, 2)
    (now,) = await bench.scoring.algorithms()
    assert (now.version, now.created_at) == (2, NOW)
    assert now.body["family_weights"] == {family.value: 0.25 for family in Family}
    assert len(now.body["factors"]) == len(FACTORS)
    async with bench.database.read() as unit:
        stored = await unit.get(ScoringRepository).algorithms()
    assert [(one.name, one.version) for one in stored] == [("cross_sectional", 2)]


async def test_a_board_grows_old(bench: Bench) -> None:
    board = await bench.scoring.calculate()
    assert bench.scoring.status_of(board) is DataStatus.FRESH
    bench.now += timedelta(seconds=3 * 300)
    assert bench.scoring.status_of(board) is DataStatus.FRESH
    bench.now += timedelta(seconds=1)
    assert bench.scoring.status_of(board) is DataStatus.STALE


async def test_T01_nothing_is_scored_by_a_clock_that_nobody_knows(bench: Bench) -> None:
    bench.market.clock_uncertainty_s = 1.0
    board = await bench.scoring.calculate()
    bench.market.clock_uncertainty_s = 1.01
    with pytest.raises(UnavailableError) as caught:
        await bench.scoring.calculate()
    assert caught.value.code is Code.CLOCK_UNSAFE
    assert bench.scoring.latest() is board


async def test_D19_a_run_whose_quotes_are_too_far_apart_is_aborted_and_the_board_stays(
    bench: Bench,
) -> None:
    ages = np.zeros(16)
    ages[:2] = 30.0  # more than a tenth of them
    bench.market.inputs = replace(INPUTS, ages_s={**INPUTS.ages_s, Source.TICKERS: ages})
    bench.market.quote_span_s = 30.0
    board = await bench.scoring.calculate()
    bench.market.quote_span_s = 29.0
    with pytest.raises(UnavailableError) as caught:
        await bench.scoring.calculate()
    assert caught.value.code is Code.ABORTED_INCONSISTENT
    assert caught.value.facts == {"span_s": "29", "late": "2"}
    assert bench.scoring.latest() is board
    bench.now += timedelta(seconds=3 * 300 + 1)
    assert bench.scoring.status_of(board) is DataStatus.STALE, "its age goes on"
    bench.now -= timedelta(seconds=3 * 300 + 1)
    ages[0] = 0.0
    bench.market.inputs = replace(INPUTS, ages_s={**INPUTS.ages_s, Source.TICKERS: ages})
    later = await bench.scoring.calculate()
    assert later is not board, "one that lags is its own fault"


def covering(bookless: int, inputs: ScoringInputs = INPUTS) -> ScoringInputs:
    """The same without the books of the first `bookless` symbols."""
    return replace(inputs, books=(*[None] * bookless, *inputs.books[bookless:]))


def test_sources_cover_what_is_present_and_fresh_and_dropped_symbols_count() -> None:
    everything = source_coverage(INPUTS)
    assert everything == dict.fromkeys(COVERING, 1.0)
    old = dict(INPUTS.ages_s) | {Source.FUNDING: np.full(16, 1e9)}
    worse = replace(
        covering(4), ages_s=old, unread=16, excluded={f"O{n}": "ticker" for n in range(4)}
    )
    assert source_coverage(worse) == {
        Source.TICKERS: 0.8,  # 16 of 20: four have no fresh quote
        Source.BOOKS: 0.75,
        Source.FUNDING: 0.0,
        Source.DAILY_CANDLES: 0.5,
        Source.HOURLY_CANDLES: 1.0,
    }
    assert source_coverage(nobody({"AUSDT": "status_open"})) == dict.fromkeys(COVERING, 0.0)


@pytest.mark.parametrize(
    ("bookless", "least", "is_provisional"),
    [(2, 0.9, True), (1, 0.9, False), (4, 0.75, False), (4, 0.7501, True), (16, 0.0, False)],
)
async def test_a_board_is_provisional_below_the_least_coverage(
    bench: Bench, bookless: int, least: float, is_provisional: bool
) -> None:
    scoring = replace(bench.settings.scoring, min_coverage=least)
    bench.settings = replace(bench.settings, scoring=scoring)
    bench.market.inputs = covering(bookless)
    board = await bench.scoring.calculate()
    assert board.is_provisional is is_provisional
    assert board.source_coverage["books"] == 1 - bookless / 16
    assert bench.scoring.board() == board  # shown either way
    assert bench.scoring.latest_complete() == (None if is_provisional else board)
    assert bench.scoring.has_complete_board() is not is_provisional


async def test_the_last_complete_board_stays_in_force_behind_provisional_ones(
    bench: Bench,
) -> None:
    complete = await bench.scoring.calculate()
    bench.now += timedelta(minutes=5)
    bench.market.inputs = covering(8)
    shown = await bench.scoring.calculate()
    assert bench.scoring.latest() == shown
    assert bench.scoring.latest_complete() == complete
    announced = bench.events[-1]
    assert isinstance(announced, ScoresUpdated)
    assert (announced.is_provisional, announced.changes) == (True, ())
    for read in (bench.service(), bench.service()):
        await read.load()
        assert (read.latest(), read.latest_complete()) == (shown, complete)
    follower = bench.service()
    await follower.refresh()
    assert (follower.latest(), follower.latest_complete()) == (shown, complete)
    bench.now += timedelta(minutes=5)
    bench.market.inputs = INPUTS
    again = await bench.scoring.calculate()
    assert bench.scoring.latest_complete() == bench.scoring.latest() == again
    announced = bench.events[-1]
    assert isinstance(announced, ScoresUpdated)
    assert announced.changes == score_changes(complete, again)  # not against the provisional one


async def test_a_board_without_an_eligible_symbol_replaces_no_complete_one(bench: Bench) -> None:
    complete = await bench.scoring.calculate()
    bench.now += timedelta(minutes=5)
    bench.market.inputs = nobody({"AUSDT": "turnover_24h", "BUSDT": "turnover_24h"})
    shown = await bench.scoring.calculate()
    assert (shown.is_provisional, set(shown.source_coverage.values())) == (True, {0.0})
    assert (bench.scoring.latest(), bench.scoring.latest_complete()) == (shown, complete)


async def test_a_board_whose_coverage_was_not_kept_decides_nothing(bench: Bench) -> None:
    board = await bench.scoring.calculate()
    async with bench.database.write() as unit:
        await unit.get(ScoringRepository).connection.execute(scoring_run_coverage.delete())
    restarted = bench.service()
    await restarted.load()
    assert restarted.board().run_id == board.run_id  # shown
    assert restarted.board().is_provisional
    assert restarted.latest_complete() is None


async def test_provisional_boards_count_in_no_history_or_outcome(bench: Bench) -> None:
    symbol = INPUTS.symbols[1]
    bench.market.inputs = covering(8)
    provisional = await bench.scoring.calculate()
    async with bench.database.read() as unit:
        assert await unit.get(ScoringRepository).latest_complete() is None
        assert await unit.get(ScoringRepository).latest_composites([symbol]) == {}
        assert await unit.get(AlertRepository).former_run(0) is None
        assert (
            await unit.get(HourlyBarRepository).universe(bench.now + timedelta(days=9_999))
            == frozenset()
        )
        assert not await unit.get(MomentRepository).days(
            provisional.algorithm, provisional.algorithm_version
        )
    assert await bench.scoring.history(symbol, None, 10) == ()
    assert await bench.scoring.run(provisional.run_id) == provisional  # shown by its id
    bench.market.inputs, bench.now = INPUTS, bench.now + timedelta(minutes=5)
    complete = await bench.scoring.calculate()
    async with bench.database.read() as unit:
        card = complete.card(symbol)
        assert card is not None
        assert await unit.get(ScoringRepository).latest_composites([symbol]) == {
            symbol: card.composite
        }
        assert await unit.get(AlertRepository).former_run(0) == complete.run_id
        assert await unit.get(HourlyBarRepository).universe(bench.now + timedelta(days=9_999))
        assert await unit.get(MomentRepository).days(complete.algorithm, complete.algorithm_version)
    assert [one.run_id for one in await bench.scoring.history(symbol, None, 10)] == [
        complete.run_id
    ]


async def test_of_an_old_day_the_newest_complete_board_is_kept(bench: Bench) -> None:
    complete = await bench.scoring.calculate()
    bench.now += timedelta(minutes=5)
    bench.market.inputs = covering(8)
    provisional = await bench.scoring.calculate()
    bench.now += timedelta(days=8)
    assert await thinned(bench) == 1
    assert await bench.scoring.run(complete.run_id) == complete
    with pytest.raises(NotFoundError):
        await bench.scoring.run(provisional.run_id)


@dataclass
class SnapshotMarket(Market):
    """Moments that later changes of the market leave as they were."""

    def moment(self) -> Market:
        return replace(self)


async def test_a_preview_scores_the_market_behind_the_present_board_and_publishes_nothing(
    database: Database,
) -> None:
    bench = Bench(database, SnapshotMarket())
    other = replace(Configuration(), version=2, family_weights=RISKY)
    board = await bench.scoring.calculate()
    stored = list(bench.events)
    bench.market.inputs = make_inputs(16, seed=3)
    shown = await bench.scoring.preview(other)
    assert (bench.scoring.latest(), bench.events) == (board, stored)
    assert await bench.scoring.preview(bench.settings) == replace(
        board, run_id=ANY, duration_ms=ANY
    )
    again = bench.service()
    await again.load()
    present = await again.preview(other)  # this process has no market of the stored board
    assert present.cards != shown.cards
    bench.market.inputs, bench.settings = INPUTS, other
    wanted = await bench.scoring.calculate()
    assert shown.cards == wanted.cards != board.cards
    assert (shown.algorithm_version, shown.configuration_version) == (2, 2)
    bench.market.inputs = make_inputs(16, seed=3)
    assert present.cards == (await bench.scoring.calculate()).cards


async def test_a_preview_is_refused_and_provisional_as_a_run_is(bench: Bench) -> None:
    bench.market.silent = (Source.TICKERS,)
    with pytest.raises(UnavailableError, match="tickers is not fresh"):
        await bench.scoring.preview(bench.settings)
    bench.market.silent = ()
    strict = replace(bench.settings, scoring=replace(bench.settings.scoring, min_coverage=1.0))
    bench.market.inputs = replace(INPUTS, unread=1)
    assert (await bench.scoring.preview(strict)).is_provisional
