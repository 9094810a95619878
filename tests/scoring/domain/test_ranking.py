"""The order of a board by its composite and by each family."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.configuration.domain.sections import Family
from app.foundation.data_status import DataSource
from app.scoring.domain.board import Board, Card, CardStatus
from app.scoring.domain.ranking import AlgorithmType, rank_cards

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def card(symbol: str, rank: int | None, risk: float | None, reason: str | None = None) -> Card:
    families = {Family.RISK: risk, Family.TECHNICAL: None}
    status = CardStatus.UNAVAILABLE if rank is None else CardStatus.SCORED
    return Card(symbol, status, reason, families, None, None, None, rank, None, ())


BOARD = Board(
    "run", "a", 1, 1, NOW, NOW, 1.0, DataSource.SANDBOX, "hash", 3, {},
    (
        card("CUSDT", 1, 0.2), card("BUSDT", 2, 0.9), card("AUSDT", 3, 0.9),
        card("DUSDT", None, 0.5, "insufficient_inputs"), card("XUSDT", None, None, "not_eligible"),
    ),
)  # fmt: skip


def order(algorithm: AlgorithmType, *, eligible_only: bool = False) -> list[tuple[int | None, str]]:
    lines = rank_cards(BOARD, algorithm, eligible_only=eligible_only)
    return [(line.rank, line.card.symbol) for line in lines]


def test_the_composite_keeps_the_board_as_it_is() -> None:
    assert order(AlgorithmType.COMPOSITE) == [(card.rank, card.symbol) for card in BOARD.cards]


def test_a_family_ranks_whoever_has_its_score_ties_by_symbol() -> None:
    assert order(AlgorithmType.RISK) == [
        (1, "AUSDT"), (2, "BUSDT"), (3, "DUSDT"), (4, "CUSDT"), (None, "XUSDT"),
    ]  # fmt: skip
    assert order(AlgorithmType.TECHNICAL) == [
        (None, symbol) for symbol in ("AUSDT", "BUSDT", "CUSDT", "DUSDT", "XUSDT")
    ]


@pytest.mark.parametrize("algorithm", AlgorithmType)
def test_only_eligible(algorithm: AlgorithmType) -> None:
    assert "XUSDT" not in {symbol for _, symbol in order(algorithm, eligible_only=True)}
    assert len(order(algorithm, eligible_only=True)) == 4


def test_a_card_without_families_has_no_such_score() -> None:
    bare = replace(BOARD, cards=(replace(BOARD.cards[0], families={}),))
    assert [line.rank for line in rank_cards(bare, AlgorithmType.RISK, eligible_only=False)] == [
        None
    ]
