"""Judges the registered candidates for the default factor and family weights.

    python -m benchmarks.default_weights daily_panel.parquet

Candidates and rules are those of docs/decisions/0028. The live functions score each candidate at
every close of each period, and its rank IC is compared with that of the shipped weights on the same
days. A candidate and a period are one trial.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.configuration.domain.document import validate
from app.configuration.domain.model import Configuration
from app.market.domain.models import Floats
from app.market.domain.panel import forward_fill
from app.market.domain.segments import contiguous
from app.market.services.symbol_registry import shipped_sectors
from app.research.domain.baselines import low_volatility_key
from app.research.domain.history import CandleHistory
from app.research.domain.validation import LEAST_LAG, MeanEstimate, evaluate_scores, newey_west
from app.research.services.backtest import BoardSeries
from app.research.services.evidence import HORIZON
from app.research.services.historical_market import TradingCosts, daily_settings
from app.research.services.history_files import load_parquet, read_history
from app.scoring.domain.algorithm import build_algorithm
from app.scoring.domain.composite import composite_scores
from app.scoring.domain.factors import measure
from app.scoring.domain.score_stability import candle_inputs, daily_candle_part

PERIODS: Final = (
    ("2021-04 to 2022-12", "binance_spot", date(2021, 4, 1), date(2022, 12, 31)),
    ("2023", "binance_spot", date(2023, 1, 1), date(2023, 12, 29)),
    ("2024-04 to 2025-06", "binance_usdm_perp", date(2024, 4, 1), date(2025, 6, 30)),
)
SHIPPED: Final = "shipped weights"
_NO_TECHNICAL: Final = {
    "technical": 0.0, "fundamental": 0.24, "market_structure": 0.29, "risk": 0.47,
}  # fmt: skip
CANDIDATES: Final[Mapping[str, Mapping[str, Any]]] = {
    SHIPPED: {},
    "no technical family": {"family_weights": _NO_TECHNICAL},
    "volume_trend 0.2": {"scoring": {"factor_weights": {"volume_trend": 0.2}}},
    "efficiency 0.2": {"scoring": {"factor_weights": {"efficiency": 0.2}}},
    "drawdown 0": {"scoring": {"factor_weights": {"drawdown": 0.0}}},
    "nearness_to_high 0.2": {"scoring": {"factor_weights": {"nearness_to_high": 0.2}}},
    "highest_return 0.3": {"scoring": {"factor_weights": {"highest_return": 0.3}}},
    "btc_correlation 0.4": {"scoring": {"factor_weights": {"btc_correlation": 0.4}}},
    "fundamental 0.35, risk 0.25": {
        "family_weights": {
            "technical": 0.15, "fundamental": 0.35, "market_structure": 0.25, "risk": 0.25,
        },
    },
    "risk 0.55, fundamental 0.05": {
        "family_weights": {
            "technical": 0.15, "fundamental": 0.05, "market_structure": 0.25, "risk": 0.55,
        },
    },
}  # fmt: skip
LEAST_T: Final = 3.0
LEAST_PERIODS: Final = 2
_WEEK: Final = 7


@dataclass(frozen=True, slots=True, eq=False)
class PeriodResult:
    """ICs of one period by candidate and by factor, and their difference to the shipped weights."""

    name: str
    scores: Mapping[str, MeanEstimate]
    differences: Mapping[str, MeanEstimate]
    factors: Mapping[str, MeanEstimate]


def judge_period(path: Path, name: str, venue: str, first: date, last: date) -> PeriodResult:
    """Scores every candidate at each close of the period and evaluates it over seven days."""
    history = read_history(path, venue)
    boards = BoardSeries.of(history, Configuration(), shipped_sectors(), TradingCosts())
    start, end = (history.row_from(_midnight(day)) for day in (first, last + timedelta(days=1)))
    rows = range(max(start, boards.first_row or 0), min(end, history.rows))
    scores, raw = _score_candidates(boards, rows)
    window = slice(rows.start, rows.stop)
    universe = boards.eligible[window]

    def ics(values: Floats) -> Floats:
        opened, close = history.panel.open[window], history.panel.close[window]
        return evaluate_scores(values[window], opened, close, HORIZON, universe, decay=()).ic_series

    series = {one: ics(values) for one, values in scores.items()}
    raw["low volatility alone"] = np.where(boards.eligible, low_volatility_key(history), np.nan)
    raw["open_interest_change"] = -_open_interest_changes(path, venue, history)
    lag = max(HORIZON, LEAST_LAG)
    return PeriodResult(
        name,
        {one: newey_west(values, lag) for one, values in series.items()},
        {one: newey_west(values - series[SHIPPED], lag) for one, values in series.items()},
        {one: newey_west(ics(values), lag) for one, values in raw.items()},
    )


def _score_candidates(
    boards: BoardSeries, rows: range
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Returns (T, N) composite z by candidate, and oriented raw values by factor."""
    specs = {}
    for name, changes in CANDIDATES.items():
        spec = daily_candle_part(
            build_algorithm(daily_settings(validate(changes, Configuration())))
        )
        if spec is None:
            raise ValueError(f"{name}: no weighted factor reads daily candles")
        specs[name] = spec
    factors = {one.name: one for one in boards.spec.factors}
    shape = boards.eligible.shape
    scores = {name: np.full(shape, np.nan) for name in specs}
    raw = {name: np.full(shape, np.nan) for name in factors}
    for row in rows:
        names = np.flatnonzero(boards.eligible[row])
        past = candle_inputs(forward_fill(contiguous(boards.panel(row, names)))[0])
        measured = {name: measure(one, past) for name, one in factors.items()}
        for name, spec in specs.items():
            own = [measured[one.name] for one in spec.factors]
            values = np.array([one.values for one in own])
            applies = np.array([one.applies for one in own])
            scores[name][row, names] = composite_scores(values, spec, applies=applies).z
        for name, one in factors.items():
            raw[name][row, names] = one.orientation * measured[name].values
    return scores, raw


