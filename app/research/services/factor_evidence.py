"""Stores the evidence of a backtest as the evidence of an algorithm version."""

from collections.abc import Sequence
from datetime import datetime

from app.foundation.sql.database import UnitOfWork
from app.research.domain.factor_cards import FactorCard, create_evidence
from app.research.domain.history import CandleHistory
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.factor_evidence import (
    EvidenceMeasurement,
    EvidenceSource,
    FactorEvidence,
)
from app.scoring.services.algorithm_versions import (
    find_version,
    get_or_create_version,
    spec_to_json,
)
from app.scoring.storage.factor_evidence import FactorEvidenceRepository


async def require_version(unit: UnitOfWork, spec: AlgorithmSpec, in_force: AlgorithmSpec) -> None:
    """Raises ValueError unless `spec` is that of the settings in force or a stored version."""
    if spec_to_json(spec) != spec_to_json(in_force) and await find_version(unit, spec) is None:
        raise ValueError(
            "evidence belongs to a version of the algorithm, and no stored version has these"
            " weights and parameters: apply them first, or leave out --store"
        )


async def store_cards(
    unit: UnitOfWork,
    spec: AlgorithmSpec,
    cards: Sequence[FactorCard],
    history: CandleHistory,
    rows: range,
    measured_at: datetime,
) -> tuple[FactorEvidence, ...]:
    """Stores the cards of a backtest over `rows` of a history; returns what was stored.

    The algorithm is that of the service with all factors; the first use of a version stores it. A
    card without a level is a rule that the product does not have, and is left out.
    """
    version = await find_version(unit, spec)
    if version is None:
        version = (await get_or_create_version(unit, spec, measured_at)).version
    judged = [(one, one.level, one.whole) for one in cards]
    found = tuple(
        create_evidence(
            EvidenceMeasurement(
                source=EvidenceSource.BACKTEST,
                algorithm=spec.name,
                algorithm_version=version,
                horizon=whole.horizon,
                first_day=history.day_of(rows.start),
                last_day=history.day_of(rows.stop - 1),
                measured_at=measured_at,
                as_of=history.closed_at(rows.stop - 1),
                data_source=history.name,
                data_hash=history.data_hash,
                trials=card.trials,
                board_days=len(rows),
                versions=(version,),
            ),
            level,
            card.name,
            whole,
            card.label,
        )
        for card, level, whole in judged
        if level is not None and whole is not None
    )
    await unit.get(FactorEvidenceRepository).save(found)
    return found
