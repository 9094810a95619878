"""The greedy choice and the reasons of those that were passed over."""

from app.domain.configuration import Configuration
from app.domain.selection import Candidate, Refusal, choose

SETTINGS = Configuration()
RHO = {frozenset("AB"): 0.71, frozenset("AC"): 0.7, frozenset("AD"): -0.99}


def correlation(a: str, b: str) -> float | None:
    return None if "X" in (a, b) else RHO.get(frozenset((a, b)), 0.1)


def candidate(symbol: str, score: float | None = 0.9, **changed: bool) -> Candidate:
    return Candidate(symbol, changed.get("is_tradable", True), changed.get("is_fresh", True), score)


def test_best_first_and_each_refusal_says_why() -> None:
    chosen = choose(
        [
            candidate("P", is_tradable=False),
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
    assert [(one.symbol, one.reason, one.against) for one in chosen.refused] == [
        ("P", Refusal.NOT_TRADABLE, None),
        ("S", Refusal.STALE, None),
        ("N", Refusal.NO_SCORE, None),
        ("B", Refusal.CORRELATION_LIMIT, "A"),
        ("X", Refusal.CORRELATION_UNKNOWN, "A"),
        ("E", Refusal.LOW_SCORE, None),
    ]
    assert chosen.refused[3].correlation == 0.71


def test_it_stops_when_there_are_enough() -> None:
    chosen = choose(map(candidate, "ACEFG"), correlation, 2, SETTINGS)
    assert chosen.chosen == ("A", "C")
    assert chosen.refused == ()
