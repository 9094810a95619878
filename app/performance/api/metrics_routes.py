"""Routes of portfolio metrics and analytics; undefined figures are null."""

from statistics import fmean
from typing import Self

from pydantic import Field

from app.foundation.http.dependencies import EXPENSIVE, Provided
from app.foundation.http.permissions import requires
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    Correlation,
    Freshness,
    Out,
    Percent,
    Ratio,
    Raw,
    Score,
    Share,
    UtcTime,
    finite,
    percent,
)
from app.foundation.principals import Role
from app.performance.api.schemas import (
    CUSTOM_FIGURES,
    HypotheticalOut,
    PerformanceFiguresOut,
    figures_fields,
)
from app.performance.services.analytics import (
    Analytics,
    MetricsService,
    PerformanceAnalytics,
    PortfolioMetrics,
)
from app.portfolio.api.schemas import freshness
from app.portfolio.domain.risk import Risk

router = api_router("portfolio", "/portfolio")


class ScoreMetrics(Out):
    average: Score | None = Field(description="Mean composite score of the members.")
    lowest: Score | None = Field(description="Lowest composite score of a member.")
    highest: Score | None = Field(description="Highest composite score of a member.")
    standard_deviation: Ratio | None = Field(
        description="Standard deviation of the composite scores."
    )


class SectorAnalysis(Out):
    weights: dict[str, Percent] = Field(description="Per cent of equity by sector.")
    hhi: Ratio | None = Field(description="Sum of the squared shares of the invested weight.")
    diversification: Ratio | None = Field(description="1 - hhi.")


class PerformanceAnalysis(PerformanceFiguresOut):
    """Performance of the members since inclusion and of the positions held, as in the report."""

    average_performance: Share | None = Field(description="Of the members since inclusion.")
    share_of_gainers: Share | None = Field(
        description="Share of members above their inclusion price."
    )


class BacktestOut(Out):
    """Kupiec's test of the VaR: each past day against the VaR of the days before it."""

    window: int = Field(description="Days that each VaR is estimated from.")
    days: int = Field(description="Tested days.")
    exceptions: int = Field(description="Days with a loss beyond the VaR.")
    expected: Ratio = Field(description="Expected exceptions of a correct VaR.")
    likelihood_ratio: Ratio | None = Field(
        description="Likelihood ratio of Kupiec's test, chi-squared with one degree of freedom."
    )
    p_value: Share | None = Field(description="Probability of such a ratio under a correct VaR.")
    is_rejected: bool | None = Field(description="Whether `p_value` is below 0.05.")


class TailOut(Out):
    level: Share = Field(examples=[0.95], description="Confidence level, a fraction.")
    var: Share | None = Field(description="One-day loss, positive.")
    cvar: Share | None = Field(description="Mean loss beyond it.")
    backtest: BacktestOut | None = Field(description="Null where no day could be tested.")


class RiskAnalysis(Out):
    """Risk at today's weights over the days on which all members have a return."""

    common_days: int = Field(description="Number of days on which all members have a return.")
    volatility: Share | None = Field(description="Annualised, 365 days.")
    method: str = Field(examples=["filtered_historical"])
    tails: list[TailOut] = Field(description="Value at risk by confidence level.")
    beta_to_btc: Ratio | None = Field(
        description="Beta of the portfolio's daily returns to those of BTC."
    )
    risk_contributions: dict[str, Share] = Field(description="Shares of the variance, sum 1.")
    proxied_days: dict[str, int] = Field(
        description="Days before a young member's first that the tails put together from the "
        "market's returns, by symbol."
    )
    reason: str | None = Field(description="Reason for unknown figures.")

    @classmethod
    def of(cls, risk: Risk) -> Self:
        return cls(
            common_days=risk.observations,
            volatility=finite(risk.volatility),
            method="filtered_historical",
            tails=[TailOut.model_validate(tail) for tail in risk.tails],
            beta_to_btc=finite(risk.beta),
            risk_contributions=dict(risk.contributions),
            proxied_days=dict(risk.proxied),
            reason=risk.reason,
        )


class CorrelationAnalysis(Out):
    days: int = Field(description="Length of the window, in days.")
    basis: str
    average_correlation: Correlation | None
    max_correlation: Correlation | None
    average_raw_correlation: Correlation | None
    max_raw_correlation: Correlation | None
    warnings: list[str]
    pairs_without_history: int = Field(description="Number of pairs with too few common returns.")
    pairs_not_applicable: int = Field(
        description="Number of pairs that have no correlation on this basis."
    )


