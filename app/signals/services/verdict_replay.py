"""Stores the inputs of verdicts on signals, and replays a verdict from them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from app.configuration.storage.configuration import load_configuration
from app.foundation.decision_log import (
    DecisionKind,
    DecisionLog,
    DecisionReplay,
    compare_replay,
    decode_inputs,
    load_decision,
)
from app.foundation.sql.database import Database, UnitOfWork
from app.signals.domain.agents import AGENTS, Agent, UniverseContext
from app.signals.domain.consensus import VerdictSnapshot, consensus_from_snapshot
from app.signals.domain.evaluated_signal import EvaluatedSignal


async def record_verdicts(
    unit: UnitOfWork, log: DecisionLog, signals: Iterable[EvaluatedSignal], at: datetime
) -> None:
    """Stores the inputs of new verdicts, and the universe of their board once."""
    universes: set[str] = set()
    for one in signals:
        given = one.snapshot
        if given is None:
            continue
        if given.board_id not in universes:
            universes.add(given.board_id)
            kind = DecisionKind.UNIVERSE
            await log.record(unit, kind, given.board_id, at, given.universe, None)
        kind, own = DecisionKind.SIGNAL, replace(given, universe=None)
        # A retried signal has a verdict for each attempt; the last one is the one that stands.
        await log.replace(unit, kind, one.signal.signal_id, at, own, one.verdict)


@dataclass(frozen=True, slots=True)
class VerdictReplayer:
    """Replays stored verdicts; nothing is written."""

    database: Database
    agents: tuple[Agent, ...] = AGENTS

    async def replay(self, signal_id: str) -> DecisionReplay:
        """Reaches the consensus on a signal again from its inputs.

        Raises NotFoundError without its inputs, ConflictError (algorithm_version).
        """
        kind = DecisionKind.SIGNAL
        async with self.database.read() as unit:
            stored = await load_decision(unit, kind, signal_id)
            own = decode_inputs(stored, VerdictSnapshot)
            beside = await load_decision(unit, DecisionKind.UNIVERSE, own.board_id)
            settings = await load_configuration(unit, own.configuration_version)
        given = replace(own, universe=decode_inputs(beside, UniverseContext))
        return compare_replay(
            kind, stored, lambda: consensus_from_snapshot(given, settings.signals, self.agents)
        )
