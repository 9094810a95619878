"""Rebalancing: where the weights should be, what that changes, and doing it once."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from app.domain.configuration import WeightingMethod
from app.domain.events import PlanCreated
from app.domain.history import Draft, EventType, number_text
from app.domain.membership import Change, weigh
from app.domain.portfolio import FULL, Member, Portfolio
from app.domain.rebalancing import Plan, plan, rulings, targets
from app.domain.targets import volatility
from app.domain.weighting import Allocation, Role
from app.services.changes import Ledger
from app.services.grounds import Grounds, GroundsNow
from app.services.lot_plan import LotPlan, lot_plan, trading_costs
from app.services.once import Command, Once, Outcome, Render
from app.services.trading import DataFacts, facts_of
from app.storage.database import Database
from app.storage.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True)
class Rebalanced:
    """The plan; `version` is the one that it made, or the present one where it changed nothing."""

    run_id: str
    plan: Plan
    lots: LotPlan | None  # where a balance was given
    cost: float | None  # fraction of equity
    has_impact: bool  # whether the cost holds what the order moves the price
    is_dry_run: bool
    version: int
    cash_u: int
    facts: DataFacts


@dataclass(frozen=True, slots=True)
class WeightLine:
    """One member's weight; the target is the one that a rebalance would set now."""

    member: Member  # with the weight of record
    marked_u: int  # that weight as prices have carried it
    target_u: int
    bound: str | None  # "minimum" or "maximum" where one binds the target
    role: Role | None  # None where data is too old to say
    reason: str

    @property
    def drift_u(self) -> int:
        return self.marked_u - self.target_u


@dataclass(frozen=True, slots=True)
class Weights:
    version: int
    lines: tuple[WeightLine, ...]
    cash_u: int  # as prices have carried it
    target_cash_u: int
    min_u: int
    max_u: int
    flags: tuple[str, ...]
    facts: DataFacts


@dataclass(frozen=True, slots=True)
class Proposed:
    """One member's weight now, as prices have carried it, and by the method."""

    symbol: str
    weight_u: int
    proposed_u: int
    reason: str


@dataclass(frozen=True, slots=True)
class Optimized:
    """Weights by a method; risk is annualised volatility, None where a member is not covered."""

    method: WeightingMethod
    version: int
    lines: tuple[Proposed, ...]
    cash_u: int
    risk_before: float | None
    risk_after: float | None
    flags: tuple[str, ...]
    facts: DataFacts


