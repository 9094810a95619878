"""Report of a backtest: figures beside baselines, evidence of the scores, and one judgement."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from app.research.domain.baselines import PortfolioFigures
from app.research.domain.luck import PermutationTest
from app.research.domain.validation import ScoreEvidence

GOOD_IC: Final = 0.10
GOOD_T: Final = 3.0
GOOD_TURNOVER: Final = 15.0
SUSPICIOUS_IC: Final = 0.25
SUSPICIOUS_SHARPE: Final = 2.0
SUSPICIOUS_T: Final = 6.0
SUSPICIOUS_YEARS: Final = 2.0
TARGET_SHARPE: Final = 1.8
TARGET_DRAWDOWN: Final = 0.30  # smaller than that of BTC held, as a share of it
TARGET_WIN_RATE: Final = 0.10  # above that of BTC held
VAR_LIMITS: Final = (0.02, 0.10)  # of equity a day; the first one is the customer's
_CRASHES: Final = ((2022, 5), (2022, 11))  # LUNA and FTX
_CRASH: Final = -0.10  # of BTC within the month


@dataclass(frozen=True, slots=True)
class RandomBand:
    """Sharpe ratios of random portfolios: mean, 5 % and 95 % quantile."""

    draws: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class VarLimit:
    """Daily limit of the value at risk, and how many decisions exceeded it."""

    limit: float
    exceeded: int
    decisions: int  # with a known value at risk
    unknown: int


@dataclass(frozen=True, slots=True)
class Target:
    """Claim of the customer's documents beside its measured figure; None is unknown.

    `reached_by` names the baselines that reach it.
    """

    name: str
    target: float
    measured: float | None
    reached_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BacktestReport:
    """Everything that a run shows; None is unknown."""

    name: str
    first_day: date
    last_day: date
    listings: int
    died: int
    trials: int
    every: int
    product: PortfolioFigures  # of the first offset
    offsets: tuple[PortfolioFigures, ...]  # all offsets
    swaps: int
    market: PortfolioFigures
    baselines: tuple[PortfolioFigures, ...]
    random: RandomBand | None
    evidence: ScoreEvidence  # of the composite
    factors: Mapping[str, ScoreEvidence]
    low_volatility: ScoreEvidence
    deflated_sharpe: float | None
    funding_coverage: float | None  # share of position days with a known rate
    monthly: Mapping[tuple[int, int], float]  # return by year and month
    market_monthly: Mapping[tuple[int, int], float]
    var_limits: tuple[VarLimit, ...] = ()
    permutation: PermutationTest | None = None  # of the composite

    @property
    def sharpe(self) -> float | None:
        """Mean annual Sharpe ratio over all offsets; None if one of them is unknown."""
        known = [one.figures.sharpe for one in self.offsets if one.figures.sharpe is not None]
        return sum(known) / len(known) if len(known) == len(self.offsets) and known else None

    @property
    def years(self) -> float:
        return (self.last_day - self.first_day).days / 365.0

    def suspicions(self) -> tuple[str, ...]:
        """Returns signs of a leak; none of them proves one."""
        ic, t, sharpe = self.evidence.ic.mean, self.evidence.spread.t, self.sharpe
        missed = [
            f"no loss in {year}-{month:02d}"
            for year, month in _CRASHES
            if self.market_monthly.get((year, month), 0.0) < _CRASH
            and self.monthly.get((year, month), -1.0) >= 0.0
        ]
        checks = (
            (ic is not None and ic > SUSPICIOUS_IC, f"an IC above {SUSPICIOUS_IC}"),
            (t is not None and t > SUSPICIOUS_T, f"a spread with t above {SUSPICIOUS_T:g}"),
            (
                sharpe is not None
                and sharpe > SUSPICIOUS_SHARPE
                and self.years >= SUSPICIOUS_YEARS,
                f"a Sharpe ratio above {SUSPICIOUS_SHARPE:g} over {SUSPICIOUS_YEARS:g} years",
            ),
        )
        return (*(text for applies, text in checks if applies), *missed)

    def judgement(self) -> str:
        """Returns one plain sentence about the result."""
        sharpe, market, band = self.sharpe, self.market.figures.sharpe, self.random
        if sharpe is None or market is None or band is None:
            return "The period is too short for a judgement."
        ic, t = self.evidence.ic.mean or 0.0, self.evidence.ic.t or 0.0
        beats_random = sharpe > band.high
        is_good = beats_random and ic >= GOOD_IC and t >= GOOD_T
        if is_good and self.product.turnover <= GOOD_TURNOVER and sharpe > market:
            return "The selection beat BTC and 95 % of random portfolios after costs."
        if beats_random:
            beside = "but not BTC" if sharpe <= market else "and BTC"
            return f"The selection beat 95 % of random portfolios after costs, {beside}."
        if sharpe > band.mean:
            return (
                "The selection did better than the mean random portfolio, within their usual range."
            )
        return "The selection did no better than random portfolios with the same rules and costs."

    def targets(self) -> tuple[Target, ...]:
        """Returns the customer's targets beside the figures of the first offset.

        The documents name improvements without a reference: BTC held is taken for it.
        """
        market = self.market.figures

        def sharpe(one: PortfolioFigures) -> float | None:
            return one.figures.sharpe

        def drawdown(one: PortfolioFigures) -> float | None:
            own, reference = one.figures.max_drawdown, market.max_drawdown
            return None if own is None or not reference else 1.0 - own / reference

        def win_rate(one: PortfolioFigures) -> float | None:
            own, reference = one.figures.win_rate, market.win_rate
            return None if own is None or reference is None else own - reference

        claims: tuple[tuple[str, float, Callable[[PortfolioFigures], float | None]], ...] = (
            ("Sharpe ratio", TARGET_SHARPE, sharpe),
            ("drawdown below that of BTC", TARGET_DRAWDOWN, drawdown),
            ("win rate of days above that of BTC", TARGET_WIN_RATE, win_rate),
        )
        found = []
        for name, target, figure in claims:
            reached = [
                one.name
                for one in (self.market, *self.baselines)
                if (value := figure(one)) is not None and value >= target
            ]
            found.append(Target(name, target, figure(self.product), tuple(reached)))
        return tuple(found)

    def headline(self) -> tuple[str, ...]:
        """Returns the first lines: period, listings, trials, result and judgement."""
        suspicions = self.suspicions()
        alarm = (
            ("SUSPICIOUS: look for a leak before you believe this: " + ", ".join(suspicions) + ".",)
            if suspicions
            else ()
        )
        band = (
            "no random portfolios"
            if self.random is None
            else f"random portfolios {_number(self.random.mean)} "
            f"[{_number(self.random.low)}, {_number(self.random.high)}]"
        )
        return (
            *alarm,
            (
                f"{self.first_day} to {self.last_day}: {self.listings} listings, {self.died} died; "
                f"{self.trials} trials so far."
            ),
            (
                f"Sharpe {_number(self.sharpe)} (mean of {len(self.offsets)} offsets), "
                f"BTC {_number(self.market.figures.sharpe)}, {band}."
            ),
            self.judgement(),
        )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


@dataclass(frozen=True, slots=True)
class DisasterAudit:
    """Rank of a coin before its disaster, and the cost of having held it; None is unknown.

    `ranks` are by days before the event, each with the number of ranked listings.
    """

    listing: str
    day: date
    ranks: Mapping[int, tuple[int, int] | None]
    held_weight: float | None  # percent at the close before
    fall: float | None  # return from the close before to the lowest close of the next 7 days
    cost: float | None  # of equity
