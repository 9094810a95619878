"""Two desks that live the same life, one on SQLite and one on PostgreSQL, and what must hold."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count, pairwise
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
from sqlalchemy import text

from app.configuration.domain.model import Configuration
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.errors import ServiceError
from app.foundation.hash_chain import find_chain_faults
from app.foundation.idempotency import Command, CommandResult, StoredResponse
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.market.domain.models import ContractStatus
from app.operations.domain.event_codec import encode_event
from app.operations.storage.audit import verify_history
from app.portfolio.domain.controls import Controls, LockKind
from app.portfolio.domain.event_log import WEIGHS, EventType, PortfolioEvent, fold_events
from app.portfolio.domain.models import FULL, Portfolio, faults
from app.portfolio.domain.proposals import Proposal
from app.portfolio.domain.rebalance_run import NEXT, RebalanceRun, RunState
from app.portfolio.domain.returns import Trade
from app.portfolio.domain.target_weights import drift_weights, read_mark_prices
from app.portfolio.domain.weighting import Flag, WeightRole
from app.portfolio.services.rebalance_runs import RebalanceRequest
from app.portfolio.services.views import WeightsReport
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import ControlRepository, PortfolioRepository
from app.portfolio.storage.proposals import ProposalRepository
from app.portfolio.storage.rebalance_runs import RebalanceRunRepository
from app.portfolio.storage.trades import TradeRepository
from tests.stateful.losses import Fragile, Loss, lose
from tests.support import postgres
from tests.support.network_cut import Cut, Way, cutting
from tests.support.trading_desk import Desk

_MOST = 10_000  # more than any life has
Call = Callable[[Desk, Command], Awaitable[CommandResult[Any]]]


@dataclass(frozen=True)
class Key:
    key: str
    fingerprint: str


@dataclass(frozen=True)
class Seen:
    """What is committed at one moment."""

    portfolio: Portfolio
    events: tuple[PortfolioEvent, ...]
    configuration: Configuration
    controls: Controls
    trades: tuple[Trade, ...]
    runs: Mapping[str, RebalanceRun]  # by id
    proposals: Mapping[str, Proposal]  # by id, as stored

    @property
    def effects(self) -> tuple[object, ...]:
        """What a refusal leaves as it was; a run that failed is on record nevertheless."""
        return (self.portfolio, self.events, self.configuration, self.controls, self.trades)


@dataclass(frozen=True)
class Said:
    """How a command ended: an answer, or the code of a refusal."""

    answer: StoredResponse | None
    is_replay: bool
    code: str | None


@dataclass
class Place:
    """Where databases come from."""

    room: Path
    sqlite_template: Path
    server: postgres.Server
    numbers: "count[int]"


def rendered(result: object) -> StoredResponse:
    """Everything that the use case returned, so that the twins can be compared by it."""
    return StoredResponse(200, {"Content-Type": "text/plain"}, repr(result).encode())


class Twins:
    """The pair; every call goes to both, and both must say the same."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.name = f"stateful_{os.getpid()}_{next(place.numbers)}"
        self.requests = count(1)
        self.life = 0
        self.desks: list[Desk] = []
        self.stack = AsyncExitStack()
        self.loss = Loss()
        self.way: Way | None = None

    async def open(self) -> None:
        path = self.place.room / f"{self.name}.sqlite3"
        shutil.copy(self.place.sqlite_template, path)
        await self._administer(f"CREATE DATABASE {self.name} TEMPLATE {postgres.TEMPLATE}")
        self.way = await self.stack.enter_async_context(cutting(self.place.server.room))
        urls = (f"sqlite+aiosqlite:///{path}", self.way.url(self.name))
        for url in urls:
            desk = Desk(await self._opened(url))
            self.desks.append(_numbered(desk, 0))
            await desk.open()

    async def close(self) -> None:
        """Also proves both histories from outside, as `audit verify` does."""
        verdicts = [await verify_history(desk.database.options.url) for desk in self.desks]
        for desk in self.desks:
            await desk.database.close()
        await self.stack.aclose()
        await self._administer(f"DROP DATABASE {self.name} WITH (FORCE)")
        assert [verdict.breaks for verdict in verdicts] == [(), ()]

    async def restart(self) -> None:
        """Both processes begin anew, knowing only what is committed and what the market shows."""
        self.life += 1
        reborn: list[Desk] = []
        for desk in self.desks:
            await desk.database.close()
            database = await self._opened(desk.database.options.url)
            fresh = Desk(database, desk.market, desk.boards, desk.now)
            reborn.append(_numbered(fresh, self.life))
        self.desks = reborn

    def lose(self, cut: Cut, commits: int) -> None:
        """Both lose their connection at the same commit from now on; 0: they do not."""
        assert self.way is not None
        lose(self.loss, self.way, cut, commits)

    async def each(self, act: Callable[[Desk], Awaitable[Any]]) -> list[Any]:
        return [await act(desk) for desk in self.desks]

    def lever(self, pull: Callable[[Desk], object]) -> None:
        for desk in self.desks:
            pull(desk)

    async def seen(self) -> Seen:
        """What both have committed: the very same, hash for hash."""
        one, other = await self.each(_seen)
        assert one == other
        assert isinstance(one, Seen)
        return one

    async def say(self, call: Call, command: Command) -> Said:
        """Both answers, which must be one."""
        one, other = await self.each(lambda desk: _said(desk, call, command))
        assert one == other
        assert isinstance(one, Said)
        return one

    async def tick(self, at: datetime, command: Command) -> str | None:
        """The schedule's check of one tick on both; the code of its refusal, if it was refused."""
        one, other = await self.each(
            lambda desk: _code(desk.rebalancing.check(command, scheduled_at=at))
        )
        assert one == other
        return None if one is None else str(one)

    async def vanish(self, command: Command) -> str | None:
        """On both a process claims a run and dies; the code of its refusal, if it was refused."""
        one, other = await self.each(
            lambda desk: _code(desk.rebalancing.runs.claim(RebalanceRequest(), command))
        )
        assert one == other
        return None if one is None else str(one)

    async def refuse_meddling(self) -> None:
        """H1: neither database lets the history be changed."""
        for statement in (
            "UPDATE portfolio_history SET reason = 'x'",
            "DELETE FROM portfolio_history",
        ):
            for desk in self.desks:
                try:
                    async with desk.database.write() as unit:
                        await unit.connection.execute(text(statement))
                except ServiceError:
                    continue
                raise AssertionError(f"{statement} was not refused")

    async def _opened(self, url: str) -> Database:
        options, time = DatabaseOptions(url=url), asyncio.get_running_loop().time
        made = Database(options, time, Random(1).random, encode_event)
        if url.startswith("sqlite"):
            made = Fragile(options, time, Random(1).random, encode_event, loss=self.loss)
        await made.open()
        return made

    async def _administer(self, statement: str) -> None:
        room = str(self.place.server.room)
        connection = await asyncpg.connect(host=room, user="postgres", database="postgres")
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


