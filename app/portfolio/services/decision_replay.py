"""Snapshots of the inputs of rebalances and replacements, and the replay of both from them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np

from app.configuration.domain.model import Configuration, WeightingMethod
from app.configuration.storage.configuration import load_configuration
from app.foundation.decision_log import (
    DecisionKind,
    DecisionReplay,
    compare_replay,
    decode_inputs,
    load_decision,
)
from app.foundation.sql.database import Database
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.proposals import ApprovedPlan, plan_approved
from app.portfolio.domain.rebalance_plan import MemberStatus, Plan, plan_rebalance
from app.portfolio.domain.replacement import (
    ConfirmationCount,
    OutgoingMember,
    ReplacementBlock,
    ReplacementProposal,
    ReplacementSide,
    limit_per_cycle,
    propose_replacement,
)
from app.portfolio.domain.weighting import Covariance
from app.portfolio.services.lot_plan import LotPlan, LotStep, allocate_planned_lots


@dataclass(frozen=True, slots=True)
class CovarianceRows:
    """Covariance as plain numbers, row by row in the order of `symbols`."""

    symbols: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]

    @classmethod
    def from_covariance(cls, known: Covariance | None) -> "CovarianceRows | None":
        if known is None:
            return None
        return cls(known.symbols, tuple(tuple(row) for row in known.matrix.tolist()))

    def to_covariance(self) -> Covariance:
        return Covariance(self.symbols, np.array(self.rows, np.float64))


@dataclass(frozen=True, slots=True)
class RebalanceSnapshot:
    """Every input of a rebalance plan; the settings are those of `configuration_version`.

    `lot_steps` is None without a balance.
    """

    configuration_version: int
    portfolio: Portfolio  # with the weights after price drift
    recorded_u: Mapping[str, int]  # weights of record
    statuses: Mapping[str, MemberStatus]
    at: datetime
    covariance: CovarianceRows | None
    method: WeightingMethod | None
    rebalanced_at: datetime | None
    is_interval_done: bool
    least_u: Mapping[str, int]
    approved: ApprovedPlan | None
    balance: Decimal | None
    lot_steps: Mapping[str, LotStep] | None


@dataclass(frozen=True, slots=True)
class PlannedRebalance:
    """Plan and whole lots; the lots are None without a balance."""

    plan: Plan
    lots: LotPlan | None


def plan_from_snapshot(
    given: RebalanceSnapshot, configuration: Configuration, covariance: Covariance | None
) -> PlannedRebalance:
    """Plans a rebalance; a function of its arguments alone.

    Raises ConflictError(plan_changed) when the approved plan is no longer valid.
    """
    plan = plan_rebalance(
        given.portfolio,
        given.statuses,
        configuration,
        given.at,
        covariance,
        given.method,
        rebalanced_at=given.rebalanced_at,
        is_interval_done=given.is_interval_done,
        least_u=given.least_u,
    )
    if given.approved is not None:
        low_u = configuration.min_weight_u
        plan = plan_approved(
            given.approved, given.portfolio, plan, given.statuses, given.least_u, low_u
        )
    if given.balance is None or given.lot_steps is None:
        return PlannedRebalance(plan, None)
    # Without a trigger the current weights and lots stay.
    weights_u = plan.allocation.weights_u if plan.triggers else given.recorded_u
    low_u = configuration.min_weight_u
    lots = allocate_planned_lots(weights_u, given.balance, given.lot_steps, low_u)
    return PlannedRebalance(plan, lots)


@dataclass(frozen=True, slots=True)
class ReplacementSnapshot:
    """Every input of the proposals of one evaluation."""

    configuration_version: int
    pairs: tuple[tuple[OutgoingMember, ReplacementSide | None], ...]
    noise: Mapping[str, float]  # of the composite z, by symbol
    tallies: Mapping[str, ConfirmationCount]  # by member
    since_swap: timedelta | None
    obstacle: ReplacementBlock | None  # against every replacement


def propose_from_snapshot(
    given: ReplacementSnapshot, configuration: Configuration
) -> tuple[ReplacementProposal, ...]:
    """Proposes replacements; a function of its arguments alone."""
    rules = configuration.replacement
    proposals = limit_per_cycle(
        (
            propose_replacement(
                one, other, given.noise, given.tallies.get(one.side.symbol), given.since_swap, rules
            )
            for one, other in given.pairs
        ),
        rules,
    )
    if given.obstacle is None:
        return proposals
    return tuple(replace(one, blocked_by=(given.obstacle, *one.blocked_by)) for one in proposals)


@dataclass(frozen=True, slots=True)
class DecisionReplayer:
    """Replays stored decisions about the portfolio; nothing is written."""

    database: Database

    async def replay_rebalance(self, run_id: str) -> DecisionReplay:
        """Plans a run again from its snapshot.

        Raises NotFoundError without its inputs, ConflictError (algorithm_version).
        """
        kind = DecisionKind.REBALANCE
        async with self.database.read() as unit:
            stored = await load_decision(unit, kind, run_id)
            given = decode_inputs(stored, RebalanceSnapshot)
            settings = await load_configuration(unit, given.configuration_version)
        known = None if given.covariance is None else given.covariance.to_covariance()
        return compare_replay(kind, stored, lambda: plan_from_snapshot(given, settings, known))

    async def replay_replacement(self, decision_id: str) -> DecisionReplay:
        """Proposes again from the snapshot of an executed or proposed replacement.

        `decision_id` is the number of its event in the history, or the id of its proposal. Raises
        as `replay_rebalance`.
        """
        kind = DecisionKind.REPLACEMENT
        async with self.database.read() as unit:
            stored = await load_decision(unit, kind, decision_id)
            given = decode_inputs(stored, ReplacementSnapshot)
            settings = await load_configuration(unit, given.configuration_version)
        return compare_replay(kind, stored, lambda: propose_from_snapshot(given, settings))
