"""Who is eligible now, and how many: beside the event loop wherever the answer can wait.

To judge every contract takes as long as a hundred answers from memory.
"""

import asyncio
from typing import Final

from app.market.domain.eligibility import worth_history
from app.market.domain.symbols import SymbolEntry
from app.market.services.snapshot import MarketMoment

# So much later may the number of eligible symbols be seen: it is for people and their screens.
COUNT_S: Final = 5.0
_COUNT: Final = "eligible"


def worth(moment: MarketMoment) -> tuple[SymbolEntry, ...]:
    """Symbols that listing and turnover let through, the most traded first."""
    found = (
        (candidate.turnover_24h or 0, entry)
        for entry in moment.known.index.entries
        for candidate in (moment.candidate(entry.contract, entry.symbol),)
        if worth_history(candidate, moment.limits)
    )
    ranked = sorted(found, key=lambda pair: (-pair[0], pair[1].symbol))
    return tuple(entry for _, entry in ranked)


def eligible(moment: MarketMoment) -> tuple[SymbolEntry, ...]:
    """Symbols that pass the whole funnel, the most traded first."""
    passed = set(moment.funnel().eligible)
    return tuple(entry for entry in worth(moment) if entry.symbol in passed)


def count(moment: MarketMoment) -> int:
    """How many pass the whole funnel; up to COUNT_S old."""

    def counted() -> tuple[int, float]:
        return len(moment.funnel().eligible), moment.mono + COUNT_S

    return moment.memory.get_until(_COUNT, _rests_on(moment), moment.mono, counted)


async def count_aside(moment: MarketMoment) -> None:
    """Has the number ready for `count`, in a thread where it has to be worked out."""
    if not moment.memory.has(_COUNT, _rests_on(moment), moment.mono):
        await asyncio.to_thread(count, moment)


def _rests_on(moment: MarketMoment) -> tuple[object, ...]:
    return (moment.known, moment.configuration)