def _numbered(desk: Desk, life: int) -> Desk:
    """Ids of runs and proposals that do not come again after a restart."""
    numbers = count(1)

    def new_id() -> str:
        return f"00000000-0000-4000-8{life:03}-{next(numbers):012}"

    desk.rebalancing = replace(desk.rebalancing, runs=replace(desk.rebalancing.runs, new_id=new_id))
    desk.replacement = replace(desk.replacement, new_id=new_id)
    desk.proposals = replace(desk.proposals, rebalancing=desk.rebalancing)
    return desk


async def _seen(desk: Desk) -> Seen:
    async with desk.database.read() as unit:
        return Seen(
            await unit.get(PortfolioRepository).load(),
            await unit.get(HistoryRepository).all(),
            await unit.get(ConfigurationRepository).current(),
            await unit.get(ControlRepository).load(),
            await unit.get(TradeRepository).page(None, _MOST),
            {run.run_id: run for run in await unit.get(RebalanceRunRepository).page(None, _MOST)},
            {one.proposal_id: one for one in await unit.get(ProposalRepository).page(None, _MOST)},
        )


async def _said(desk: Desk, call: Call, command: Command) -> Said:
    try:
        outcome = await call(desk, command)
    except ServiceError as e:
        return Said(None, False, e.code.value)
    return Said(outcome.answer, outcome.is_replay, None)


async def _code(act: Awaitable[object]) -> str | None:
    try:
        await act
    except ServiceError as e:
        return e.code.value
    return None


def sound(now: Seen) -> None:
    """P1-P4, H2-H6: of what is committed, however it came about."""
    most = now.configuration.max_portfolio_symbols
    assert faults(now.portfolio, most) == ()
    assert fold_events(now.events) == now.portfolio
    assert find_chain_faults(now.events, None) == []
    assert now.portfolio.configuration_version == now.configuration.version
    numbered = [event.payload["version"] for event in now.events if "version" in event.payload]
    versions = [0, *numbered]
    assert all(later - earlier in {0, 1} for earlier, later in pairwise(versions))
    for event in now.events:
        assert event.actor
        assert event.request_id
        assert event.reason
        assert event.code_version
        assert event.input_hash


