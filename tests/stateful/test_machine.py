"""A random life of the portfolio on both databases at once; after every step all invariants hold.

MYTESTS_STATEFUL_EXAMPLES and MYTESTS_STATEFUL_STEPS make it longer (`make stateful`).
"""

import asyncio
import os
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.configuration.domain.sections import AutomationMode
from app.foundation.errors import Code
from app.foundation.idempotency import Command
from app.market.domain.models import ContractStatus
from app.performance.services.service import ResultSubmission
from app.portfolio.domain.controls import LockKind
from app.portfolio.domain.proposals import ProposalState
from app.portfolio.domain.rebalance_run import slot
from app.portfolio.domain.weighting import WeightRole
from tests.stateful.deciding import decided_rightly
from tests.stateful.differential import (
    Call,
    Key,
    Place,
    Said,
    Seen,
    Twins,
    grew_rightly,
    kept_in_bounds,
    monotone,
    ran_rightly,
    rendered,
    sound,
    told_truly,
    within_bounds,
)
from tests.support import postgres
from tests.support.network_cut import Cut
from tests.support.trading_desk import NOW, SYMBOLS, Desk

EXAMPLES = int(os.environ.get("MYTESTS_STATEFUL_EXAMPLES", "4"))
STEPS = int(os.environ.get("MYTESTS_STATEFUL_STEPS", "24"))
FEW = SYMBOLS[:14]

symbols = st.sampled_from(FEW)
some = st.lists(symbols, min_size=1, max_size=4, unique=True)
scores = st.dictionaries(
    symbols, st.none() | st.integers(0, 100).map(lambda number: number / 100), max_size=8
)
changes: st.SearchStrategy[Mapping[str, object]] = st.fixed_dictionaries(
    {},
    optional={
        "max_portfolio_symbols": st.integers(1, 12),
        "min_weight_percentage": st.integers(0, 12),
        "max_weight_percentage": st.integers(5, 60),
        "score_tilt": st.integers(0, 10).map(lambda number: number / 10),
        "entry_score": st.sampled_from([0.5, 0.6, 0.7]),
        "misspelt": st.just(1),
    },
)


