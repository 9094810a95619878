"""Evidence of scores comes back whole; the newest measurement wins."""

from dataclasses import replace
from datetime import date, timedelta

import pytest
from sqlalchemy.exc import StatementError

from app.foundation.errors import ServiceError
from app.foundation.sql.database import Database
from app.scoring.domain.factor_evidence import (
    EvidenceLabel,
    EvidenceMeasurement,
    EvidenceSource,
    FactorEvidence,
    ScoreLevel,
)
from app.scoring.storage.factor_evidence import FactorEvidenceRepository
from tests.support.stored_values import T0

MEASUREMENT = EvidenceMeasurement(
    source=EvidenceSource.BACKTEST,
    algorithm="cross_sectional",
    algorithm_version=2,
    horizon=7,
    first_day=date(2024, 1, 1),
    last_day=date(2025, 6, 30),
    measured_at=T0,
    as_of=T0 - timedelta(days=3, microseconds=7),
    data_source="binance.parquet um",
    data_hash="ab" * 32,
    trials=41,
    board_days=547,
    versions=(1, 2),
)
FACTOR = FactorEvidence(
    measurement=MEASUREMENT,
    level=ScoreLevel.FACTOR,
    name="momentum",
    days=539,
    ic=0.1 + 0.2,
    ic_error=0.0123456789012345,
    ic_t=-1.5,
    spread=1e-9,
    spread_t=0.0,
    turnover=0.25,
    coverage=1.0,
    decay=((0, 0.1), (28, -0.05)),
    label=EvidenceLabel.PROVEN,
    reason=None,
)
UNKNOWN = replace(
    FACTOR, name="beta", days=0, ic=None, ic_error=None, ic_t=None, spread=None, spread_t=None,
    turnover=None, coverage=None, decay=(), label=None, reason="no days",
)  # fmt: skip
FAMILIES = tuple(
    replace(FACTOR, level=ScoreLevel.FAMILY, name=name) for name in ("risk", "technical")
)
COMPOSITE = replace(FACTOR, level=ScoreLevel.COMPOSITE, name="composite")


async def save(database: Database, *found: FactorEvidence) -> None:
    async with database.write() as unit:
        await unit.get(FactorEvidenceRepository).save(found)


async def newest(
    database: Database,
    source: EvidenceSource = EvidenceSource.BACKTEST,
    horizon: int = 7,
    last_day: date | None = None,
) -> tuple[FactorEvidence, ...]:
    async with database.read() as unit:
        return await unit.get(FactorEvidenceRepository).newest(source, horizon, last_day)


async def test_every_figure_comes_back_in_the_order_of_the_levels(database: Database) -> None:
    assert await newest(database) == ()
    await save(database, FACTOR, *FAMILIES, UNKNOWN, COMPOSITE)
    technical, risk = FAMILIES[1], FAMILIES[0]
    assert await newest(database) == (COMPOSITE, technical, risk, UNKNOWN, FACTOR)


async def test_the_newest_measurement_of_a_source_and_horizon_wins(database: Database) -> None:
    later = replace(MEASUREMENT, measured_at=T0 + timedelta(days=1), last_day=date(2025, 7, 1))
    other = replace(FACTOR, measurement=later, ic=0.01)
    await save(database, other)
    await save(database, FACTOR, UNKNOWN)  # stored last, measured first
    assert await newest(database) == (other,)
    assert await newest(database, last_day=date(2025, 6, 30)) == (UNKNOWN, FACTOR)
    assert await newest(database, last_day=date(2025, 6, 29)) == ()
    assert await newest(database, horizon=8) == ()
    assert await newest(database, EvidenceSource.LIVE) == ()


async def test_a_repeated_measurement_replaces_the_former_one(database: Database) -> None:
    await save(database, FACTOR, COMPOSITE)
    again = replace(MEASUREMENT, measured_at=T0 + timedelta(hours=1), trials=42)
    changed = replace(FACTOR, measurement=again, label=EvidenceLabel.HARMFUL)
    await save(database, changed, replace(COMPOSITE, measurement=again))
    assert await newest(database) == (replace(COMPOSITE, measurement=again), changed)
    # Another version, source or period is another row.
    live = replace(MEASUREMENT, source=EvidenceSource.LIVE)
    await save(database, replace(FACTOR, measurement=live))
    assert changed in await newest(database)
    assert await newest(database, EvidenceSource.LIVE) == (replace(FACTOR, measurement=live),)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(FACTOR, ic=1.5),
        replace(FACTOR, ic=float("nan")),
        replace(FACTOR, ic_error=-0.1),
        replace(FACTOR, coverage=1.01),
        replace(FACTOR, measurement=replace(MEASUREMENT, first_day=date(2025, 7, 1))),
    ],
    ids=["ic", "nan", "error", "coverage", "period"],
)
async def test_a_wrong_figure_is_refused(database: Database, wrong: FactorEvidence) -> None:
    with pytest.raises((StatementError, ServiceError)):
        await save(database, wrong)
    assert await newest(database) == ()
