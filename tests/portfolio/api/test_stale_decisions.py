"""What is refused while the market data is too old, what is skipped, and what never is."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import httpx2
import pytest

from app.alerts.services.monitor import AlertScheduler
from app.foundation.data_status import DataStatus
from app.foundation.errors import Code
from app.foundation.sql.database import Database
from app.market.domain.models import ContractStatus
from app.my_symbols import MySymbolsServiceV2
from app.portfolio.api import control_routes as portfolio_controls
from app.portfolio.api import membership_routes as portfolio_changes
from app.portfolio.api import portfolio_routes as portfolio
from app.portfolio.api import proposal_routes as portfolio_proposals
from app.portfolio.api import rebalance_routes as portfolio_rebalance
from app.portfolio.domain.proposals import Proposal, ProposalKind, ProposalState
from app.portfolio.storage.proposals import ProposalRepository
from app.trading.api import routes as portfolio_trading
from app.workers.activities import activities
from app.workers.runs import create_runs
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk

MODULES = (
    portfolio,
    portfolio_changes,
    portfolio_controls,
    portfolio_proposals,
    portfolio_rebalance,
    portfolio_trading,
)
STALE = "market_data_stale"
BALANCE = {"account_balance": "100000"}


@pytest.fixture
async def desk(database: Database) -> Desk:
    return await Desk(database).open()


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve([one.router for one in MODULES], {"my_symbols": desk}) as opened:
        yield opened


async def get(client: httpx2.AsyncClient, path: str, **query: Any) -> Any:
    response = await client.get(f"{PREFIX}/portfolio{path}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def post(client: httpx2.AsyncClient, path: str, **body: Any) -> httpx2.Response:
    return await client.post(f"{PREFIX}/portfolio{path}", json=body)


async def put(client: httpx2.AsyncClient, path: str, **body: Any) -> httpx2.Response:
    return await client.put(f"{PREFIX}/portfolio{path}", json=body)


def age(desk: Desk) -> None:
    """The market as a whole is too old; single quotes still say that they are fresh."""
    desk.market.state = DataStatus.STALE


async def proposed(desk: Desk) -> tuple[str, str]:
    """A proposal to replace the last member, and one to rebalance, by their ids."""
    policy = {
        "max_portfolio_symbols": 11,
        "replacement": {"auto_execute_forced": False},
        "automation": {"rebalance": "propose"},
    }
    await desk.configuration.put(policy, "ask", WHO)
    desk.score({SYMBOLS[0]: 0.61})
    await desk.rebalancing.check(WHO)
    desk.status(SYMBOLS[9], ContractStatus.BEING_SETTLED)
    await desk.replacement.execute(WHO, unattended=True)
    found = {one.proposal.kind.value: one.proposal for one in await desk.proposals.page(None, 9)}
    return found["replacement"].proposal_id, found["rebalance"].proposal_id


async def test_on_stale_data_nothing_is_opened_and_every_refusal_is_counted(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    age(desk)
    problem(await post(client, "/initialize"), 503, STALE)
    desk.market.state = DataStatus.FRESH
    assert (await post(client, "/initialize")).status_code == 200
    swap, rebalance = await proposed(desk)
    before = await desk.portfolio.view()
    assert desk.refused == [Code.MARKET_DATA_STALE]
    age(desk)

    may = await get(client, f"/symbols/{SYMBOLS[0]}/should-trade")
    assert not may["trade"]
    assert may["reason"] == "the mode is FROZEN: The market data is too old to decide on."
    sized = await get(client, f"/symbols/{SYMBOLS[0]}/position-size", **BALANCE)
    assert (sized["lots"], sized["reason"]) == (0, may["reason"])
    assert (await get(client, "/tradeable"))["symbols"] == []

    changes: tuple[tuple[str, dict[str, str]], ...] = (
        ("/add-symbol", {"symbol": SYMBOLS[12]}),
        ("/replace-symbol", {"old_symbol": SYMBOLS[1], "new_symbol": SYMBOLS[12]}),
        ("/rebalance", {}),
        (f"/proposals/{swap}/approve", {}),
        (f"/proposals/{rebalance}/approve", {}),
    )
    for path, body in changes:
        refused = problem(await post(client, path, **body), 503, STALE)
        assert refused["retry_after_s"] == 30, path
    assert desk.refused == [Code.MARKET_DATA_STALE] * (1 + 2 + len(changes))
    assert (await desk.portfolio.view()).portfolio == before.portfolio
    shown = (await get(client, "/proposals"))["items"]
    assert {one["proposal_id"] for one in shown if one["state"] == "open"} == {swap, rebalance}

    desk.market.state = DataStatus.FRESH
    assert (await get(client, f"/symbols/{SYMBOLS[1]}/should-trade"))["trade"]
    assert (await post(client, f"/proposals/{swap}/approve")).status_code == 200


def signalled(move: str, symbol: str, old: str | None, version: int) -> Proposal:
    """Proposal of the membership change that a signal asked for."""
    return Proposal(
        proposal_id=f"signal-{move}",
        kind=ProposalKind.SIGNAL,
        subject=symbol,
        state=ProposalState.OPEN,
        version=version,
        reason="a signal",
        action={"signal_id": "none", "move": move, "symbol": symbol, "old_symbol": old},
        opened_at=NOW,
        expires_at=NOW + timedelta(days=1),
    )


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("obstacle", "status", "code"),
    [
        ("market", 503, STALE),
        ("board", 503, STALE),
        ("newcomer", 503, STALE),
        ("clock", 503, "clock_unsafe"),
        ("closed", 422, "symbol_not_tradable"),
    ],
)
async def test_an_approval_is_refused_like_the_change_that_it_carries_out(
    desk: Desk, client: httpx2.AsyncClient, obstacle: str, status: int, code: str
) -> None:
    """Each kind of proposal and its change are answered alike, and the proposal stays open."""
    await desk.portfolio.initialize(9, "start", WHO)
    new, other, old = SYMBOLS[12], SYMBOLS[13], SYMBOLS[3]
    await desk.configuration.put({"automation": {"rebalance": "propose"}}, "ask", WHO)
    desk.score({SYMBOLS[0]: 0.61})
    await desk.rebalancing.check(WHO)
    version = (await desk.portfolio.view()).portfolio.version
    swap = replace(
        signalled("swap", old, old, version),
        kind=ProposalKind.REPLACEMENT,
        action={"old_symbol": old, "new_symbol": new},
    )
    async with desk.database.write() as unit:
        for one in (
            swap,
            signalled("add", new, None, version),
            signalled("replace", other, old, version),
        ):
            await unit.get(ProposalRepository).open(one)
    opened = [one.proposal for one in await desk.proposals.page(None, 9)]
    (rebalance,) = (one.proposal_id for one in opened if one.kind is ProposalKind.REBALANCE)
    if obstacle == "market":
        age(desk)
    elif obstacle == "board":
        desk.boards.whole = False
    elif obstacle == "newcomer":
        desk.stale(new, other)
    elif obstacle == "clock":
        desk.market.clock_safe = False
    else:
        for symbol in (new, other):
            desk.status(symbol, ContractStatus.PAUSED)

    changes: dict[str, tuple[str, dict[str, str]]] = {
        "signal-swap": ("/replace-symbol", {"old_symbol": old, "new_symbol": new}),
        "signal-add": ("/add-symbol", {"symbol": new}),
        "signal-replace": ("/replace-symbol", {"old_symbol": old, "new_symbol": other}),
        rebalance: ("/rebalance", {}),
    }
    if obstacle in {"newcomer", "closed"}:  # no obstacle to the weights of the members
        del changes[rebalance]
    for proposal_id, (path, body) in changes.items():
        direct = await post(client, path, **body)
        approved = await post(client, f"/proposals/{proposal_id}/approve")
        said = [problem(one, status, code) for one in (direct, approved)]
        told = [(one["detail"], one.get("retry_after_s")) for one in said]
        assert told[0] == told[1], proposal_id
    assert [one.proposal for one in await desk.proposals.page(None, 9)] == opened
    assert (await desk.portfolio.view()).portfolio.version == version


async def test_a_dry_run_on_stale_data_says_that_it_would_be_refused(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.portfolio.initialize(10, "start", WHO)
    fresh = await post(client, "/rebalance", dry_run=True)
    assert fresh.json()["would_be_refused"] is None
    age(desk)
    stale = await post(client, "/rebalance", dry_run=True)
    assert stale.status_code == 200, stale.text
    assert stale.json()["would_be_refused"] == {
        "code": STALE,
        "detail": "The market data is too old to decide on.",
    }
    assert stale.json()["data_status"] == "stale"
    assert (await get(client, "/rebalances"))["items"] == []
    assert desk.refused == []
    desk.market.state = DataStatus.FRESH
    await put(client, "/trading-switch", enabled=False, reason="away")
    off = await post(client, "/rebalance", dry_run=True)
    assert off.json()["would_be_refused"]["code"] == "trading_disabled"


async def test_on_stale_data_one_may_leave_ban_lock_halt_and_decline(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.portfolio.initialize(10, "start", WHO)
    swap, _ = await proposed(desk)
    age(desk)
    declined = await post(client, f"/proposals/{swap}/decline")
    assert (declined.status_code, declined.json()["state"]) == (200, "declined")
    removed = await post(client, "/remove-symbol", symbol=SYMBOLS[3])
    assert removed.status_code == 200, removed.text
    for kind in ("ban", "pin", "watch"):
        locked = await put(client, f"/locks/{SYMBOLS[20]}", kind=kind, reason="said so")
        assert locked.status_code == 200, locked.text
    halted = await put(client, "/trading-switch", enabled=False, reason="said so")
    assert (halted.status_code, halted.json()["enabled"]) == (200, False)
    assert SYMBOLS[3] not in await desk.members()
    assert desk.refused == []


class Journal:
    """Keeps nothing: every step is done."""

    run_id = "job"

    async def step(self, name: str, action: Any) -> Any:
        del name
        return await action()

    def share(self, done: int, total: int) -> None:
        """Nobody watches."""


async def test_automatic_actions_on_stale_data_are_recorded_as_skipped(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.portfolio.initialize(10, "start", WHO)
    desk.status(SYMBOLS[9], ContractStatus.BEING_SETTLED)
    age(desk)
    service = cast("MySymbolsServiceV2", Scheduled(desk))
    work = activities(service, cast("AlertScheduler", service), lambda: "request")
    skipped = {"skipped": STALE, "detail": "The market data is too old to decide on."}
    jobs = {one.kind: one for one in create_runs(service, work, lambda _: {})}
    payload = {"scheduled_at": NOW.isoformat()}
    for name in ("rebalance_check", "replacement_check"):
        assert await jobs[name].work(Journal(), payload) == skipped, name
    assert await work.forced_replacement() == skipped
    (run,) = (await get(client, "/rebalances"))["items"]
    assert (run["state"], run["error"]["code"]) == ("aborted_stale", STALE)
    assert desk.refused == [Code.MARKET_DATA_STALE] * 3
    assert SYMBOLS[9] in await desk.members()
    desk.market.state = DataStatus.FRESH
    assert await work.forced_replacement() == {}
    assert SYMBOLS[9] not in await desk.members()


class Scheduled:
    """The desk as the schedule knows the service; nothing else of it is called here."""

    def __init__(self, desk: Desk) -> None:
        self.rebalancing, self.replacement = desk.rebalancing, desk.replacement

    def __getattr__(self, name: str) -> "Scheduled":
        return self

    async def publish(self, *_: object) -> None:
        """Discards job events."""

    def clock(self) -> datetime:
        return NOW