class Life(RuleBasedStateMachine):
    """Every rule is one request or one thing that the world does."""

    place: Place

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.twins = Twins(self.place)
        self.runner.run(self.twins.open())
        self.known = self.now()
        self.last: tuple[Call, Command, Said] | None = None

    def teardown(self) -> None:
        try:
            self.runner.run(self.twins.close())
        finally:
            self.runner.close()

    @property
    def desk(self) -> Desk:
        return self.twins.desks[0]

    def now(self) -> Seen:
        return self.runner.run(self.twins.seen())

    def request(self, call: Call, *, if_match: int | None = None) -> Said:
        """One request under a key of its own, and what must be true of any."""
        number = next(self.twins.requests)
        key = Key(f"key-{number}", f"print-{number}")
        command = Command("operator", f"request-{number}", if_match=if_match, idempotency_key=key)
        said = self.repeat(call, command)
        self.last = (call, command, said)
        return said

    def repeat(self, call: Call, command: Command) -> Said:
        before = self.known
        said = self.runner.run(self.twins.say(call, command))
        self.known = self.now()
        told_truly(before, self.known, said, command)
        self.all_was_right(before)
        return said

    def all_was_right(self, before: Seen) -> None:
        grew_rightly(before, self.known, self.desk)
        kept_in_bounds(before, self.known, self.desk)
        ran_rightly(before, self.known)
        decided_rightly(before, self.known)

    # --- what a caller does --------------------------------------------------------------------

    @initialize(size=st.integers(0, 8))
    def begin(self, size: int) -> None:
        if size:
            self.request(lambda desk, who: desk.portfolio.initialize(size, "start", who, rendered))

    @rule(symbol=symbols)
    def add(self, symbol: str) -> None:
        self.request(lambda desk, who: desk.portfolio.add(symbol, "in", who, rendered))

    @rule(symbol=symbols)
    def remove(self, symbol: str) -> None:
        self.request(lambda desk, who: desk.portfolio.remove(symbol, "out", who, rendered))

    @rule(old=symbols, new=symbols)
    def replace(self, old: str, new: str) -> None:
        self.request(lambda desk, who: desk.portfolio.replace(old, new, "swap", who, rendered))

    @rule(dry_run=st.booleans(), balance=st.none() | st.just(Decimal(10_000)))
    def rebalance(self, dry_run: bool, balance: Decimal | None) -> None:
        version = self.known.portfolio.version
        said = self.request(
            lambda desk, who: desk.rebalancing.rebalance(
                who, dry_run=dry_run, account_balance=balance, render=rendered
            )
        )
        if dry_run:
            assert self.known.portfolio.version == version
        elif said.code is None:
            self.nothing_is_left_to_do()

    def nothing_is_left_to_do(self) -> None:
        """A second run right after the first changes nothing."""
        version = self.known.portfolio.version
        self.request(lambda desk, who: desk.rebalancing.rebalance(who, render=rendered))
        assert self.known.portfolio.version == version
        within_bounds(self.runner.run(self.desk.rebalancing.weights()))

    @rule(ago=st.sampled_from([0, 1, 2]), times=st.integers(1, 2))
    def the_schedule_ticks(self, ago: int, times: int) -> None:
        """The same tick again, also after a restart, has no second run."""
        tick = slot(self.desk.now, 3600) - ago * timedelta(hours=1)
        for _ in range(times):
            before = self.known
            number = next(self.twins.requests)
            command = Command("schedule", f"tick-{number}")
            told = self.runner.run(self.twins.tick(tick, command))
            self.known = self.now()
            self.all_was_right(before)
            here = [run for run in self.known.runs.values() if run.scheduled_at == tick]
            assert sum(run.outcome is not None for run in here) <= 1
            assert told is not None or any(run.outcome is not None for run in here)

    @rule()
    def a_process_dies_within_a_run(self) -> None:
        """It has claimed one and is heard of no more; until its lease ends others are refused."""
        before = self.known
        is_taken = any(run.is_active for run in before.runs.values())
        number = next(self.twins.requests)
        command = Command("operator", f"request-{number}")
        told = self.runner.run(self.twins.vanish(command))
        self.known = self.now()
        assert self.known.effects == before.effects
        ran_rightly(before, self.known)
        if told is not None:
            assert is_taken
            assert told == Code.REBALANCE_IN_PROGRESS
            return
        said = self.request(lambda desk, who: desk.rebalancing.rebalance(who, render=rendered))
        assert said.code == Code.REBALANCE_IN_PROGRESS

    @rule(enabled=st.booleans())
    def switch_trading(self, enabled: bool) -> None:
        self.request(lambda desk, who: desk.controls.switch(enabled, "by hand", who, rendered))

    @rule(
        symbol=symbols,
        kind=st.sampled_from(LockKind),
        hours=st.none() | st.sampled_from([-1, 1, 30]),
    )
    def lock(self, symbol: str, kind: LockKind, hours: int | None) -> None:
        until = None if hours is None else self.desk.now + timedelta(hours=hours)
        self.request(
            lambda desk, who: desk.controls.lock(symbol, kind, "by hand", until, who, rendered)
        )

    @rule(symbol=symbols)
    def unlock(self, symbol: str) -> None:
        self.request(lambda desk, who: desk.controls.unlock(symbol, "again", who, rendered))

    @rule(symbol=symbols, number=st.integers(1, 4), pnl=st.integers(-5, 5).map(Decimal))
    def book_a_result(self, symbol: str, number: int, pnl: Decimal) -> None:
        """A trade id is booked once, with what was said of it first."""
        claim = ResultSubmission(f"fill-{number}", pnl, "USDT", Decimal(0), Decimal(0), NOW)
        self.request(lambda desk, who: desk.performance.book(symbol, claim, "fill", who, rendered))
        ids = [trade.result.trade_id for trade in self.known.trades]
        assert len(ids) == len(set(ids))

    @rule()
    def replace_the_weak(self) -> None:
        self.request(lambda desk, who: desk.replacement.execute(who, render=rendered))

    @rule(
        rebalance=st.sampled_from(AutomationMode),
        replacement=st.sampled_from(AutomationMode),
        proposal_ttl_s=st.sampled_from([600, 86_400]),
    )
    def set_the_policy(
        self, rebalance: AutomationMode, replacement: AutomationMode, proposal_ttl_s: int
    ) -> None:
        wanted = {
            "automation": {
                "rebalance": rebalance.value,
                "replacement": replacement.value,
                "proposal_ttl_s": proposal_ttl_s,
            },
            "replacement": {"auto_execute_forced": replacement is not AutomationMode.PROPOSE},
        }
        self.request(lambda desk, who: desk.configuration.put(wanted, "policy", who, rendered))

    @rule(symbol=symbols, score=st.sampled_from([0.3, 0.61, 0.99]))
    def something_is_proposed(self, symbol: str, score: float) -> None:
        """The schedule finds that weights should move, and asks."""
        self.set_the_policy(AutomationMode.PROPOSE, AutomationMode.PROPOSE, 86_400)
        self.twins.lever(lambda desk: desk.later(hours=1))
        self.twins.lever(lambda desk: desk.score({symbol: score}))
        self.the_schedule_ticks(0, 1)

    @precondition(lambda self: self.known.proposals)
    @rule(ago=st.integers(0, 2), is_yes=st.booleans(), times=st.integers(1, 2))
    def decide_on_a_proposal(self, ago: int, is_yes: bool, times: int) -> None:
        """Of decisions on the same proposal at most one has an effect."""
        newest = sorted(self.known.proposals.values(), key=lambda one: one.opened_at)[::-1]
        one = newest[min(ago, len(newest) - 1)]
        proposal_id = one.proposal_id

        async def decide(desk: Desk, who: Command) -> Any:
            chosen = desk.proposals.approve if is_yes else desk.proposals.decline
            return await chosen(proposal_id, "decided", who, rendered)

        for _ in range(times):
            said = self.request(decide)
            if said.code is None:
                ended = ProposalState.APPROVED if is_yes else ProposalState.DECLINED
                assert one.state is ProposalState.OPEN
                assert self.desk.now < one.expires_at
                assert self.known.proposals[proposal_id].state is ended
            one = self.known.proposals[proposal_id]

    @rule(
        cut=st.sampled_from(Cut),
        commits=st.integers(1, 4),
        symbol=symbols,
        what=st.sampled_from(["add", "remove", "rebalance", "configure", "approve"]),
    )
    def a_connection_is_lost(self, cut: Cut, commits: int, symbol: str, what: str) -> None:
        """B02, B03: a request has its effect or not, and repeated with its key one at most."""
        open_ones = [
            one.proposal_id
            for one in self.known.proposals.values()
            if one.state is ProposalState.OPEN
        ]
        asked: dict[str, Call] = {
            "add": lambda desk, who: desk.portfolio.add(symbol, "in", who, rendered),
            "remove": lambda desk, who: desk.portfolio.remove(symbol, "out", who, rendered),
            "rebalance": lambda desk, who: desk.rebalancing.rebalance(who, render=rendered),
            "configure": lambda desk, who: desk.configuration.put(
                {"score_tilt": 0.4}, "tuned", who, rendered
            ),
            "approve": lambda desk, who: desk.proposals.approve(
                (open_ones or ["none"])[0], "yes", who, rendered
            ),
        }

        async def lossy(desk: Desk, who: Command) -> Any:
            self.twins.lose(cut, commits)
            try:
                return await asked[what](desk, who)
            finally:
                self.twins.lose(cut, 0)

        first = self.request(lossy)
        assert self.last is not None
        self.last = (asked[what], *self.last[1:])
        effects = len(self.known.events)
        self.repeat_the_last_request()
        if first.code is None:
            assert len(self.known.events) == effects

    @rule(wanted=changes, evict=st.booleans())
    def configure(self, wanted: Mapping[str, object], evict: bool) -> None:
        self.request(
            lambda desk, who: desk.configuration.put(
                wanted, "tuned", who, rendered, evict_lowest=evict
            )
        )

    @rule(symbol=symbols, off=st.sampled_from([-1, 1]))
    def act_on_another_version(self, symbol: str, off: int) -> None:
        wrong = self.known.portfolio.version + off
        said = self.request(
            lambda desk, who: desk.portfolio.remove(symbol, "out", who, rendered), if_match=wrong
        )
        assert said.code == Code.PRECONDITION_FAILED

    @precondition(lambda self: self.last is not None)
    @rule()
    def repeat_the_last_request(self) -> None:
        """I1: what had an effect is answered again, byte for byte, and has no second one."""
        assert self.last is not None
        call, command, first = self.last
        again = self.repeat(call, command)
        if first.code is None:
            assert again == Said(first.answer, True, None)
        else:
            self.last = (call, command, again)

    @precondition(lambda self: self.last is not None)
    @rule(symbol=symbols)
    def use_the_last_key_for_something_else(self, symbol: str) -> None:
        assert self.last is not None
        _, command, first = self.last
        if first.code is not None or command.idempotency_key is None:
            return
        other = Command(
            "operator", "other", idempotency_key=Key(command.idempotency_key.key, "another")
        )
        said = self.repeat(lambda desk, who: desk.portfolio.add(symbol, "x", who, rendered), other)
        assert said.code == Code.IDEMPOTENCY_KEY_REUSED

    @rule()
    def look(self) -> None:
        """I4: reading changes nothing."""

        async def read(desk: Desk) -> Any:
            await desk.portfolio.view()
            await desk.alerts.evaluate()
            await desk.analytics.summary()
            await desk.trading.tradeable()
            checked = await desk.integrity.check()
            return [one for one in checked.invariants if not one.ok and one.name != "bounds"]

        assert self.runner.run(self.twins.each(read)) == [[], []]
        weights = self.runner.run(self.desk.rebalancing.weights())
        funded = {
            line.member.symbol: line.target_u
            for line in weights.lines
            if line.role is WeightRole.FUNDED
        }
        monotone(self.desk, funded)
        assert self.now() == self.known

    @rule()
    def meddle(self) -> None:
        if self.known.events:
            self.runner.run(self.twins.refuse_meddling())

    # --- what the world does -------------------------------------------------------------------

    @rule(changed=scores, minutes=st.sampled_from([1, 5, 60, 1500]))
    def rescore(self, changed: dict[str, float | None], minutes: int) -> None:
        self.twins.lever(lambda desk: desk.later(minutes=minutes))
        self.twins.lever(lambda desk: desk.score(changed))

    @rule(minutes=st.sampled_from([-1, 10, 120]))
    def time_passes_without_scores(self, minutes: int) -> None:
        self.twins.lever(lambda desk: desk.later(minutes=minutes))

    @rule(names=some, fresh=st.booleans())
    def feeds_fail_or_heal(self, names: list[str], fresh: bool) -> None:
        def change(desk: Desk) -> None:
            for name in names:
                desk.quote(name, is_fresh=fresh)

        self.twins.lever(change)

    @rule(name=symbols, mark=st.sampled_from([None, "0.000001", "9.5", "10.0", "11", "100000"]))
    def a_price_moves(self, name: str, mark: str | None) -> None:
        price = None if mark is None else Decimal(mark)
        self.twins.lever(lambda desk: desk.quote(name, mark=price, bid=price, ask=price))

    @rule(
        name=symbols,
        status=st.sampled_from([ContractStatus.OPEN, ContractStatus.PAUSED, ContractStatus.CLOSED]),
    )
    def a_contract_changes(self, name: str, status: ContractStatus) -> None:
        self.twins.lever(lambda desk: desk.status(name, status))

    @rule(halted=st.booleans())
    def the_exchange_halts_or_opens(self, halted: bool) -> None:
        self.twins.lever(lambda desk: setattr(desk.market, "halted", halted))

    @rule()
    def all_heals(self) -> None:
        def heal(desk: Desk) -> None:
            desk.market.halted = False
            desk.later(minutes=1)  # longer than a lost run is waited for
            for name in FEW:
                desk.quote(name, is_fresh=True)
                desk.status(name, ContractStatus.OPEN)
            desk.score({})

        self.twins.lever(heal)

    @rule()
    def restart(self) -> None:
        self.runner.run(self.twins.restart())
        assert self.now() == self.known

    # --- what always holds ---------------------------------------------------------------------

    @invariant()
    def all_is_sound(self) -> None:
        sound(self.known)
        assert [desk.database.checked_out for desk in self.twins.desks] == [0, 0]


def test_every_life_keeps_the_invariants(
    tmp_path: Path, sqlite_template: Path, postgres_template: postgres.Server
) -> None:
    """P1-P7, H1-H5, R1-R2, I1-I4 on SQLite and PostgreSQL, whose histories must be equal."""

    class Here(Life):
        place = Place(tmp_path, sqlite_template, postgres_template, count(1))

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize="MYTESTS_STATEFUL_EXAMPLES" not in os.environ,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        ),
    )