def grew_rightly(before: Seen, after: Seen, desk: Desk) -> None:
    """P5 and D5: only what is open and fresh may grow, and never beyond the maximum.

    What prices alone have done is no growth: a weight of record may follow them.
    """
    held = {member.symbol: member.weight_u for member in before.portfolio.members}
    carried = _carried(before, after, desk)
    controls = before.controls.in_force(lambda stamp: desk.now - stamp)
    for member in after.portfolio.members:
        if member.weight_u <= max(held.get(member.symbol, 0), carried.get(member.symbol, 0)):
            continue
        quote = desk.market.quotes[member.symbol]
        assert quote.is_fresh, member.symbol
        assert quote.contract.status is ContractStatus.OPEN, member.symbol
        assert not desk.market.halted
        assert controls.switch.enabled
        assert member.weight_u <= after.configuration.max_weight_u, member.symbol


def _carried(before: Seen, after: Seen, desk: Desk) -> dict[str, int]:
    """The weights that prices had made of those of record, of the members that stayed."""
    weighings = [one for one in before.events if one.type in WEIGHS]
    set_at = read_mark_prices(weighings[-1].payload) if weighings else {}
    ids = {member.symbol_id for member in after.portfolio.members}
    stayed = tuple(one for one in before.portfolio.members if one.symbol_id in ids)
    cash_u = FULL - sum(one.weight_u for one in stayed)
    quotes = desk.market.quotes
    now = {
        one.symbol: mark
        for one in stayed
        if quotes[one.symbol].is_fresh and (mark := quotes[one.symbol].mark) is not None
    }
    moved = drift_weights(replace(before.portfolio, members=stayed, cash_u=cash_u), set_at, now)
    return {one.symbol: one.weight_u for one in moved.members}


def kept_in_bounds(before: Seen, after: Seen, desk: Desk) -> None:
    """The switch and the locks hold against every request, whoever made it."""
    controls = before.controls.in_force(lambda stamp: desk.now - stamp)
    were = {member.symbol: member.weight_u for member in before.portfolio.members}
    are = {member.symbol: member.weight_u for member in after.portfolio.members}
    new = after.events[len(before.events) :]
    replaced = {event.other_symbol for event in new if event.type is EventType.REPLACE}
    is_rebalanced = any(event.type is EventType.REBALANCE for event in new)
    for symbol, lock in controls.locks.items():
        if lock.kind is LockKind.BAN:
            assert symbol in were or symbol not in are
        if lock.kind is LockKind.PIN:
            assert symbol not in replaced
            assert symbol in are or symbol not in were
            assert not is_rebalanced or not were.get(symbol) or are[symbol] > 0
    assert controls.switch.enabled or are.keys() <= were.keys()


def within_bounds(now: WeightsReport) -> None:
    """P5: right after a rebalance whoever is funded stands within the bounds, where they fit."""
    if {Flag.FLOOR_RELAXED, Flag.LOCKED_EXCEED} & set(now.flags):
        return
    for line in now.lines:
        if line.role is WeightRole.FUNDED:
            assert now.min_u <= line.target_u <= now.max_u, (line.member.symbol, now.flags)


def ran_rightly(before: Seen, after: Seen) -> None:
    """R1 and R2: one active run at most, only ways that there are, and the end is the end."""
    assert sum(run.is_active for run in after.runs.values()) <= 1
    assert before.runs.keys() <= after.runs.keys()
    for run_id, run in after.runs.items():
        earlier = before.runs.get(run_id)
        if earlier is None:
            assert run.state in _reached(RunState.PLANNED)
        elif earlier.is_active:
            assert run.state in _reached(earlier.state)
        else:
            assert run == earlier
    changed = {event.payload["run_id"] for event in after.events if "run_id" in event.payload}
    done = {run.run_id for run in after.runs.values() if run.state is RunState.DONE}
    assert changed == done, "a run is done when its change is in the history, and only then"


def _reached(state: RunState) -> frozenset[RunState]:
    """A state and all that come after it."""
    return frozenset({state}).union(*(_reached(later) for later in NEXT.get(state, ())))


def told_truly(before: Seen, after: Seen, said: Said, command: Command) -> None:
    """P7, I2, I3: a refusal or a replay changes nothing; a change is one batch of its request."""
    new = after.events[len(before.events) :]
    assert after.events[: len(before.events)] == before.events
    if said.code is not None or said.is_replay or not new:
        assert after.effects == before.effects
        return
    assert {event.request_id for event in new} == {command.request_id}
    versions = [event.payload["version"] for event in new if "version" in event.payload]
    if versions:
        assert versions[0] == before.portfolio.version + 1
        assert versions[-1] == after.portfolio.version
    else:
        assert after.portfolio == before.portfolio


def monotone(desk: Desk, targets: dict[str, int]) -> None:
    """P6: between funded members of equal volatility the better score has no smaller target."""
    board = desk.boards.board
    assert board is not None
    cards = {card.symbol: card.composite for card in board.cards}
    known = [(cards[name], weight) for name, weight in targets.items() if cards.get(name)]
    for score, weight in known:
        for other, less in known:
            assert score is not None
            assert other is not None
            assert not (score > other and weight < less - 1), (score, weight, other, less)
