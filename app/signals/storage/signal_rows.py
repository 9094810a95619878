"""Signals and votes as rows of their tables, and back."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row

from app.signals.domain.consensus import Evaluation, Recommendation, Verdict, Vote
from app.signals.domain.evaluated_signal import Judged
from app.signals.domain.models import Claim, Direction, Signal, SignalState

_FIGURES: Final = (
    "agent", "weight", "probability", "confidence", "reason", "is_veto", "is_dissent", "is_source",
)  # fmt: skip


def row_of(judged: Judged) -> dict[str, Any]:
    signal, claim, verdict = judged.signal, judged.signal.claim, judged.verdict
    row = {
        "signal_id": signal.signal_id,
        "source": claim.source,
        "source_id": claim.source_id,
        "type": claim.type,
        "symbol": claim.symbol,
        "direction": claim.direction.value,
        "strength": claim.strength,
        "confidence": claim.confidence,
        "data": None if claim.data is None else dict(claim.data),
        "said_at": claim.said_at,
        "claimed_end": claim.expires_at,
        "received_at": signal.received_at,
        "expires_at": signal.expires_at,
        "state": signal.state.value,
        "attempts": signal.attempts,
        "settled_at": signal.settled_at,
        "reason": signal.reason,
    }
    if verdict is None:
        return row
    evaluation = verdict.evaluation
    return row | {
        "evaluation": None if evaluation is None else evaluation.value,
        "score": verdict.score,
        "approvals": verdict.approvals,
        "voted": verdict.voted,
        "verdict_reason": verdict.reason,
        "by_skill": verdict.is_weighed_by_skill,
        "board_id": judged.board_id,
        "configuration_version": judged.configuration_version,
    }


def vote_row_of(signal_id: str, vote: Vote) -> dict[str, Any]:
    advice = vote.recommendation
    return {name: getattr(vote, name) for name in _FIGURES} | {
        "signal_id": signal_id,
        "recommendation": None if advice is None else advice.value,
        "figures": dict(vote.figures),
    }


def signal_of(row: Row[Any]) -> Signal:
    claim = Claim(
        source=row.source,
        type=row.type,
        strength=row.strength,
        confidence=row.confidence,
        symbol=row.symbol,
        direction=Direction(row.direction),
        data=row.data,
        source_id=row.source_id,
        said_at=row.said_at,
        expires_at=row.claimed_end,
    )
    return Signal(
        signal_id=row.signal_id,
        claim=claim,
        state=SignalState(row.state),
        received_at=row.received_at,
        expires_at=row.expires_at,
        attempts=row.attempts,
        settled_at=row.settled_at,
        reason=row.reason,
    )


def judged_of(row: Row[Any], votes: Sequence[Vote]) -> Judged:
    if row.verdict_reason is None:
        return Judged(signal_of(row))
    verdict = Verdict(
        evaluation=None if row.evaluation is None else Evaluation(row.evaluation),
        score=row.score,
        approvals=row.approvals,
        voted=row.voted,
        votes=tuple(votes),
        reason=row.verdict_reason,
        is_weighed_by_skill=row.by_skill,
    )
    return Judged(signal_of(row), verdict, row.board_id, row.configuration_version)


def vote_of(row: Row[Any]) -> Vote:
    advice = row.recommendation
    return Vote(
        **{name: getattr(row, name) for name in _FIGURES},
        recommendation=None if advice is None else Recommendation(advice),
        figures=row.figures,
    )
