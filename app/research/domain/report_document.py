"""JSON forms of reports, evidence and cards."""

from dataclasses import asdict
from typing import Any

from app.research.domain.baselines import PortfolioFigures
from app.research.domain.factor_cards import FactorCard
from app.research.domain.report import BacktestReport, DisasterAudit
from app.research.domain.validation import ScoreEvidence


def report_document(report: BacktestReport) -> dict[str, Any]:
    """JSON form of a report."""
    band = report.random
    return {
        "headline": list(report.headline()),
        "judgement": report.judgement(),
        "suspicions": list(report.suspicions()),
        "first_day": str(report.first_day),
        "last_day": str(report.last_day),
        "listings": report.listings,
        "died": report.died,
        "trials": report.trials,
        "sharpe": report.sharpe,
        "deflated_sharpe": report.deflated_sharpe,
        "swaps": report.swaps,
        "funding_coverage": report.funding_coverage,
        "product": _figures_document(report.product),
        "offsets": [_figures_document(one) for one in report.offsets],
        "market": _figures_document(report.market),
        "baselines": [_figures_document(one) for one in report.baselines],
        "targets": [
            {**asdict(one), "reached_by": list(one.reached_by)} for one in report.targets()
        ],
        "var_limits": [asdict(one) for one in report.var_limits],
        "random": None if band is None else asdict(band),
        "permutation": None if report.permutation is None else asdict(report.permutation),
        "composite": evidence_document(report.evidence),
        "low_volatility": evidence_document(report.low_volatility),
        "factors": {name: evidence_document(one) for name, one in report.factors.items()},
        "monthly": {f"{y}-{m:02d}": value for (y, m), value in sorted(report.monthly.items())},
    }


def _figures_document(one: PortfolioFigures) -> dict[str, Any]:
    figures = one.figures
    return {
        "name": one.name,
        "sharpe": figures.sharpe,
        "growth_a_year": one.growth_a_year,
        "growth": figures.growth,
        "max_drawdown": figures.max_drawdown,
        "win_rate": figures.win_rate,
        "turnover": one.turnover,
    }


def evidence_document(one: ScoreEvidence) -> dict[str, Any]:
    """JSON form of the evidence of a score."""
    return {
        "ic": one.ic.mean,
        "ic_t": one.ic.t,
        "days": one.ic.count,
        "icir": one.icir,
        "hit_rate": one.hit_rate,
        "spread": one.spread.mean,
        "spread_t": one.spread.t,
        "top_excess": one.top_excess.mean,
        "top_excess_t": one.top_excess.t,
        "monotonicity": one.monotonicity,
        "quantile_means": list(one.quantile_means),
        "decay": {str(start): value for start, value in one.decay},
        "autocorrelation": {str(lag): value for lag, value in one.autocorrelation},
        "turnover": one.turnover,
        "coverage": one.coverage,
    }


def card_document(card: FactorCard) -> dict[str, Any]:
    """JSON form of a card."""
    return {
        "name": card.name,
        "level": None if card.level is None else card.level.value,
        "label": card.label.value,
        "ic": card.mean_ic,
        "trials": card.trials,
        "periods": [evidence_document(one) for one in card.periods],
    }


def disaster_document(one: DisasterAudit) -> dict[str, Any]:
    """JSON form of the audit of a disaster."""
    ranks = {
        str(days): None if rank is None else {"rank": rank[0], "of": rank[1]}
        for days, rank in one.ranks.items()
    }
    return {
        "listing": one.listing,
        "day": str(one.day),
        "ranks": ranks,
        "held_weight": one.held_weight,
        "fall": one.fall,
        "cost": one.cost,
    }
