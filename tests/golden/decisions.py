"""Makes every kind of decision after each scoring by the use cases, and notes them as rows."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import select

from app.alerts.domain.events import AlertRaised, AlertResolved
from app.configuration.domain.model import WeightingMethod
from app.container.recording import RecordedService
from app.foundation.decision_log import DecisionKind
from app.foundation.errors import ServiceError
from app.foundation.idempotency import Command, StoredResponse
from app.foundation.sql.tables import decision_inputs
from app.portfolio.domain.controls import LockKind
from app.portfolio.domain.events import PortfolioChanged, ProposalDecided, ProposalOpened
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.proposals import ProposalState
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.rebalance_runs import RebalanceRunRepository
from app.scoring.domain.board import Board
from app.signals.domain.events import SignalChanged
from tests.golden.rows import Names, Row, decimal
from tests.golden.scenario import BALANCE, CLAIMS, SIZE

T = TypeVar("T")
OPERATOR: Final = "operator"
_ANSWER: Final = StoredResponse(200, {}, b"")


def _render(_: object) -> StoredResponse:
    return _ANSWER


@dataclass(slots=True)
class Decisions:
    """Rows of all decisions so far; `after` is called with each board, or None without one."""

    names: Names
    rows: list[Row] = field(default_factory=list)
    replays: dict[tuple[str, str], bool] = field(default_factory=dict)  # by kind and id
    _round: int = 0
    _version: int = -1
    _runs: set[str] = field(default_factory=set)
    _requests: int = 0

    async def after(self, taped: RecordedService, board: Board | None) -> None:
        """One round of decisions, on the last board where there is no new one."""
        self._round += 1
        latest = board or taped.service.scoring.latest()
        if latest is None:
            return
        desk = _Desk(self, taped, latest, self._round)
        if board is not None:
            desk.note_board()
        await desk.make_decisions()
        await self._replay_new(taped)

    async def _replay_new(self, taped: RecordedService) -> None:
        """Replays each stored decision once from its inputs."""
        service = taped.service
        replayers = {
            DecisionKind.REBALANCE.value: service.decision_replay.replay_rebalance,
            DecisionKind.REPLACEMENT.value: service.decision_replay.replay_replacement,
            DecisionKind.SIGNAL.value: service.verdict_replay.replay,
            DecisionKind.ALERT.value: service.alert_replay.replay,
        }
        async with taped.database.read() as unit:
            keys = select(decision_inputs.c.kind, decision_inputs.c.decision_id)
            stored = [tuple(row) for row in await unit.connection.execute(keys)]
        for kind, decision_id in stored:
            if kind in replayers and (kind, decision_id) not in self.replays:
                replay = await replayers[kind](decision_id)
                self.replays[kind, decision_id] = replay.is_identical

    def command(self) -> Command:
        self._requests += 1
        return Command(OPERATOR, f"golden-{self._requests}")

    def is_new_run(self, run_id: str) -> bool:
        is_new = run_id not in self._runs
        self._runs.add(run_id)
        return is_new

    def is_new_version(self, version: int) -> bool:
        is_new = version != self._version
        self._version = version
        return is_new


@dataclass(frozen=True, slots=True)
class _Desk:
    """One round: decisions in a fixed order, at one moment of the recording's clock."""

    decisions: Decisions
    taped: RecordedService
    board: Board
    number: int

    def note(
        self,
        kind: str,
        symbol: str | None = None,
        *,
        rank: int | None = None,
        z: float | None = None,
        score: float | None = None,
        weight_u: int | None = None,
        lots: int | None = None,
        verdict: str | None = None,
        rule: str | None = None,
        reason: str | None = None,
    ) -> None:
        names, clock = self.decisions.names, self.taped.clock
        since = (clock.now() - clock.started) / timedelta(milliseconds=1)
        row = Row(
            at_ms=str(round(since)),
            kind=names.number("kind", kind),
            symbol=symbol or "",
            rank="" if rank is None else str(rank),
            z=decimal(z),
            score=decimal(score),
            weight_u="" if weight_u is None else str(weight_u),
            lots="" if lots is None else str(lots),
            verdict=names.number("verdict", verdict),
            rule=names.number("rule", rule),
            reason=names.number("reason", reason),
        )
        self.decisions.rows.append(row)

    def note_board(self) -> None:
        """The board as a whole, then each symbol on it."""
        self.note("board", rank=self.board.universe_size)
        for card in self.board.cards:
            self.note(
                "score",
                card.symbol,
                rank=card.rank,
                z=card.z,
                score=card.composite,
                reason=None if card.reason is None else str(card.reason),
            )

    async def make_decisions(self) -> None:
        service, work = self.taped.service, self.taped.work
        await self.attempt("alerts", work.alerts)
        await self.note_proposed_swaps()
        await self.attempt("forced_replacement", work.forced_replacement)
        if not (await self.portfolio()).members:
            await self.attempt(
                "initialise",
                lambda: service.portfolio.initialize(SIZE, "golden", self.decisions.command()),
            )
        await self.attempt("replacement_check", work.replacement_check)
        await self.rebalance_check()
        await self.send_signals()
        await self.attempt("operator", self.act_as_operator)
        await self.decide_proposals()
        if self.number % 6 == 0:
            await self.attempt("outcomes", service.signal_outcomes.book)
            await self.optimise()
            await self.note_lots()
        await self.note_members()
        await self.note_trading()

    async def attempt(self, what: str, action: Callable[[], Awaitable[T]]) -> T | None:
        """What the action gives and announces; a refusal is a row with its code."""
        announced = self.taped.events
        before = len(announced)
        result: T | None = None
        try:
            result = await action()
        except ServiceError as error:
            self.note("refused", verdict=what, reason=str(error.code))
        for event in announced[before:]:
            self.note_event(event)
        return result

    def note_event(self, event: object) -> None:
        match event:
            case PortfolioChanged():
                for entry in event.history:
                    self.note("change", entry.symbol, verdict=entry.type)
                    if entry.other_symbol is not None:
                        self.note("change_of", entry.other_symbol, verdict=entry.type)
            case ProposalOpened():
                self.note("proposal", event.subject, verdict="open", reason=event.kind)
            case ProposalDecided():
                self.note("proposal", event.subject, verdict=event.state, reason=event.kind)
            case SignalChanged():
                self.note(
                    "signal",
                    event.symbol,
                    score=event.score,
                    verdict=event.evaluation,
                    reason=event.state,
                )
            case AlertRaised():
                self.note_alert("alert_raised", event, event.severity.value, None)
            case AlertResolved():
                self.note_alert(
                    "alert_resolved", event, event.severity.value, event.resolution.value
                )
            case _:
                pass

    def note_alert(
        self, kind: str, event: AlertRaised | AlertResolved, severity: str, reason: str | None
    ) -> None:
        for symbol in event.symbols or (None,):
            self.note(kind, symbol, verdict=severity, rule=event.rule.value, reason=reason)

    async def portfolio(self) -> Portfolio:
        async with self.taped.database.read() as unit:
            return await unit.get(PortfolioRepository).load()

    async def note_proposed_swaps(self) -> None:
        """Each member that may have to go, with the best symbol in its place and the threshold."""
        found = await self.attempt("replacement", self.taped.service.replacement.evaluate)
        for one in () if found is None else found.proposals:
            blocks: list[str | None] = [block.value for block in one.blocked_by]
            verdict = "forced" if one.is_forced else "due" if one.is_due else "blocked"
            for block in blocks or [None]:
                self.note("swap", one.outgoing.side.symbol, verdict=verdict, reason=block)
            if one.candidate is not None:
                self.note(
                    "swap_by",
                    one.candidate.symbol,
                    rank=one.confirmations,
                    z=one.comparison.improvement,
                    score=one.threshold,
                )

    async def rebalance_check(self) -> None:
        at = self.taped.clock.now()
        await self.attempt("rebalance_check", lambda: self.taped.work.rebalance_check(at))
        await self.note_runs()

    async def note_runs(self) -> None:
        """Every rebalance since the last look: how it ended, why it began, what it moved."""
        async with self.taped.database.read() as unit:
            runs = await unit.get(RebalanceRunRepository).page(None, 10)
        for run in reversed([one for one in runs if self.decisions.is_new_run(one.run_id)]):
            failure = None if run.failure is None else run.failure.code
            self.note("rebalance", verdict=run.state.value, reason=failure)
            if run.outcome is None:
                continue
            for trigger in run.outcome.triggers:
                self.note("trigger", reason=trigger.value)
            for shift in run.outcome.changes:
                self.note("shift", shift.symbol, weight_u=shift.new_u, verdict=shift.action)

    async def send_signals(self) -> None:
        """The next two of the fixed list."""
        for at in (2 * self.number, 2 * self.number + 1):
            claim = replace(CLAIMS[at % len(CLAIMS)], source_id=f"golden-{at}")
            command, submit = self.decisions.command(), self.taped.service.signals.submit
            await self.attempt("signal", partial(submit, claim, command))
        await self.attempt("signals", self.taped.work.signals)
        await self.note_effects()

    async def note_effects(self) -> None:
        """What came of approved signals that were seen to just now."""
        now = self.taped.clock.now()
        for judged in await self.taped.service.signals.processed(24, 40):
            effect = judged.effect
            if effect is None or effect.at != now:
                continue
            step = effect.step
            self.note(
                "effect",
                judged.signal.claim.symbol,
                verdict=effect.automation.value,
                reason=None if step is None else step.move.value,
            )

    async def decide_proposals(self) -> None:
        """Decides on the oldest open proposal every other round, declines in every 16th."""
        proposals = self.taped.service.proposals
        shown = await proposals.page(None, 100)
        waiting = [one.proposal for one in shown if one.proposal.state is ProposalState.OPEN]
        if not waiting or self.number % 2:
            return
        oldest = waiting[-1]
        decide = proposals.decline if self.number % 16 == 0 else proposals.approve
        await self.attempt(
            "proposal",
            lambda: decide(oldest.proposal_id, "golden", self.decisions.command(), _render),
        )
        await self.note_runs()

    async def optimise(self) -> None:
        """Target weights by every method."""
        optimize = self.taped.service.rebalancing.optimize
        for method in WeightingMethod:
            made = await self.attempt("optimise", partial(optimize, method))
            for line in () if made is None else made.lines:
                self.note("optimised", line.symbol, weight_u=line.proposed_u, reason=method.value)

    async def note_lots(self) -> None:
        """The lots of all members together."""

        async def rehearse() -> Any:
            outcome = await self.taped.service.rebalancing.rebalance(
                self.decisions.command(), dry_run=True, account_balance=Decimal(BALANCE)
            )
            return outcome.result

        made = await self.attempt("lots", rehearse)
        if made is None or made.lots is None:
            return
        for symbol, lots in made.lots.lots.items():
            weight_u = made.plan.allocation.weights_u.get(symbol)
            self.note("lots", symbol, weight_u=weight_u, lots=lots)

    async def note_members(self) -> None:
        """The portfolio, whenever it has a new version."""
        portfolio = await self.portfolio()
        if not self.decisions.is_new_version(portfolio.version):
            return
        for rank, member in enumerate(portfolio.members, 1):
            self.note("member", member.symbol, rank=rank, weight_u=member.target_weight_u)
        self.note("cash", weight_u=portfolio.cash_u)

    async def note_trading(self) -> None:
        """Whether each member may be traded, and its position size alone."""
        trading = self.taped.service.trading
        for member in (await self.portfolio()).members:
            name = member.symbol
            asked = await self.attempt("should_trade", partial(trading.should_trade, name))
            if asked is not None:
                failed = next((one.name for one in asked[0].checks if not one.passed), None)
                verdict = "trade" if asked[0].trade else "no_trade"
                self.note("trade", name, verdict=verdict, reason=failed)
            sized = await self.attempt(
                "position_size",
                partial(trading.position_size, name, Decimal(BALANCE), Decimal(1)),
            )
            if sized is not None:
                made = sized[0]
                binding = made.size.binding
                self.note("size", name, weight_u=made.weight_u, lots=made.size.lots, reason=binding)

    # --- the operator

    async def act_as_operator(self) -> None:
        """The action of this round, if there is one."""
        action = _ACTIONS.get(self.number)
        if action is not None:
            await action(self)

    def outsider(self, members: Portfolio) -> str:
        """The best symbol that is no member."""
        held = {member.symbol for member in members.members}
        return next(
            c.symbol for c in self.board.cards if c.rank is not None and c.symbol not in held
        )

    async def ban_outsider(self) -> None:
        symbol = self.outsider(await self.portfolio())
        await self.lock(symbol, LockKind.BAN)

    async def ban_member(self) -> None:
        await self.lock((await self.portfolio()).members[0].symbol, LockKind.BAN)

    async def pin_member(self) -> None:
        await self.lock((await self.portfolio()).members[-1].symbol, LockKind.PIN)

    async def lock(self, symbol: str, kind: LockKind) -> None:
        ends = self.taped.clock.now() + timedelta(minutes=40)
        controls = self.taped.service.controls
        await controls.lock(symbol, kind, "golden", ends, self.decisions.command())

    async def add(self) -> None:
        symbol = self.outsider(await self.portfolio())
        await self.taped.service.portfolio.add(symbol, "golden", self.decisions.command())

    async def remove(self) -> None:
        symbol = (await self.portfolio()).members[-1].symbol
        await self.taped.service.portfolio.remove(symbol, "golden", self.decisions.command())

    async def swap(self) -> None:
        members = await self.portfolio()
        old, new = members.members[-1].symbol, self.outsider(members)
        command = self.decisions.command()
        await self.taped.service.portfolio.replace(old, new, "golden", command)

    async def halt(self) -> None:
        await self.taped.service.controls.switch(False, "golden", self.decisions.command())

    async def resume(self) -> None:
        await self.taped.service.controls.switch(True, "golden", self.decisions.command())

    async def rebalance(self) -> None:
        await self.taped.service.rebalancing.rebalance(
            self.decisions.command(),
            reason="golden",
            account_balance=Decimal(BALANCE),
            method=WeightingMethod.HRP,
        )
        await self.note_runs()

    def automation(self, name: str) -> Callable[[], Awaitable[None]]:
        async def put() -> None:
            changes = {"automation": {"rebalance": name}}
            configuration = self.taped.service.configuration
            await configuration.put(changes, "golden", self.decisions.command())

        return put


Act = Callable[[_Desk], Awaitable[None]]
_ACTIONS: Final[dict[int, Act]] = {
    4: _Desk.ban_outsider,
    6: _Desk.pin_member,
    9: _Desk.add,
    12: _Desk.remove,
    15: _Desk.swap,
    17: _Desk.rebalance,
    19: _Desk.halt,
    21: _Desk.resume,
    23: _Desk.add,
    26: lambda desk: desk.automation("propose")(),
    37: lambda desk: desk.automation("observe")(),
    42: lambda desk: desk.automation("auto")(),
    45: _Desk.ban_member,
    49: _Desk.remove,
    52: _Desk.add,
    58: _Desk.swap,
}
