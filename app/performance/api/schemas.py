"""Response models of trades, positions, equity, ledgers and active return."""

from typing import Any, Final, Literal, Self

from pydantic import Field

from app.foundation.http.schemas import (
    Correlation,
    IndexUnits,
    LedgerUnits,
    Money,
    MoneyString,
    Out,
    Percent,
    Price,
    Ratio,
    Share,
    ShareString,
    UtcTime,
    finite,
    percent,
)
from app.performance.domain.attribution import ActiveReturn, Attribution, AttributionLine
from app.performance.domain.backfilled_marks import BackfilledMark
from app.performance.domain.equity_curve import Day
from app.performance.services.service import PositionPerformance
from app.portfolio.api.schemas import BookedTotalOut
from app.portfolio.domain.returns import Figures, Trade
from app.portfolio.services.queries import CorrelationReport

CUSTOM_FIGURES: Final = (
    "Figures of installed packages (entry point `my_symbols.analytics`) as `NAME.FIGURE`; null"
    " where one is unknown."
)
LATE_MARKS: Final = (
    "Of changes in the period: prices that stand for marks which were not known then."
)


class TradeOut(Out):
    trade_id: str
    symbol: str
    contract: str
    currency: str
    pnl: Money = Field(description="Price P&L before fees and funding.")
    fees: Money = Field(description="Fees paid.")
    funding: Money = Field(description="Funding received; negative if paid.")
    net: MoneyString = Field(description="pnl + funding - fees.")
    occurred_at: UtcTime
    booked_at: UtcTime = Field(description="UTC time of the booking.")
    event_sequence: int = Field(description="Event of the history that booked it.")

    @classmethod
    def of(cls, trade: Trade) -> Self:
        one = trade.result
        return cls(
            trade_id=one.trade_id,
            symbol=one.symbol,
            contract=one.contract,
            currency=one.currency,
            pnl=one.pnl,
            fees=one.fees,
            funding=one.funding,
            net=one.net,
            occurred_at=one.occurred_at,
            booked_at=trade.booked_at,
            event_sequence=trade.event_seq,
        )


class PositionOut(Out):
    """Notional position of a member in units of the index, with its booked results."""

    symbol: str
    contract: str
    weight_percentage: Percent
    opened_at: UtcTime | None = Field(description="Time at which weights were last set.")
    entry_mark_price: Price | None = Field(description="Mark price at the entry.")
    mark_price: Price | None = Field(description="Mark price of the contract at KuCoin.")
    notional: IndexUnits | None = Field(description="At the entry mark, as a share of 1.")
    unrealized: IndexUnits | None = Field(description="Since the entry, units of the index.")
    pnl_since_inclusion: IndexUnits | None = Field(description="Units of the index.")
    performance_since_inclusion: Share | None
    max_drawdown_since_inclusion: Share | None
    volatility_since_inclusion: Share | None
    booked_since_inclusion: BookedTotalOut | None = Field(
        description="Booked results since the inclusion; null until one is booked."
    )
    realized_pnl: MoneyString | None = Field(
        description="Booked in the period, after fees and funding."
    )
    currency: str
    reason: str | None = Field(description="Reason for an unknown figure.")

    @classmethod
    def of(cls, held: PositionPerformance) -> Self:
        member, position, figures = held.member, held.position, held.figures
        return cls(
            symbol=member.symbol,
            contract=member.contract,
            weight_percentage=percent(member.weight_u),
            opened_at=None if position is None else position.opened_at,
            entry_mark_price=None if position is None else position.entry,
            mark_price=held.mark,
            notional=None if position is None else position.notional,
            unrealized=held.unrealized,
            pnl_since_inclusion=held.since_inclusion,
            performance_since_inclusion=finite(figures.performance),
            max_drawdown_since_inclusion=finite(figures.max_drawdown),
            volatility_since_inclusion=finite(figures.volatility),
            booked_since_inclusion=None if held.booked is None else BookedTotalOut.of(held.booked),
            realized_pnl=held.realized,
            currency=held.currency,
            reason=held.reason,
        )


