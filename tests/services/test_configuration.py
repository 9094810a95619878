"""Settings change as a whole, in order, with their history."""

import pytest

from app.domain.configuration_document import ConfigurationRefusedError, as_document
from app.domain.errors import Code, ConflictError, PreconditionFailedError
from app.services.once import Command
from tests.services.desk import SYMBOLS, WHO, Desk


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
    assert (await desk.reports.integrity()).ok


async def test_G04_fewer_than_there_are_is_refused(desk: Desk) -> None:
    await desk.filled()
    with pytest.raises(ConflictError) as caught:
        await desk.configuration.put({"max_portfolio_symbols": 9}, "shrink", WHO)
    assert caught.value.code is Code.PORTFOLIO_EXCEEDS_LIMIT
    assert (await desk.configuration.current()).version == 1


async def test_refused_settings_leave_everything_as_it_was(desk: Desk) -> None:
    await desk.filled(2)
    before = await desk.reports.history(None, 99)
    with pytest.raises(ConfigurationRefusedError):
        await desk.configuration.put({"max_portfolio_symbols": 15, "speed": 9}, "typo", WHO)
    assert (await desk.configuration.current()).version == 1
    assert await desk.reports.history(None, 99) == before


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
    events = await desk.configuration.history(None, 10)
    assert [event.payload["settings"]["score_tilt"] for event in events] == ["0.7"]
    assert (events[0].actor, events[0].configuration_version) == ("a", 2)