class MetricsOut(Freshness):
    score_metrics: ScoreMetrics = Field(description="Distribution of the members' scores.")
    sector_analysis: SectorAnalysis = Field(description="Weights by sector.")
    performance_analysis: PerformanceAnalysis = Field(
        description="Performance of the positions held."
    )
    hypothetical: HypotheticalOut = Field(description="Today's weights over the past.")
    risk_analysis: RiskAnalysis = Field(description="Risk at today's weights.")
    correlation_analysis: CorrelationAnalysis = Field(description="Correlations of the members.")

    @classmethod
    def of(cls, made: PortfolioMetrics) -> Self:
        scores, known = made.scores, made.correlation
        return cls(
            score_metrics=ScoreMetrics(
                average=fmean(scores) if scores else None,
                lowest=min(scores, default=None),
                highest=max(scores, default=None),
                standard_deviation=made.score_spread,
            ),
            sector_analysis=SectorAnalysis(
                weights={name: percent(one) for name, one in made.sectors.weights_u.items()},
                hhi=made.sectors.hhi,
                diversification=made.sectors.diversification,
            ),
            performance_analysis=PerformanceAnalysis(
                average_performance=fmean(made.moves) if made.moves else None,
                share_of_gainers=made.share_of_gainers,
                **figures_fields(made.figures),
            ),
            hypothetical=HypotheticalOut.of(made.risk.hypothetical),
            risk_analysis=RiskAnalysis.of(made.risk),
            correlation_analysis=CorrelationAnalysis(
                days=known.days,
                basis=known.basis,
                average_correlation=known.average,
                max_correlation=known.highest,
                average_raw_correlation=known.raw_average,
                max_raw_correlation=known.raw_highest,
                warnings=list(known.warnings),
                pairs_without_history=len(known.unknown),
                pairs_not_applicable=len(known.not_applicable),
            ),
            **freshness(made.facts),
        )


class Performer(Out):
    symbol: str
    performance: Share = Field(description="Return since inclusion.")


class Scorer(Out):
    symbol: str
    score: Score = Field(description="Composite score.")


class AnalyticsOut(Freshness):
    """Figures of the positions held, by the weights of each day, as in the report.

    `growth` and `max_drawdown` are of every known point of the equity, the start and now included.
    The ratios (`sharpe` to `profit_factor`) are null below 30 observations; a part of a day and a
    gap are one observation each. Null where a figure is not defined.
    """

    portfolio_size: int = Field(description="Number of members.")
    average_score: Score | None = Field(
        description="Mean composite score of the members; null for none."
    )
    total_score: Ratio | None = Field(
        description="Sum of the composite scores of the members; null for none."
    )
    average_performance: Share | None = Field(
        description="Mean return of the members since their inclusion."
    )
    growth: Share | None = Field(description="Of the equity since it began, as a fraction.")
    max_drawdown: Share | None
    average_volatility: Share | None = Field(
        description="Mean annualised volatility of the members."
    )
    replacement_candidates: list[str] = Field(
        description="Symbols of the weakest members, weakest first."
    )
    top_performers: list[Performer] = Field(
        description="The three members with the largest return since inclusion."
    )
    lowest_scorers: list[Scorer] = Field(
        description="The three members with the lowest composite score."
    )
    sharpe: Ratio | None
    sharpe_standard_error: Ratio | None = Field(description="Standard error of `sharpe`.")
    sortino: Ratio | None
    calmar: Ratio | None
    win_rate: Share | None = Field(description="Share of the observations with a gain.")
    profit_factor: Ratio | None
    observations: int = Field(description="Daily returns behind the ratios.")
    is_sufficient: bool = Field(description="Whether there are 30 observations or more.")
    ratios_reason: str | None = Field(description="Reason for null ratios.")
    custom_figures: dict[str, Raw | None] = Field(description=CUSTOM_FIGURES)
    last_updated: UtcTime | None = Field(
        description="UTC time of the newest change of the portfolio; null before the first."
    )

    @classmethod
    def of(cls, shown: Analytics) -> Self:
        figures = shown.figures
        return cls(
            portfolio_size=shown.portfolio_size,
            average_score=shown.average_score,
            total_score=shown.total_score,
            average_performance=shown.average_performance,
            growth=figures.growth,
            max_drawdown=figures.max_drawdown,
            average_volatility=shown.average_volatility,
            replacement_candidates=list(shown.replacement_candidates),
            top_performers=[
                Performer(symbol=name, performance=move) for name, move in shown.top_performers
            ],
            lowest_scorers=[Scorer(symbol=name, score=one) for name, one in shown.lowest_scorers],
            sharpe=figures.sharpe,
            sharpe_standard_error=figures.sharpe_standard_error,
            sortino=figures.sortino,
            calmar=figures.calmar,
            win_rate=figures.win_rate,
            profit_factor=figures.profit_factor,
            observations=figures.observations,
            is_sufficient=figures.is_sufficient,
            ratios_reason=figures.reason,
            custom_figures=dict(shown.custom),
            last_updated=shown.updated_at,
            **freshness(shown.facts),
        )


@router.get(
    "/metrics", summary="Scores, sectors, performance, risk and correlation", dependencies=EXPENSIVE
)
@requires(Role.VIEWER)
async def get_portfolio_metrics(metrics: Provided[MetricsService]) -> MetricsOut:
    """Scores, sectors, performance, risk and correlation of the portfolio.

    Value at risk: filtered historical simulation, one day, today's weights. `hypothetical` applies
    today's members and weights to the past: nothing of it was earned.
    """
    return MetricsOut.of(await metrics.metrics())


@router.get("/analytics", summary="Performance and risk", dependencies=EXPENSIVE)
@requires(Role.VIEWER)
async def get_portfolio_analytics(summaries: Provided[PerformanceAnalytics]) -> AnalyticsOut:
    """Best and worst members and risk-adjusted figures; undefined ones are null."""
    return AnalyticsOut.of(await summaries.summary())
