"""Cards as rows of scores and back; who did not pass the funnel has no row."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Row

from app.foundation.sql.ready_json import ReadyJson, ready_json
from app.scoring.domain.board import Board, Card, CardStatus, Confidence, FactorReading, Family


def absent_card(symbol: str, reason: str | None, detail: str | None) -> Card:
    """The card of a symbol that did not pass the funnel."""
    return Card(
        symbol=symbol,
        status=CardStatus.UNAVAILABLE,
        reason=reason,
        families=dict.fromkeys(Family),
        composite=None,
        z=None,
        confidence=None,
        rank=None,
        volatility=None,
        factors=(),
        detail=detail,
    )


def excluded_card(card: Card) -> Card:
    """`card` itself if its reason and detail say everything, else another one."""
    return absent_card(card.symbol, card.reason, card.detail)


def card_row(board: Board, card: Card) -> dict[str, Any]:
    confidence = card.confidence
    return {
        "run_id": board.run_id,
        "symbol": card.symbol,
        "calculated_at": board.calculated_at,
        "status": card.status.value,
        "reason": card.reason,
        "rank": card.rank,
        "composite": card.composite,
        **{family.value: card.families.get(family) for family in Family},
        "z": card.z,
        "confidence": None if confidence is None else confidence.level,
        "volatility": card.volatility,
        "supporting": _supporting(card),
    }


def _supporting(card: Card) -> ReadyJson:
    factors = [_values(reading) for reading in card.factors]
    parts = [] if card.confidence is None else _values(card.confidence)
    body = {
        "detail": card.detail,
        "confidence": parts or None,
        "families": [family.value for family in card.families],
        "factors": factors,
        "noise": card.noise,
    }
    nulls = (card.detail is None) + (not parts) + (card.noise is None)
    return ready_json(body, (*factors, parts), nulls)


def _values(value: Confidence | FactorReading) -> list[Any]:
    """Fields in their order: names would be written a million times a day.

    What an extension says is the last one and left out where there is nothing.
    """
    values = [getattr(value, name) for name in type(value).__slots__]
    return values[:-1] if isinstance(value, FactorReading) and values[-1] is None else values


def card_of(row: Row[Any]) -> Card:
    supporting = row.supporting
    parts = supporting["confidence"]
    return Card(
        symbol=row.symbol,
        status=CardStatus(row.status),
        reason=row.reason,
        families=_families(row, supporting["families"]),
        composite=row.composite,
        z=row.z,
        confidence=None if parts is None else Confidence(*parts),
        rank=row.rank,
        volatility=row.volatility,
        factors=_readings(supporting["factors"]),
        detail=supporting["detail"],
        noise=supporting.get("noise"),  # none in rows of before it was kept
    )


def _families(row: Row[Any], names: Iterable[str]) -> dict[Family, float | None]:
    return {Family(name): getattr(row, name) for name in names}


def _readings(rows: Sequence[Sequence[Any]]) -> tuple[FactorReading, ...]:
    return tuple(FactorReading(name, Family(family), *rest) for name, family, *rest in rows)