@dataclass(frozen=True, slots=True)
class Rebalancing:
    """Turns drift into new weights, or shows what it would do."""

    database: Database
    grounds: GroundsNow
    once: Once
    ledger: Ledger
    new_id: Callable[[], str]

    async def weights(self) -> Weights:
        """Weights of record beside the targets; with stale data those of the last change."""
        async with self.database.read() as unit:
            portfolio = await unit.portfolio.load()
            grounds = await self.grounds.of(unit)
        return _weights(portfolio, grounds)

    async def optimize(self, method: WeightingMethod) -> Optimized:
        """What a method would make of the members, and how volatile before and after; a read.

        Raises UnavailableError (no_board_yet, market_data_stale).
        """
        async with self.database.read() as unit:
            portfolio = await unit.portfolio.load()
            grounds = await self.grounds.of(unit)
        grounds.require_fresh_members(portfolio)
        now, known = grounds.marked(portfolio), grounds.covariance(portfolio)
        standings, settings = grounds.standings(portfolio), grounds.configuration
        ruled = rulings(now, standings, settings, known, method)
        allocation = targets(ruled, settings, known, method)
        held = {member.symbol: member.weight_u for member in now.members}
        return Optimized(
            method=method,
            version=portfolio.version,
            lines=tuple(
                Proposed(symbol, weight_u, allocation.weights_u[symbol], ruled[symbol].reason)
                for symbol, weight_u in held.items()
            ),
            cash_u=allocation.cash_u,
            risk_before=None if known is None else volatility(held, known),
            risk_after=None if known is None else volatility(allocation.weights_u, known),
            flags=tuple(flag.value for flag in allocation.flags),
            facts=facts_of(grounds),
        )

    async def rebalance(
        self,
        command: Command,
        *,
        dry_run: bool = False,
        reason: str = "requested",
        account_balance: Decimal | None = None,
        method: WeightingMethod | None = None,
        render: Render[Rebalanced] | None = None,
    ) -> Outcome[Rebalanced]:
        """Carry out the plan of the moment, by the configured method or another one; without
        a trigger or as dry run nothing is written.

        Raises UnavailableError (no_board_yet, market_data_stale), PreconditionFailedError.
        """
        run_id = self.new_id()

        async def change(unit: UnitOfWork) -> Rebalanced:
            portfolio = await unit.portfolio.load(for_update=True)
            command.require_version(portfolio.version)
            grounds = await self.grounds.of(unit)
            grounds.require_fresh_members(portfolio)
            if not dry_run:
                grounds.controls.require((Draft(EventType.REBALANCE, None, None, {}, reason),))
            made = plan(
                grounds.marked(portfolio),
                grounds.standings(portfolio),
                grounds.configuration,
                grounds.at,
                grounds.covariance(portfolio),
                method,
            )
            cost, has_impact = trading_costs(made.shifts, account_balance, grounds)
            after = portfolio
            if made.shifts and not dry_run:
                facts = _facts(
                    run_id, made, method or grounds.configuration.rebalancing.method, cost
                )
                done = weigh(
                    Change(portfolio, ()),
                    made.allocation,
                    facts,
                    grounds.at,
                    reason,
                    EventType.REBALANCE,
                )
                await self.ledger.commit(unit, portfolio, done, grounds, command)
                after = done.portfolio
                unit.announce(PlanCreated(run_id, after.version, len(made.shifts), grounds.at))
            return Rebalanced(
                run_id=run_id,
                plan=made,
                lots=None
                if account_balance is None
                else lot_plan(made.allocation.weights_u, account_balance, grounds),
                cost=cost,
                has_impact=has_impact,
                is_dry_run=dry_run,
                version=after.version,
                cash_u=made.allocation.cash_u if made.shifts else after.cash_u,
                facts=facts_of(grounds),
            )

        return await self.once.run(command, change, render)


def _facts(
    run_id: str, made: Plan, method: WeightingMethod, cost: float | None
) -> dict[str, object]:
    return {
        "run_id": run_id,
        "method": method.value,
        "triggers": [trigger.value for trigger in made.triggers],
        "turnover_u": made.turnover_u,
        "estimated_cost": number_text(cost),
        "reasons": {shift.symbol: shift.reason for shift in made.shifts},
    }


def _weights(portfolio: Portfolio, grounds: Grounds) -> Weights:
    settings = grounds.configuration
    sound = grounds.is_sound(portfolio)
    known = grounds.covariance(portfolio)
    now = grounds.marked(portfolio)
    ruled = rulings(now, grounds.standings(portfolio), settings, known) if sound else {}
    allocation = targets(ruled, settings, known) if sound else _last_targets(portfolio)
    low, high = settings.min_weight_u, settings.max_weight_u
    lines = []
    for member, moved in zip(portfolio.members, now.members, strict=True):
        ruling = ruled.get(member.symbol)
        target_u = allocation.weights_u[member.symbol]
        funded = ruling is not None and ruling.claim.role is Role.FUNDED
        binding = {high: "maximum", low: "minimum"}.get(target_u) if funded else None
        lines.append(
            WeightLine(
                member=member,
                marked_u=moved.weight_u,
                target_u=target_u,
                bound=binding,
                role=None if ruling is None else ruling.claim.role,
                reason="market data is stale: the last targets stand"
                if ruling is None
                else ruling.reason,
            )
        )
    return Weights(
        version=portfolio.version,
        lines=tuple(lines),
        cash_u=now.cash_u,
        target_cash_u=allocation.cash_u,
        min_u=low,
        max_u=high,
        flags=tuple(flag.value for flag in allocation.flags),
        facts=facts_of(grounds),
    )


def _last_targets(portfolio: Portfolio) -> Allocation:
    weights = {member.symbol: member.target_weight_u for member in portfolio.members}
    return Allocation(weights, FULL - sum(weights.values()), ())