class HypotheticalOut(Out):
    """Today's members at today's weights over the past, which the selection already knew.

    Nothing of this was earned. The figures of the positions held are in `performance_analysis` of
    the metrics, in the analytics and in `figures` of the report.
    """

    hypothetical_days: int = Field(description="Days on which all present members have a return.")
    hypothetical_growth: Share | None = Field(description="Growth of the equity over these days.")
    hypothetical_max_drawdown: Share | None = Field(
        description="Largest loss from a peak, positive."
    )
    hypothetical_sharpe: Ratio | None = Field(description="Sharpe ratio of these days, annualised.")
    hypothetical_sharpe_standard_error: Ratio | None = Field(
        description="Standard error of the Sharpe ratio."
    )
    hypothetical_sortino: Ratio | None = Field(
        description="Sortino ratio of these days, annualised."
    )
    hypothetical_calmar: Ratio | None = Field(description="Calmar ratio of these days.")
    hypothetical_gain_days: Share | None = Field(description="Share of these days with a gain.")
    hypothetical_profit_factor: Ratio | None = Field(
        description="Sum of the gains over the sum of the losses."
    )
    hypothetical_reason: str | None = Field(description="Reason for null ratios.")

    @classmethod
    def of(cls, made: Figures) -> Self:
        return cls(
            hypothetical_days=made.observations,
            hypothetical_growth=made.growth,
            hypothetical_max_drawdown=made.max_drawdown,
            hypothetical_sharpe=made.sharpe,
            hypothetical_sharpe_standard_error=made.sharpe_standard_error,
            hypothetical_sortino=made.sortino,
            hypothetical_calmar=made.calmar,
            hypothetical_gain_days=made.win_rate,
            hypothetical_profit_factor=made.profit_factor,
            hypothetical_reason=made.reason,
        )


class PairOut(Out):
    """Correlation of two members; null with the reason where there is none."""

    pair: str = Field(
        examples=["BTCUSDT-ETHUSDT"], description="The two symbols, joined by a hyphen."
    )
    correlation: Correlation | None = Field(description="On the basis of the settings.")
    raw_correlation: Correlation | None = Field(
        description="Of returns as they are, the market's part included."
    )
    reason: str | None = Field(
        description="`is_the_market`: the pair has no correlation on this basis;"
        " `not_enough_history`: it is not known."
    )


class PairsOut(Out):
    """Correlations of all pairs of members, beside the raw ones."""

    days: int = Field(description="Length of the window, in days.")
    basis: str
    average_correlation: Correlation | None
    average_raw_correlation: Correlation | None
    pairs: list[PairOut] = Field(description="Pairs of members by rank.")

    @classmethod
    def of(cls, made: CorrelationReport) -> Self:
        return cls(
            days=made.days,
            basis=made.basis,
            average_correlation=made.average,
            average_raw_correlation=made.raw_average,
            pairs=[PairOut.model_validate(one) for one in made.pairs],
        )


class PerformanceFiguresOut(Out):
    """Figures of the index by the weights of each day; 365 days a year.

    Growth and drawdown use every known point, the start and now included; the ratios are null
    below 30 observations. Null where a figure is not defined.
    """

    observations: int = Field(
        description="Daily returns behind the ratios; a partial day and a gap count as one each."
    )
    is_sufficient: bool = Field(description="Whether there are 30 observations or more.")
    ratios_reason: str | None = Field(description="Reason for null ratios.")
    growth: Share | None = Field(description="As a fraction.")
    max_drawdown: Share | None
    sharpe: Ratio | None
    sharpe_standard_error: Ratio | None = Field(description="Standard error of `sharpe`.")
    sortino: Ratio | None
    calmar: Ratio | None
    win_rate: Share | None = Field(description="Share of the observations with a gain.")
    profit_factor: Ratio | None


def figures_fields(made: Figures) -> dict[str, Any]:
    """Fields of `EarnedOut`."""
    names = [name for name in PerformanceFiguresOut.model_fields if name != "ratios_reason"]
    return {name: getattr(made, name) for name in names} | {"ratios_reason": made.reason}


class DayOut(Out):
    """Equity at the end of a day or now; null with the reason where a price is missing."""

    at: UtcTime = Field(description="UTC time of the point.")
    equity: IndexUnits | None = Field(description="Equity; null where a price is missing.")
    daily_pnl: IndexUnits | None = Field(description="Since the point before.")
    daily_return: Share | None = Field(description="Return since the point before.")
    reason: str | None = Field(description="Cause of a missing figure; null without one.")

    @classmethod
    def of(cls, day: Day) -> Self:
        return cls(
            at=day.at,
            equity=day.equity,
            daily_pnl=day.pnl,
            daily_return=finite(day.change),
            reason=day.reason,
        )