def _open_interest_changes(path: Path, venue: str, history: CandleHistory) -> Floats:
    """Returns (T, N) ln(open interest in coins / that of seven days before); NaN if unknown."""
    wanted = ("symbol", "venue", "ts", "close", "open_interest")
    table = load_parquet().read_table(path, columns=list(wanted)).to_pydict()
    coins = np.full(history.panel.close.shape, np.nan)
    places = {name: place for place, name in enumerate(history.symbols)}
    days = {int(opened): row for row, opened in enumerate(history.panel.opened_ms)}
    for symbol, where, opened, close, value in zip(*(table[one] for one in wanted), strict=True):
        if where == venue and value is not None and symbol in places and opened in days:
            coins[days[opened], places[symbol]] = value / close
    out = np.full(coins.shape, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        out[_WEEK:] = np.log(coins[_WEEK:] / coins[:-_WEEK])
    return np.where(np.isfinite(out), out, np.nan)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def passes(estimates: list[MeanEstimate]) -> bool:
    """Tells whether the t statistic reaches 3 in two periods; an unknown one does not."""
    return sum(one.t is not None and one.t >= LEAST_T for one in estimates) >= LEAST_PERIODS


def _cell(one: MeanEstimate) -> str:
    mean = "-" if one.mean is None else f"{one.mean:+.3f}"
    return f"{mean} ({'-' if one.t is None else f'{one.t:.1f}'})"


def _table(title: str, periods: list[Mapping[str, MeanEstimate]]) -> str:
    lines = [
        f"| {title} | " + " | ".join(name for name, *_ in PERIODS) + " | passes |",
        "|---" * (len(PERIODS) + 2) + "|",
    ]
    for name in periods[0]:
        row = [one[name] for one in periods]
        verdict = "yes" if passes(row) else "no"
        lines.append(f"| {name} | " + " | ".join(map(_cell, row)) + f" | {verdict} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Prints ICs of candidates and factors, and the differences that decide."""
    parser = argparse.ArgumentParser(prog="benchmarks.default_weights")
    parser.add_argument("file", type=Path)
    path = parser.parse_args(arguments).file
    results = []
    for name, venue, first, last in PERIODS:
        sys.stderr.write(f"{name}: scoring\n")
        results.append(judge_period(path, name, venue, first, last))
    tables = (
        _table("IC of the composite (t)", [one.scores for one in results]),
        _table("IC minus that of the shipped weights (t)", [one.differences for one in results]),
        _table("IC of the factor (t)", [one.factors for one in results]),
    )
    sys.stdout.write(f"{json.dumps(CANDIDATES)}\n\n" + "\n\n".join(tables) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
