"""Settings change as a whole, in order, with their history."""

from decimal import Decimal

import pytest

from app.configuration.domain.document import ConfigurationRefusedError, as_document
from app.configuration.domain.model import Configuration
from app.foundation.errors import (
    Code,
    ConflictError,
    PreconditionFailedError,
    RefusedError,
    UnavailableError,
)
from app.foundation.idempotency import Command
from app.market.domain.symbols import SymbolIndex
from app.portfolio.domain.controls import LockKind
from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.models import FULL
from tests.support.trading_desk import SYMBOLS, WHO, Desk


async def test_raising_the_size_lets_the_eleventh_in(desk: Desk) -> None:
    await desk.filled()
    with pytest.raises(ConflictError):
        await desk.portfolio.add(SYMBOLS[10], "one more", WHO)
    done = await desk.configuration.put({"max_portfolio_symbols": 15}, "grow", WHO)
    assert done.result is not None
    assert (done.result.version, done.result.max_portfolio_symbols) == (2, 15)
    added = await desk.portfolio.add(SYMBOLS[10], "one more", WHO)
    assert added.result is not None
    assert added.result.member.rank == 11
    portfolio = (await desk.portfolio.view()).portfolio
    assert portfolio.configuration_version == 2
    assert (await desk.integrity.check()).ok


async def test_G04_fewer_than_there_are_is_refused(desk: Desk) -> None:
    await desk.filled()
    with pytest.raises(ConflictError) as caught:
        await desk.configuration.put({"max_portfolio_symbols": 9}, "shrink", WHO)
    assert caught.value.code is Code.PORTFOLIO_EXCEEDS_LIMIT
    assert (await desk.configuration.current()).version == 1


async def test_G04_the_lowest_go_with_the_change_where_that_is_wished(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[2]: 0.65, SYMBOLS[5]: 0.61, SYMBOLS[7]: 0.64})
    await desk.controls.lock(SYMBOLS[5], LockKind.PIN, "we need it", None, WHO)
    before = (await desk.portfolio.view()).portfolio
    wanted = {"max_portfolio_symbols": 8}
    done = await desk.configuration.put(wanted, "shrink", WHO, evict_lowest=True)
    assert done.result is not None
    assert done.result.max_portfolio_symbols == 8
    portfolio = (await desk.portfolio.view()).portfolio
    assert portfolio.version == before.version + 1
    gone = {one.symbol for one in before.members} - {one.symbol for one in portfolio.members}
    assert gone == {SYMBOLS[2], SYMBOLS[7]}, "the pinned one stays, though it is the lowest"
    assert [one.rank for one in portfolio.members] == list(range(1, 9))
    assert sum(one.weight_u for one in portfolio.members) == FULL
    newest = await desk.queries.history(None, 4)
    assert [event.type for event in newest[::-1]] == [
        EventType.CONFIG,
        EventType.REMOVE,
        EventType.REMOVE,
        EventType.WEIGHTS,
    ]
    assert {event.payload["version"] for event in newest} == {portfolio.version}
    assert (await desk.integrity.check()).ok


async def test_G04_the_lowest_members_are_never_guessed(desk: Desk) -> None:
    await desk.filled(3)
    desk.score({SYMBOLS[0]: None, SYMBOLS[1]: None})
    wanted = {"max_portfolio_symbols": 1}
    with pytest.raises(ConflictError) as caught:
        await desk.configuration.put(wanted, "shrink", WHO, evict_lowest=True)
    assert caught.value.code is Code.PORTFOLIO_EXCEEDS_LIMIT
    assert "only 1 have a score" in caught.value.detail
    desk.later(hours=2)
    with pytest.raises(UnavailableError):
        await desk.configuration.put(wanted, "shrink", WHO, evict_lowest=True)
    assert (await desk.configuration.current()).version == 1
    assert len((await desk.portfolio.view()).portfolio.members) == 3


async def test_refused_settings_leave_everything_as_it_was(desk: Desk) -> None:
    await desk.filled(2)
    before = await desk.queries.history(None, 99)
    with pytest.raises(ConfigurationRefusedError):
        await desk.configuration.put({"max_portfolio_symbols": 15, "speed": 9}, "typo", WHO)
    assert (await desk.configuration.current()).version == 1
    assert await desk.queries.history(None, 99) == before


async def test_the_same_settings_make_no_new_version(desk: Desk) -> None:
    await desk.open()
    present = await desk.configuration.current()
    done = await desk.configuration.put(as_document(present), "nothing", WHO)
    assert done.result == present
    assert (await desk.portfolio.view()).portfolio.version == 0


async def test_if_match_is_the_version_of_the_settings(desk: Desk) -> None:
    await desk.open()
    await desk.configuration.put({"score_tilt": 0.7}, "tune", Command("a", "r", if_match=1))
    with pytest.raises(PreconditionFailedError):
        await desk.configuration.put({"score_tilt": 0.8}, "tune", Command("b", "r", if_match=1))
    versions = await desk.configuration.history(None, 10)
    assert [one.settings["score_tilt"] for one in versions] == [0.7, 0.5]
    assert (versions[0].created_by, versions[0].version) == ("a", 2)
    assert await desk.configuration.history(None, 1) == versions[:1], "with its changes"
    assert [one.key for one in versions[0].changes] == ["score_tilt"]


async def test_a_whole_document_lacks_nothing(desk: Desk) -> None:
    await desk.open()
    document = as_document(Configuration()) | {"score_tilt": 0.9}
    done = await desk.configuration.replace(document, "tune", WHO)
    assert done.result is not None
    assert (done.result.version, done.result.score_tilt) == (2, 0.9)
    del document["exit_score"], document["family_weights"]["risk"], document["sizing"]["var_limit"]
    with pytest.raises(ConfigurationRefusedError) as caught:
        await desk.configuration.replace(document, "tune", WHO)
    assert {(one.loc, one.type) for one in caught.value.complaints} == {
        ("exit_score", "missing"),
        ("family_weights.risk", "missing"),
        ("sizing.var_limit", "missing"),
    }
    assert (await desk.configuration.current()).version == 2


async def test_fixed_weights_are_named_in_any_spelling_and_never_of_a_symbol_that_is_not(
    desk: Desk,
) -> None:
    await desk.open()
    meant, other = (desk.market.resolve(symbol) for symbol in SYMBOLS[:2])
    contract = meant.contract.code

    async def put(weights: dict[str, object]) -> dict[str, object]:
        changes = {"rebalancing": {"fixed_weights": weights}}
        done = await desk.configuration.put(changes, "set", WHO)
        assert done.result is not None
        return dict(done.result.rebalancing.fixed_weights)

    assert await put({contract: 12, other.symbol.lower(): "8.5"}) == {
        meant.symbol: Decimal(12),
        other.symbol: Decimal("8.5"),
    }
    with pytest.raises(RefusedError) as unknown:
        await put({other.symbol: 5, "NOSUCHUSDT": 5})
    assert "fixed_weights, 'NOSUCHUSDT': No contract" in unknown.value.detail
    assert unknown.value.code is Code.SYMBOL_UNKNOWN
    with pytest.raises(RefusedError, match="twice"):
        await put({contract: 12, meant.symbol: 13})
    assert (await desk.configuration.current()).version == 2
    desk.market.names = SymbolIndex.from_contracts(())
    assert await put({other.symbol: 10}) == {other.symbol: Decimal(10)}, "it is set already"
