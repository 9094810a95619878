"""SQL of outcomes: one row for each verdict, open until its outcome is recorded."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.statements import insert
from app.signals.domain.evaluated_signal import EvaluatedSignal
from app.signals.domain.models import Direction
from app.signals.domain.outcomes import OutcomeWindow, SignalOutcome
from app.signals.storage.tables import signal_outcomes as table
from app.signals.storage.tables import signals

_BOOKED: Final = (
    "booked_at", "outperformed", "gain", "median", "universe_size", "reason", "counts_for_agents",
    "counts_for_source",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class OpenOutcome:
    """Outcome to record, and the forecast of the source."""

    signal_id: str
    source: str
    type: str  # of the signal
    symbol: str
    direction: Direction
    strength: float
    confidence: float
    outcome: SignalOutcome


@dataclass(frozen=True, slots=True)
class Booking:
    """Recorded outcome, and the forecasters that it counts for."""

    signal_id: str
    outcome: SignalOutcome
    counts_for_agents: bool
    counts_for_source: bool


@dataclass(frozen=True, slots=True)
class OutcomeCounts:
    open: int
    decided: int
    unknown: int


@dataclass(frozen=True, slots=True)
class SignalOutcomeRepository:
    connection: AsyncConnection

    async def insert_open(self, evaluated: Iterable[EvaluatedSignal]) -> None:
        """Inserts open outcomes; verdicts without one are skipped, existing rows stay."""
        rows = [
            {
                "signal_id": one.signal.signal_id,
                "source": one.signal.claim.source,
                "type": one.signal.claim.type,
                "symbol": one.signal.claim.symbol,
                "starts_at": one.outcome.window.starts_at,
                "ends_at": one.outcome.window.ends_at,
                "counts_for_agents": False,
                "counts_for_source": False,
            }
            for one in evaluated
            if one.outcome is not None and one.signal.claim.symbol is not None
        ]
        if rows:
            await self.connection.execute(
                insert(self.connection, table).on_conflict_do_nothing(), rows
            )

    async def load(self, signal_ids: Iterable[str]) -> dict[str, SignalOutcome]:
        """Outcomes by signal; signals without one are left out."""
        wanted = select(table).where(table.c.signal_id.in_([*signal_ids]))
        return {
            row.signal_id: _outcome_from_row(row) for row in await self.connection.execute(wanted)
        }

    async def windows(self, now: datetime) -> tuple[OutcomeWindow, ...]:
        """Windows that ended by `now` with an open outcome, in the order of their ends."""
        wanted = (
            select(table.c.starts_at, table.c.ends_at)
            .where(table.c.booked_at.is_(None), table.c.ends_at <= now)
            .distinct()
            .order_by(table.c.ends_at, table.c.starts_at)
        )
        return tuple(OutcomeWindow(*row) for row in await self.connection.execute(wanted))

    async def take(
        self, window: OutcomeWindow, limit: int, symbols: Iterable[str] | None = None
    ) -> tuple[OpenOutcome, ...]:
        """Open outcomes of a window, of some symbols or of all; locked, ordered by id."""
        claimed = (signals.c.direction, signals.c.strength, signals.c.confidence)
        wanted = (
            select(table, *(column.label(f"claim_{column.name}") for column in claimed))
            .join(signals, signals.c.signal_id == table.c.signal_id)
            .where(table.c.booked_at.is_(None))
            .where(table.c.starts_at == window.starts_at, table.c.ends_at == window.ends_at)
            .order_by(table.c.signal_id)
            .limit(limit)
            .with_for_update(of=table)
        )
        if symbols is not None:
            wanted = wanted.where(table.c.symbol.in_([*symbols]))
        return tuple(_open_outcome_from_row(row) for row in await self.connection.execute(wanted))

    async def symbols(self, window: OutcomeWindow) -> frozenset[str]:
        """Symbols with an open outcome in the window."""
        wanted = select(table.c.symbol).where(
            table.c.booked_at.is_(None),
            table.c.starts_at == window.starts_at,
            table.c.ends_at == window.ends_at,
        )
        return frozenset(row.symbol for row in await self.connection.execute(wanted.distinct()))

    async def counted_until(
        self, symbols: Iterable[str]
    ) -> tuple[dict[str, datetime], dict[tuple[str, str, str], datetime]]:
        """Last counted end by symbol for agents, and by source, type and symbol for sources."""
        wanted = (
            select(table.c.symbol, func.max(table.c.ends_at).label("ends"))
            .where(table.c.symbol.in_([*symbols]), table.c.counts_for_agents)
            .group_by(table.c.symbol)
        )
        agents = {row.symbol: row.ends for row in await self.connection.execute(wanted)}
        wanted = (
            select(
                table.c.source,
                table.c.type,
                table.c.symbol,
                func.max(table.c.ends_at).label("ends"),
            )
            .where(table.c.symbol.in_([*symbols]), table.c.counts_for_source)
            .group_by(table.c.source, table.c.type, table.c.symbol)
        )
        rows = await self.connection.execute(wanted)
        return agents, {(row.source, row.type, row.symbol): row.ends for row in rows}

    async def book(self, bookings: Sequence[Booking]) -> None:
        values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in _BOOKED}
        statement = table.update().where(table.c.signal_id == bindparam("key")).values(values)
        if bookings:
            await self.connection.execute(statement, [_booking_to_row(one) for one in bookings])

    async def counts(self, since: datetime) -> OutcomeCounts:
        """Counts for the signals received since `since`."""
        wanted = (
            select(func.count(), func.count(table.c.booked_at), func.count(table.c.outperformed))
            .select_from(table)
            .join(signals, signals.c.signal_id == table.c.signal_id)
            .where(signals.c.received_at >= since)
        )
        total, booked, decided = (await self.connection.execute(wanted)).one()
        return OutcomeCounts(total - booked, decided, booked - decided)


def _booking_to_row(booking: Booking) -> Mapping[str, Any]:
    outcome = booking.outcome
    return {
        "key": booking.signal_id,
        "new_booked_at": outcome.booked_at,
        "new_outperformed": outcome.outperformed,
        "new_gain": outcome.gain,
        "new_median": outcome.median,
        "new_universe_size": outcome.universe_size,
        "new_reason": outcome.reason,
        "new_counts_for_agents": booking.counts_for_agents,
        "new_counts_for_source": booking.counts_for_source,
    }


def _open_outcome_from_row(row: Row[Any]) -> OpenOutcome:
    return OpenOutcome(
        signal_id=row.signal_id,
        source=row.source,
        type=row.type,
        symbol=row.symbol,
        direction=Direction(row.claim_direction),
        strength=row.claim_strength,
        confidence=row.claim_confidence,
        outcome=_outcome_from_row(row),
    )


def _outcome_from_row(row: Row[Any]) -> SignalOutcome:
    return SignalOutcome(
        window=OutcomeWindow(row.starts_at, row.ends_at),
        booked_at=row.booked_at,
        outperformed=row.outperformed,
        gain=row.gain,
        median=row.median,
        universe_size=row.universe_size,
        reason=row.reason,
    )
