"""Eligibility funnel: rules with measured values and limits, and the symbols that fail them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from app.configuration.domain.model import EligibilitySettings
from app.foundation.decimal_math import is_above
from app.market.domain.models import Contract, ContractKind, ContractStatus
from app.market.domain.sectors import AssetClass

MEDIAN_DAYS: Final = 30
DAILY_BARS_RULE: Final = "daily_bars"  # a rule
TURNOVER_24H: Final = "turnover_24h"  # a rule
Measured = str | int | float | Decimal | bool | None  # None: unknown


@dataclass(frozen=True, slots=True)
class EligibilityCandidate:
    """Inputs of the eligibility rules for one symbol; None is unknown and never passes."""

    symbol: str
    contract: Contract
    asset_class: AssetClass
    turnover_24h: Decimal | None  # quote currency
    daily_bars: int  # closed bars
    median_turnover: Decimal | None  # of the last 30 closed days, quote currency
    ticker_age_s: float | None
    quarantine_reason: str | None = None  # the reason while its prices are in quarantine


@dataclass(frozen=True, slots=True)
class EligibilityLimits:
    """EligibilityLimits of one configuration version."""

    floors: EligibilitySettings
    ticker_age_s: float


@dataclass(frozen=True, slots=True)
class EligibilityRule:
    """Stage of the funnel; `needs_history` marks rules that listing and turnover cannot decide."""

    name: str
    title: str
    measure: Callable[[EligibilityCandidate], Measured]
    limit: Callable[[EligibilityLimits], Measured]
    passes: Callable[[EligibilityCandidate, EligibilityLimits], bool]
    needs_history: bool = False


@dataclass(frozen=True, slots=True)
class RuleCheck:
    """One rule applied to one symbol."""

    name: str
    title: str
    value: Measured
    limit: Measured
    passed: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """One rule applied to the universe: entered = failed + entered of the next stage."""

    name: str
    title: str
    limit: Measured
    entered: int
    failed: int


@dataclass(frozen=True, slots=True)
class Funnel:
    """Partition of the universe: each symbol is eligible or excluded by its first failing rule."""

    universe: int
    stages: tuple[Stage, ...]
    eligible: tuple[str, ...]
    excluded: Mapping[str, str]  # symbol -> rule


def _known_at_least(value: Decimal | None, floor: Decimal) -> bool:
    return value is not None and value >= floor


def _day(stamp_ms: int | None) -> str | None:
    return None if stamp_ms is None else f"{datetime.fromtimestamp(stamp_ms / 1000, UTC):%Y-%m-%d}"


RULES: Final[tuple[EligibilityRule, ...]] = (
    EligibilityRule(
        "perpetual",
        "It is a perpetual contract",
        lambda one: one.contract.kind.value,
        lambda _: ContractKind.PERPETUAL.value,
        lambda one, _: one.contract.kind is ContractKind.PERPETUAL,
    ),
    EligibilityRule(
        "settlement",
        "It is linear and settled in an accepted currency",
        lambda one: f"{'inverse' if one.contract.is_inverse else 'linear'} {one.contract.settle}",
        lambda limits: ", ".join(f"linear {quote}" for quote in limits.floors.quotes),
        lambda one, limits: (
            not one.contract.is_inverse
            and one.contract.settle == one.contract.quote
            and one.contract.quote in limits.floors.quotes
        ),
    ),
    EligibilityRule(
        "status",
        "The exchange lets it trade",
        lambda one: one.contract.status.value,
        lambda _: ContractStatus.OPEN.value,
        lambda one, _: one.contract.status is ContractStatus.OPEN,
    ),
    # Contracts listed before 2025 have neither stage nor type: both absent mean normal crypto.
    EligibilityRule(
        "market",
        "It is a crypto contract past its pre-market",
        lambda one: (
            f"{one.contract.market_stage or 'NORMAL'} {one.contract.market_type or 'CRYPTO'}"
        ),
        lambda _: "NORMAL CRYPTO",
        lambda one, _: (
            one.contract.market_stage in {None, "NORMAL"}
            and one.contract.market_type in {None, "CRYPTO"}
        ),
    ),
    EligibilityRule(
        "delisting",
        "No delisting is announced",
        lambda one: _day(one.contract.expires_ms),
        lambda _: None,
        lambda one, _: one.contract.expires_ms is None,
    ),
    EligibilityRule(
        "asset_class",
        "It is a coin, not a stablecoin, fiat, wrapped coin, index or commodity",
        lambda one: one.asset_class.value,
        lambda _: AssetClass.COIN.value,
        lambda one, _: one.asset_class is AssetClass.COIN,
    ),
    EligibilityRule(
        TURNOVER_24H,
        "It was traded enough in the last 24 hours",
        lambda one: one.turnover_24h,
        lambda limits: limits.floors.min_turnover,
        lambda one, limits: _known_at_least(one.turnover_24h, limits.floors.min_turnover),
    ),
    EligibilityRule(
        DAILY_BARS_RULE,
        "It has enough closed daily candles",
        lambda one: one.daily_bars,
        lambda limits: limits.floors.min_daily_bars,
        lambda one, limits: one.daily_bars >= limits.floors.min_daily_bars,
        needs_history=True,
    ),
    EligibilityRule(
        "median_turnover",
        f"It was traded enough on the median of its last {MEDIAN_DAYS} days",
        lambda one: one.median_turnover,
        lambda limits: limits.floors.min_turnover,
        lambda one, limits: _known_at_least(one.median_turnover, limits.floors.min_turnover),
        needs_history=True,
    ),
    EligibilityRule(
        "quarantine",
        "Its prices are not in quarantine",
        lambda one: one.quarantine_reason,
        lambda _: None,
        lambda one, _: one.quarantine_reason is None,
        needs_history=True,
    ),
    EligibilityRule(
        "ticker",
        "Its quote is fresh (age in seconds)",
        lambda one: one.ticker_age_s,
        lambda limits: limits.ticker_age_s,
        lambda one, limits: (
            one.ticker_age_s is not None and not is_above(one.ticker_age_s, limits.ticker_age_s)
        ),
        needs_history=True,
    ),
)


def check_rules(
    candidate: EligibilityCandidate,
    limits: EligibilityLimits,
    rules: Sequence[EligibilityRule] = RULES,
) -> tuple[RuleCheck, ...]:
    """Applies every rule to one symbol, in order."""
    return tuple(
        RuleCheck(
            rule.name,
            rule.title,
            rule.measure(candidate),
            rule.limit(limits),
            rule.passes(candidate, limits),
        )
        for rule in rules
    )


def first_failure(
    candidate: EligibilityCandidate,
    limits: EligibilityLimits,
    rules: Sequence[EligibilityRule] = RULES,
) -> str | None:
    """Returns the name of the first rule that the symbol fails; None when it is eligible."""
    return next((rule.name for rule in rules if not rule.passes(candidate, limits)), None)


def is_worth_history(candidate: EligibilityCandidate, limits: EligibilityLimits) -> bool:
    """True if listing and turnover pass, so that its candles are worth fetching."""
    listing = [rule for rule in RULES if not rule.needs_history]
    return first_failure(candidate, limits, listing) is None


def funnel(
    candidates: Iterable[EligibilityCandidate],
    limits: EligibilityLimits,
    rules: Sequence[EligibilityRule] = RULES,
) -> Funnel:
    """Applies all rules to the universe; the counts of the stages add up to it."""
    failures = {one.symbol: first_failure(one, limits, rules) for one in candidates}
    return build_funnel(failures, limits, rules)


def build_funnel(
    failures: Mapping[str, str | None],
    limits: EligibilityLimits,
    rules: Sequence[EligibilityRule] = RULES,
) -> Funnel:
    """Builds the funnel from the first failed rule of each symbol; None is eligible."""
    counts = Counter(failures.values())
    left = len(failures)
    stages: list[Stage] = []
    for rule in rules:
        failed = counts[rule.name]
        stages.append(Stage(rule.name, rule.title, rule.limit(limits), left, failed))
        left -= failed
    return Funnel(
        universe=len(failures),
        stages=tuple(stages),
        eligible=tuple(sorted(name for name, rule in failures.items() if rule is None)),
        excluded={name: rule for name, rule in sorted(failures.items()) if rule is not None},
    )
