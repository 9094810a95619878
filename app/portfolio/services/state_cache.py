"""What is committed of the portfolio and of all that decides on it, kept in memory for reads."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from app.configuration.domain.model import Configuration
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.concurrency import SingleFlight
from app.foundation.sql.database import Database
from app.foundation.sql.unit_of_work import UnitOfWork
from app.portfolio.domain.controls import Controls, Lock, Switch
from app.portfolio.domain.event_log import EventType, PortfolioEvent
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.target_weights import prices_of
from app.portfolio.storage.controls import ControlRepository
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.replacements import ReplacementRepository
from app.portfolio.storage.revision import Revision, RevisionRepository
from app.portfolio.storage.trades import TradeRepository

# Neither members nor weights are moved by these, only the version rises.
_CONTROLS: Final = frozenset({EventType.SWITCH, EventType.LOCK})
_RESULTS: Final = frozenset({EventType.PERFORMANCE})
_BESIDE: Final = _CONTROLS | _RESULTS


@dataclass(frozen=True, slots=True, eq=False)
class Committed:
    """One consistent state of the database; two are the same only if they are one object."""

    revision: Revision
    portfolio: Portfolio
    configuration: Configuration
    controls: Controls  # as stored, with locks that have expired
    # Mark prices of the moment when weights were last set, by symbol.
    set_at: Mapping[str, Decimal]
    rebalanced_at: datetime | None  # when a rebalance last set them
    realized: Mapping[str, Decimal]  # booked results by symbol id, in their own currencies

    @classmethod
    async def load(cls, unit: UnitOfWork, revision: Revision) -> "Committed":
        weighed = await unit.get(HistoryRepository).last_weighing()
        return cls(
            revision=revision,
            portfolio=await unit.get(PortfolioRepository).load(),
            configuration=await unit.get(ConfigurationRepository).current(),
            controls=await unit.get(ControlRepository).load(),
            set_at={} if weighed is None else prices_of(weighed.payload),
            rebalanced_at=await unit.get(HistoryRepository).last_rebalance(),
            realized=await unit.get(TradeRepository).realized(),
        )

    async def renewed(self, unit: UnitOfWork, revision: Revision) -> "Committed":
        """The state of a later revision; what no event since then touches stays as it is.

        Most events are results, the switch and locks: loading everything after each of them took
        longer than all answers that were asked for until the next.
        """
        before, after = self.revision.history, revision.history
        if before is None or after is None or after < before:
            return await Committed.load(unit, revision)
        kinds = await unit.get(HistoryRepository).kinds_since(before, self.revision.tip)
        if kinds is None or not kinds <= _BESIDE:
            return await Committed.load(unit, revision)
        if revision.configuration != self.revision.configuration:
            return await Committed.load(unit, revision)
        return replace(
            self,
            revision=revision,
            portfolio=replace(self.portfolio, version=revision.portfolio),
            controls=await unit.get(ControlRepository).load()
            if kinds & _CONTROLS
            else self.controls,
            realized=await unit.get(TradeRepository).realized()
            if kinds & _RESULTS
            else self.realized,
        )


@dataclass(frozen=True, slots=True)
class Step:
    """What a change has made of the state before it, where it moved neither members nor weights."""

    before: Portfolio  # as it was locked
    event: PortfolioEvent  # the only one of the change
    version: int
    switch: Switch | None = None  # None: it is as it was
    locks: Mapping[str, Lock] | None = None  # the same
    realized: Mapping[str, Decimal] = field(default_factory=dict)  # by symbol id, of some

    def after(self, state: Committed) -> Committed | None:
        """None where `state` is not the one that was changed."""
        if state.portfolio != self.before or (state.revision.history or 0) + 1 != self.event.seq:
            return None
        held = state.controls
        return replace(
            state,
            revision=replace(
                state.revision,
                portfolio=self.version,
                history=self.event.seq,
                tip=self.event.hash,
            ),
            portfolio=replace(state.portfolio, version=self.version),
            controls=Controls(
                held.switch if self.switch is None else self.switch,
                held.locks if self.locks is None else self.locks,
            ),
            realized={**state.realized, **self.realized},
        )


# What a state is read from.
_RESTS_ON: Final = (
    PortfolioRepository,
    HistoryRepository,
    ConfigurationRepository,
    ControlRepository,
    TradeRepository,
    ReplacementRepository,
)


@dataclass(slots=True)
class Memory:
    """The newest committed state, loaded anew only when it is another one.

    Where no other process can write, the count of our own commits says whether that can be so,
    and small changes hand over what they have made of it; else the database is asked each time,
    once for all who ask at the same time.
    """

    _looking: SingleFlight[Committed] = field(default_factory=SingleFlight, init=False)
    _kept: tuple[Database, int | None, Committed] | None = field(default=None, init=False)

    def known(self, database: Database) -> Committed | None:
        """The newest state where that can be told without asking the database, else None.

        Raises UnavailableError once the database is closed.
        """
        kept, commits = self._kept, database.changed(*_RESTS_ON)
        if kept is None or commits is None or kept[0] is not database or kept[1] != commits:
            return None
        return kept[2]

    def hand_over(self, database: Database, unit: UnitOfWork, step: Step) -> None:
        """`step` is all that the transaction does; what comes of it is known with its commit.

        Where the state before it is not known, or is another one, it is looked for as ever.
        """
        before = self.known(database)
        after = None if before is None else step.after(before)
        if after is not None:
            unit.settled.append(lambda: self._take_over(database, before, after))

    def _take_over(self, database: Database, before: Committed | None, after: Committed) -> None:
        kept = self._kept
        if kept is not None and kept[2] is before:
            self._kept = (database, database.changed(*_RESTS_ON), after)

    async def newest(self, database: Database) -> Committed:
        """Nothing that was committed before the call is missing. Raises UnavailableError."""
        await asyncio.sleep(0)  # whoever reads again and again must not hold up all others
        known = self.known(database)
        return await self._looking(lambda: self._look(database)) if known is None else known

    async def _look(self, database: Database) -> Committed:
        # Before looking: what comes after it is looked for again.
        commits = database.changed(*_RESTS_ON)
        async with database.read() as unit:
            revision = await unit.get(RevisionRepository).now()
            known = None if self._kept is None or self._kept[0] is not database else self._kept[2]
            if known is None or known.revision != revision:
                load = Committed.load if known is None else known.renewed
                known = await load(unit, revision)
        self._kept = (database, commits, known)
        return known
