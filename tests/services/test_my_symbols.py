"""The short ways of the one face lead to the use cases behind it."""

from dataclasses import fields
from typing import Any

import pytest

from app.domain.configuration import WeightingMethod
from app.domain.controls import LockKind
from app.domain.errors import Code, ConflictError
from app.services.my_symbols import MySymbolsServiceV2
from tests.services.desk import SYMBOLS, WHO, Desk


def face(desk: Desk) -> MySymbolsServiceV2:
    """The services of the desk behind the face; what the desk has not, nobody calls here."""
    parts: dict[str, Any] = {
        one.name: getattr(desk, one.name, None) for one in fields(MySymbolsServiceV2)
    }
    return MySymbolsServiceV2(**parts)


async def test_the_controls_by_the_short_way(desk: Desk) -> None:
    await desk.filled(4)
    service = face(desk)
    await service.lock_symbol(SYMBOLS[20], LockKind.WATCH, "new", WHO)
    assert [one.lock.symbol for one in (await service.get_watch_list()).lines] == [SYMBOLS[20]]
    await service.lock_symbol(SYMBOLS[20], LockKind.BAN, "worse", WHO)
    with pytest.raises(ConflictError) as caught:
        await service.add_symbol_to_portfolio(SYMBOLS[20], "try", WHO)
    assert caught.value.code is Code.SYMBOL_BANNED
    await service.unlock_symbol(SYMBOLS[20], "fine", WHO)
    await service.switch_trading(False, "stop", WHO)
    tradeable, _ = await service.get_tradeable_symbols()
    assert tradeable == ()
    with pytest.raises(ConflictError) as caught:
        await service.add_symbol_to_portfolio(SYMBOLS[20], "try", WHO)
    assert caught.value.code is Code.TRADING_DISABLED
    await service.switch_trading(True, "go on", WHO)
    assert len((await service.get_tradeable_symbols())[0]) == 4


async def test_weights_by_another_method(desk: Desk) -> None:
    await desk.filled()
    found = await face(desk).optimize_portfolio_weights(WeightingMethod.EQUAL)
    assert {line.proposed_u for line in found.lines} == {10_000_000}
    before = (await face(desk).get_portfolio()).portfolio
    assert before.version == 1, "it writes nothing"
