"""Runs a trial: one backtest with its evidence, from a request to a record for the log."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from app.configuration.domain.document import as_document
from app.configuration.domain.model import Configuration
from app.research.domain.luck import ReturnMoments
from app.research.domain.report import DisasterAudit
from app.research.domain.report_document import disaster_document, report_document
from app.research.domain.trials import Trial
from app.research.services.backtest import BacktestOptions, BoardSeries
from app.research.services.evidence import (
    DRAWS,
    HORIZON,
    Evidence,
    EvidenceOptions,
    Progress,
    audit_disaster,
    gather_evidence,
)
from app.research.services.historical_market import TradingCosts


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """Parameters of a trial but for history and configuration; days are inclusive."""

    first_day: date | None = None  # by default the first day with ten eligible listings
    last_day: date | None = None  # by default the last day of the history
    every: int = 7
    offset: int = 0
    all_offsets: bool = False
    draws: int = DRAWS
    seed: int = 1
    horizon: int = HORIZON
    costs: TradingCosts = field(default_factory=TradingCosts)
    disasters: tuple[tuple[str, date], ...] = ()  # listing and day of its fall

    def __post_init__(self) -> None:
        if not 0 <= self.offset < self.every:
            raise ValueError(f"the offset must lie from 0 to {self.every - 1}")

    def parameters(self) -> dict[str, Any]:
        """Returns rhythm, draws and costs as logged; a record has the days that were run."""
        return {
            "every": self.every,
            "offset": self.offset,
            "all_offsets": self.all_offsets,
            "draws": self.draws,
            "seed": self.seed,
            "horizon": self.horizon,
            "costs": asdict(self.costs),
        }


@dataclass(frozen=True, slots=True, eq=False)
class TrialRun:
    """Result of a trial: evidence, audits of disasters and the record for the log."""

    evidence: Evidence
    disasters: tuple[DisasterAudit, ...]
    trial: Trial


def run_trial(
    boards: BoardSeries,
    configuration: Configuration,
    request: TrialRequest,
    trial_id: str,
    clock: Callable[[], datetime],
    code_version: str,
    trial_sharpes: Sequence[float] = (),
    progress: Progress = lambda _: None,
) -> TrialRun:
    """Runs one trial of `configuration`, whose boards are `boards`.

    `trial_sharpes` are the daily Sharpe ratios of the former trials.
    Raises ValueError for days outside the history, an unknown listing or a missing market coin.
    """
    unknown = [name for name, _ in request.disasters if name not in boards.history.symbols]
    if unknown:
        raise ValueError(f"the history has no listing {unknown[0]}")
    rows = select_rows(boards, request.first_day, request.last_day, request.every, request.offset)
    wanted = EvidenceOptions(
        rows, request.all_offsets, request.draws, request.seed, request.horizon
    )
    evidence = gather_evidence(boards, wanted, trial_sharpes, progress)
    audits = tuple(audit_disaster(boards, evidence.run, *one) for one in request.disasters)
    return TrialRun(
        evidence,
        audits,
        _record(boards, configuration, request, evidence, audits, trial_id, clock(), code_version),
    )


def _record(
    boards: BoardSeries,
    configuration: Configuration,
    request: TrialRequest,
    evidence: Evidence,
    audits: Sequence[DisasterAudit],
    trial_id: str,
    ran_at: datetime,
    code_version: str,
) -> Trial:
    history, report = boards.history, evidence.report
    moments = ReturnMoments.of(evidence.run.returns)
    return Trial(
        id=trial_id,
        ran_at=ran_at,
        kind="backtest",
        history=history.name,
        data_hash=history.data_hash,
        code_version=code_version,
        parameters={
            "first_day": str(report.first_day),
            "last_day": str(report.last_day),
            **request.parameters(),
            "configuration": as_document(configuration),
        },
        sharpe=None if moments is None else moments.sharpe,
        result={
            **report_document(report),
            "disasters": [disaster_document(one) for one in audits],
        },
    )


def select_rows(
    boards: BoardSeries, first_day: date | None, last_day: date | None, every: int, offset: int
) -> BacktestOptions:
    """Returns the rows of the days; by default from the first day with ten eligible listings.

    Raises ValueError for an empty period or a history without such a day.
    """
    history = boards.history
    able = boards.first_row
    if able is None:
        raise ValueError("no day of this history has ten eligible listings")
    first = able if first_day is None else history.row_from(_midnight(first_day))
    end = None if last_day is None else _midnight(last_day) + timedelta(days=1)
    last = (history.rows if end is None else history.row_from(end)) - 1
    if first >= last:
        raise ValueError(
            "the period is empty: its first day must lie before its last one, within the history"
        )
    return BacktestOptions(max(first, able), last, every, offset)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC)
