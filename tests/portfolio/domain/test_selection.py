"""The greedy choice and the reasons of those that were passed over."""

from dataclasses import replace

from app.configuration.domain.model import Configuration
from app.market.domain.sectors import UNCLASSIFIED
from app.portfolio.domain.candidate_selection import (
    CandidateRefusal,
    ScoredCandidate,
    select_candidates,
)

SETTINGS = Configuration()
RHO = {frozenset("AB"): 0.71, frozenset("AC"): 0.7, frozenset("AD"): -0.99}


def correlation(a: str, b: str) -> float | None:
    return None if "X" in (a, b) else RHO.get(frozenset((a, b)), 0.1)


def candidate(
    symbol: str, score: float | None = 0.9, sector: str = UNCLASSIFIED, **changed: bool
) -> ScoredCandidate:
    return ScoredCandidate(
        symbol, changed.get("is_tradeable", True), changed.get("is_fresh", True), score, sector
    )


def test_best_first_and_each_refusal_says_why() -> None:
    chosen = select_candidates(
        [
            candidate("P", is_tradeable=False),
            candidate("S", is_fresh=False),
            candidate("N", None),
            candidate("A"),
            candidate("B"),
            candidate("C"),
            candidate("X"),
            candidate("D", 0.6),
            candidate("E", 0.5999),
        ],
        correlation,
        10,
        SETTINGS,
    )
    assert chosen.chosen == ("A", "C", "D")
    assert [(one.symbol, one.reason, one.conflicting_symbol) for one in chosen.refused] == [
        ("P", CandidateRefusal.NOT_TRADEABLE, None),
        ("S", CandidateRefusal.STALE, None),
        ("N", CandidateRefusal.NO_SCORE, None),
        ("B", CandidateRefusal.CORRELATION_LIMIT, "A"),
        ("X", CandidateRefusal.CORRELATION_UNKNOWN, "A"),
        ("E", CandidateRefusal.LOW_SCORE, None),
    ]
    assert chosen.refused[3].correlation == 0.71


def test_a_sector_takes_no_more_than_its_limit_and_the_next_one_comes_in() -> None:
    few = replace(SETTINGS, replacement=replace(SETTINGS.replacement, max_per_sector=2))
    sectors = {"A": "meme", "C": "meme", "F": "meme", "G": "defi"}
    found = select_candidates(
        [candidate(name, sector=sectors.get(name, UNCLASSIFIED)) for name in "ACFGHIJ"],
        correlation,
        6,
        few,
    )
    assert found.chosen == ("A", "C", "G", "H", "I"), "unclassified symbols are a sector"
    assert [(one.symbol, one.reason) for one in found.refused] == [
        ("F", CandidateRefusal.SECTOR_LIMIT),
        ("J", CandidateRefusal.SECTOR_LIMIT),
    ]


def test_it_stops_when_there_are_enough() -> None:
    chosen = select_candidates(map(candidate, "ACEFG"), correlation, 2, SETTINGS)
    assert chosen.chosen == ("A", "C")
    assert chosen.refused == ()