class LateMarkOut(Out):
    """Mark price that was missing at a change of the portfolio, with its substitute."""

    at: UtcTime = Field(description="Time of the change.")
    version: int = Field(description="Version that the change made.")
    symbol: str
    price: Price = Field(description="Price of the substitute.")
    source: Literal["hourly_bar"] = Field(
        description="Close of the stored hourly bar that contains the moment or ends at it."
    )
    bar_opened_at: UtcTime = Field(
        description="UTC time at which the candle of the substitute opens."
    )

    @classmethod
    def of(cls, mark: BackfilledMark) -> Self:
        return cls(
            at=mark.at,
            version=mark.version,
            symbol=mark.symbol,
            price=mark.price,
            source="hourly_bar",
            bar_opened_at=mark.opened_at,
        )


class LedgerLineOut(Out):
    name: str = Field(description="Symbol or sector.")
    sector: str
    weight_percentage: Percent | None
    price_pnl: LedgerUnits = Field(description="Price P&L in the unit of the ledger.")
    funding: LedgerUnits | None = Field(description="Null where the ledger does not include it.")
    fees: LedgerUnits | None = Field(
        description="Fees in the unit of the ledger; null where the ledger does not include them."
    )
    contribution: LedgerUnits = Field(description="price_pnl + funding - fees.")

    @classmethod
    def of(cls, line: AttributionLine) -> Self:
        return cls(
            name=line.name,
            sector=line.sector,
            weight_percentage=None if line.weight_u is None else percent(line.weight_u),
            price_pnl=line.price_pnl,
            funding=line.funding,
            fees=line.fees,
            contribution=line.contribution,
        )


class LedgerOut(Out):
    """Contributions of the symbols, and of the sectors, add up exactly to the change."""

    basis: str = Field(
        examples=["index", "booked"],
        description="`index`: the notional index; `booked`: booked results.",
    )
    unit: str = Field(
        examples=["index", "USDT"], description="Unit of the amounts: `index` or a currency."
    )
    start_at: UtcTime | None = Field(description="UTC time of the start; null without equity.")
    end_at: UtcTime | None = Field(description="UTC time of the end; null without equity.")
    start_equity: LedgerUnits | None = Field(
        description="Equity at the start in the unit of the ledger."
    )
    end_equity: LedgerUnits | None = Field(
        description="Equity at the end in the unit of the ledger."
    )
    change: LedgerUnits | None = Field(description="End minus start in the unit of the ledger.")
    symbols: list[LedgerLineOut] = Field(description="Contributions by symbol.")
    sectors: list[LedgerLineOut] = Field(description="Contributions by sector.")
    reason: str | None = Field(description="Reason for an unknown change, wholly or up to now.")

    @classmethod
    def of(cls, one: Attribution) -> Self:
        return cls(
            basis=one.basis.value,
            unit=one.unit,
            start_at=one.start_at,
            end_at=one.end_at,
            start_equity=one.start,
            end_equity=one.end,
            change=one.change,
            symbols=[LedgerLineOut.of(line) for line in one.symbols],
            sectors=[LedgerLineOut.of(line) for line in one.sectors],
            reason=one.reason,
        )


class SectorEffectsOut(Out):
    """Fractions of the return; the weights are means over the days."""

    sector: str = Field(description="`cash` is the part that is not invested.")
    weight: ShareString = Field(description="Mean weight in the portfolio.")
    universe_weight: ShareString = Field(description="Mean weight in the universe.")
    allocation: ShareString = Field(description="Effect of the weight of the sector.")
    selection: ShareString = Field(description="Effect of the choice within the sector.")
    interaction: ShareString = Field(description="Combined effect of both.")


class ActiveOut(Out):
    """Active return by sector; null with the reason where a day of the period is unknown."""

    start_at: UtcTime | None = Field(description="UTC time of the start; null without a period.")
    end_at: UtcTime | None = Field(description="UTC time of the end; null without a period.")
    days: int = Field(description="Whole days.")
    portfolio_return: ShareString | None = Field(description="Return of the portfolio.")
    universe_return: ShareString | None = Field(
        description="Return of the equally weighted universe."
    )
    active_return: ShareString | None = Field(description="Portfolio minus universe.")
    sectors: list[SectorEffectsOut] = Field(description="Effects by sector.")
    reason: str | None

    @classmethod
    def of(cls, made: ActiveReturn) -> Self:
        return cls(
            start_at=made.start_at,
            end_at=made.end_at,
            days=made.days,
            portfolio_return=made.portfolio,
            universe_return=made.universe,
            active_return=made.active,
            sectors=[SectorEffectsOut.model_validate(one) for one in made.sectors],
            reason=made.reason,
        )
