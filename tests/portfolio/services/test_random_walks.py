"""Random sequences of changes on both databases: after each one the history folds to the state."""

from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.errors import ServiceError
from app.foundation.hash_chain import find_chain_faults
from app.foundation.sql.database import UnitOfWork
from app.market.domain.models import ContractStatus
from app.portfolio.domain.event_log import fold_events
from app.portfolio.domain.membership import PortfolioChange
from app.portfolio.domain.models import faults
from app.portfolio.services.change_recorder import BrokenInvariantError
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from tests.support.trading_desk import SYMBOLS, WHO, Desk


async def _step(desk: Desk, dice: Random) -> None:
    name, other = dice.choice(SYMBOLS[:16]), dice.choice(SYMBOLS[:16])
    calls = (
        lambda: desk.portfolio.initialize(dice.randint(1, 8), "start", WHO),
        lambda: desk.portfolio.add(name, "in", WHO),
        lambda: desk.portfolio.add(other, "in", WHO),
        lambda: desk.portfolio.remove(name, "out", WHO),
        lambda: desk.portfolio.replace(name, other, "swap", WHO),
        lambda: desk.rebalancing.rebalance(WHO),
        lambda: desk.configuration.put(
            {"max_weight_percentage": dice.randint(8, 40), "score_tilt": dice.random()}, "x", WHO
        ),
    )
    await dice.choice(calls)()


def _stir(desk: Desk, dice: Random) -> None:
    """Time passes, scores move, feeds hiccup, contracts pause."""
    desk.later(minutes=dice.choice([1, 5, 60 * 25]))
    if dice.random() < 0.9:
        desk.score({name: dice.random() for name in dice.sample(SYMBOLS, 12)})
    for name in dice.sample(SYMBOLS[:16], 2):
        desk.quote(name, is_fresh=dice.random() < 0.8)
        desk.status(name, dice.choice([ContractStatus.OPEN] * 4 + [ContractStatus.PAUSED]))


@pytest.mark.parametrize("seed", range(2))
async def test_H2_the_history_folds_to_the_state_after_every_change(desk: Desk, seed: int) -> None:
    dice = Random(seed)
    await desk.open()
    version, done = 0, 0
    for _ in range(40):
        _stir(desk, dice)
        with suppress(ServiceError):
            await _step(desk, dice)
            done += 1
        async with desk.database.read() as unit:
            state, events = (
                await unit.get(PortfolioRepository).load(),
                await unit.get(HistoryRepository).all(),
            )
            settings = await unit.get(ConfigurationRepository).current()
        assert fold_events(events) == state
        assert faults(state, settings.max_portfolio_symbols) == ()
        assert state.version in {version, version + 1}
        version = state.version
    assert find_chain_faults(events, None) == []
    assert done > 8


async def test_an_unsound_change_is_a_bug_and_is_not_committed(desk: Desk) -> None:
    await desk.filled(3)
    before = (await desk.portfolio.view()).portfolio
    context = desk.portfolio.contexts(await desk.configuration.current())
    first, *others = before.members
    broken = PortfolioChange(replace(before, members=(replace(first, rank=9), *others)), ())

    async def commit(unit: UnitOfWork) -> None:
        state = await unit.get(PortfolioRepository).load(for_update=True)
        await desk.portfolio.recorder.commit(unit, state, broken, context, WHO)

    with pytest.raises(BrokenInvariantError, match="ranks"):
        await desk.database.run(commit)
    assert (await desk.portfolio.view()).portfolio == before
