"""Scores every eligible symbol against all others and explains each score by its parts.

`composite` computes z. The engine shrinks z towards neutral by confidence, maps it to 0..1 by Phi,
ranks it and fills the cards. Confidence = completeness x freshness x sample x reliability:

- completeness: share of the applicable weight that has a value;
- freshness: mean of 2^(-age/half-life) over the sources of the factors with a value, by factor
  weight; a candle ages from one bar after its close, when the next one is due;
- sample: n/(n+30) of the daily bars, 1 from 250 on;
- reliability: stability of the scores of the last month, computed from stored candles.

Bars before a break of the history are ignored.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import numpy as np
from scipy.special import ndtr

from app.configuration.domain.sections import Family, Source
from app.foundation.decimal_math import all_to_millionths, to_millionths
from app.market.domain.models import Floats, Interval
from app.market.domain.panel import (
    Bools,
    Panel,
    ScoringInputs,
    coverage_since_start,
    forward_fill,
    source_coverage,
    without_future,
)
from app.market.domain.return_statistics import ewma_volatility
from app.market.domain.segments import ContiguousPanel, contiguous, log_returns
from app.scoring.domain.board import BoardDraft, Card, CardStatus, Confidence, FactorReading
from app.scoring.domain.composite import (
    MIN_COVERAGE,
    AlgorithmSpec,
    CompositeResult,
    composite_scores,
)
from app.scoring.domain.factors import Compute, Factor, Measurement, measure
from app.scoring.domain.historical_moments import HistoricMoments
from app.scoring.domain.input_hash import input_hash
from app.scoring.domain.market_factors import book_levels, settlements, with_end_snapshots

_CANDLES: Final[Mapping[Source, str]] = {
    Source.DAILY_CANDLES: "daily",
    Source.HOURLY_CANDLES: "hourly",
}


@dataclass(slots=True)
class FeatureCache:
    """Cache of factors whose sources are candles alone. One scoring runs at a time.

    The key is the identity of the panels. A changed bar or symbol makes a new panel, and all
    columns are recomputed: 10 ms for a universe do not justify bookkeeping by column. `computed`
    and `reused` count values of all runs, one per symbol and factor.
    """

    computed: int = field(default=0, init=False)
    reused: int = field(default=0, init=False)
    _known: dict[str, tuple[Factor, tuple[Panel, ...], Floats]] = field(
        default_factory=dict, init=False
    )

    def fork(self) -> "FeatureCache":
        """Returns a cache with the same values, for a scoring beside the running one."""
        other = FeatureCache()
        other._known = dict(self._known)
        return other

    def measure(self, factor: Factor, inputs: ScoringInputs) -> Floats:
        """(N,) raw values of one factor; the array is shared and must not be modified."""
        if not factor.sources or not set(factor.sources) <= _CANDLES.keys():
            self.computed += len(inputs.symbols)
            return factor.measure(inputs)
        panels = tuple(getattr(inputs, _CANDLES[source]) for source in factor.sources)
        known = self._known.get(factor.name)
        if (
            known is not None
            and known[0].measure is factor.measure
            and len(known[1]) == len(panels)
            and all(one is other for one, other in zip(known[1], panels, strict=True))
        ):
            self.reused += len(inputs.symbols)
            return known[2]
        values = factor.measure(inputs)
        self.computed += len(inputs.symbols)
        self._known[factor.name] = factor, panels, values
        return values


@lru_cache(maxsize=2)  # by identity: a panel serves every run until a bar closes
def prepare_panel(panel: Panel) -> ContiguousPanel:
    """Returns the bars after the last break of each symbol, with short gaps filled."""
    return forward_fill(contiguous(panel))[0]


NOT_ELIGIBLE: Final = "not_eligible"
NO_MARKET_DATA: Final = "no_market_data"
INSUFFICIENT_INPUTS: Final = "insufficient_inputs"
EXPOSURE_UNKNOWN: Final = "exposure_unknown"
UNIVERSE_TOO_SMALL: Final = "universe_too_small"
INSUFFICIENT_HISTORY: Final = "insufficient_history"
_MIN_HISTORY: Final = 0.80  # share of the daily bars since the first one
_FULL_SAMPLE: Final = 250  # daily bars
_BAR_LENGTH_S: Final = {  # a closed candle stays the newest one for so long; age counts from then
    Source.DAILY_CANDLES: Interval.DAY.ms / 1000,
    Source.HOURLY_CANDLES: Interval.HOUR.ms / 1000,
}
_PRIOR_SAMPLE: Final = 30


@dataclass(frozen=True, slots=True, eq=False)
class _Confidences:
    """(N,) each; freshness is NaN for a symbol without any factor."""

    completeness: Floats
    freshness: Floats
    sample: Floats
    reliability: Floats  # NaN where unknown: then left out of the product

    @property
    def level(self) -> Floats:
        known = np.where(np.isfinite(self.reliability), self.reliability, 1.0)
        return self.completeness * self.freshness * self.sample * known

    def at(self, column: int) -> Confidence:
        parts = (self.completeness, self.freshness, self.sample)
        completeness, freshness, sample = (float(part[column]) for part in parts)
        return Confidence(completeness, freshness, sample, _known(self.reliability[column]))


def score(
    inputs: ScoringInputs,
    spec: AlgorithmSpec,
    reliability: Floats | None = None,
    earlier: Mapping[str, HistoricMoments] = MappingProxyType({}),
    noise: Floats | None = None,
    compute: Compute | None = None,
    *,
    with_readings: bool = True,
) -> BoardDraft:
    """Scores all eligible symbols against each other, using no data after `inputs.as_of_ms`.

    `reliability` and `noise` (N,) come from `score_stability`; None leaves them unknown. `earlier`
    are moments of former boards of the same algorithm: values too few to rank are standardized by
    them, and are unavailable without them. `compute` replaces the measure of a factor, as that
    of a `FeatureCache` does.
    Without `with_readings` the cards of scored symbols have no factor readings, the explanation
    that a board of the past does not need.

    Scored cards come by rank (ties by symbol), then unavailable ones by symbol. Composite and
    families are 0..1; the contributions of a scored card and its parts of the neutralisation add up
    to its z.
    """
    inputs = with_end_snapshots(without_future(inputs))
    coverage = {
        Source.DAILY_CANDLES: coverage_since_start(inputs.daily),
        Source.HOURLY_CANDLES: coverage_since_start(inputs.hourly),
    }
    daily, hourly = prepare_panel(inputs.daily), prepare_panel(inputs.hourly)
    whole = replace(inputs, daily=daily, hourly=hourly)
    measured = tuple(measure(factor, whole, coverage, compute) for factor in spec.factors)
    raw, spec = np.array([one.values for one in measured]), replace(spec, moments=earlier)
    result = composite_scores(raw, spec, applies=np.array([one.applies for one in measured]))
    used = {
        name: earlier[name] for name in sorted(result.unranked_names(raw, spec) & earlier.keys())
    }
    trust = _confidences(
        inputs,
        spec.factors,
        result,
        np.full(len(inputs.symbols), np.nan) if reliability is None else reliability,
    )
    has_gaps = all_to_millionths(coverage[Source.DAILY_CANDLES]) < to_millionths(_MIN_HISTORY)
    z = np.where(has_gaps, np.nan, trust.level * result.z)
    exact = all_to_millionths(z)
    scored = sorted(
        np.flatnonzero(np.isfinite(z)).tolist(),
        key=lambda column: (-exact[column], inputs.symbols[column]),
    )
    readings = _readings(
        whole,
        measured,
        result,
        result.contributions(trust.level),
        np.ones(len(z), np.bool_) if with_readings else ~np.isfinite(z),
    )
    taken_out = result.neutralisation(trust.level)
    families = ndtr(result.family_z)
    volatility = ewma_volatility(log_returns(daily))
    rank = {column: place for place, column in enumerate(scored, start=1)}
    cards = [
        _card(
            inputs.symbols[column],
            readings[column],
            _by_family(families[:, column]),
            float(z[column]),
            trust.at(column),
            rank.get(column),
            _known(volatility[column]),
            has_gaps=bool(has_gaps[column]),
            noise=None if noise is None else _known(noise[column]),
            neutralisation={
                name: float(parts[column]) for name, parts in taken_out.items() if column in rank
            },
            unexposed=_unexposed_reason(column, measured, result),
        )
        for column in range(len(inputs.symbols))
    ]
    absent = [card for card in cards if card.rank is None] + [
        _excluded_card(symbol, rule) for symbol, rule in inputs.excluded.items()
    ]
    return BoardDraft(
        as_of=datetime.fromtimestamp(inputs.as_of_ms / 1000, UTC),
        input_hash=input_hash(inputs, used, book_levels(whole), settlements(whole)),
        universe_size=len(scored),
        coverage=MappingProxyType(
            {one.factor.name: float(np.mean(np.isfinite(one.values))) for one in measured}
            if inputs.symbols
            else {one.factor.name: 0.0 for one in measured}
        ),
        cards=(
            *(cards[column] for column in scored),
            *sorted(absent, key=lambda card: card.symbol),
        ),
        moments=MappingProxyType(used),
        day_moments=MappingProxyType(result.day_moments(raw, spec)),
        source_coverage=MappingProxyType(
            {source.value: share for source, share in source_coverage(inputs).items()}
        ),
    )


def _confidences(
    inputs: ScoringInputs, factors: Sequence[Factor], result: CompositeResult, reliability: Floats
) -> _Confidences:
    decay = {
        source: np.exp2(
            -np.maximum(ages - _BAR_LENGTH_S.get(source, 0.0), 0.0) / inputs.half_lives_s[source]
        )
        for source, ages in inputs.ages_s.items()
    }
    fresh = np.array(
        [np.mean([decay[source] for source in one.sources], axis=0) for one in factors]
    )
    weight = np.where(np.isfinite(result.factor_z), result.factor_weight[:, None], 0.0)
    total = weight.sum(axis=0)
    bars = np.isfinite(contiguous(inputs.daily).close).sum(axis=0)
    full = _FULL_SAMPLE / (_FULL_SAMPLE + _PRIOR_SAMPLE)
    mean = np.where(weight > 0.0, weight * fresh, 0.0).sum(axis=0)
    return _Confidences(
        completeness=result.completeness,
        freshness=np.minimum(mean / np.where(total > 0.0, total, np.nan), 1.0),
        sample=np.minimum(bars / (bars + _PRIOR_SAMPLE) / full, 1.0),
        reliability=reliability,
    )


def _readings(
    inputs: ScoringInputs,
    measured: Sequence[Measurement],
    result: CompositeResult,
    contributions: Floats,
    wanted: Bools,
) -> list[tuple[FactorReading, ...]]:
    """One tuple per symbol, in the order of the factor table; empty where not `wanted` (N,)."""
    columns = []
    places = np.flatnonzero(wanted).tolist()
    for index, one in enumerate(measured):
        factor, weight = one.factor, float(result.factor_weight[index])
        figures = (one.values, result.factor_z[index], contributions[index])
        no_support = [None] * len(inputs.symbols)
        supporting = no_support if factor.support is None else factor.support(inputs)
        known = [_all_known(values[wanted]) for values in figures]
        columns.append(
            [
                FactorReading(
                    factor.name,
                    factor.family,
                    raw,
                    factor.unit,
                    z,
                    weight,
                    share,
                    reason or (UNIVERSE_TOO_SMALL if z is None else None),
                    support,
                )
                for raw, z, share, place in zip(*known, places, strict=True)
                for reason, support in ((one.reasons[place], supporting[place]),)
            ]
        )
    readings: list[tuple[FactorReading, ...]] = [()] * len(inputs.symbols)
    for place, own in zip(places, zip(*columns, strict=True), strict=True):
        readings[place] = own
    return readings


def _card(
    symbol: str,
    readings: tuple[FactorReading, ...],
    families: MappingProxyType[Family, float | None],
    z: float,
    confidence: Confidence,
    rank: int | None,
    volatility: float | None,
    *,
    has_gaps: bool,
    noise: float | None,
    neutralisation: Mapping[str, float],
    unexposed: tuple[str, str] | None,
) -> Card:
    reason, detail = (
        (None, None) if rank is not None else unexposed or _unavailable_reason(readings)
    )
    if has_gaps:
        reason = INSUFFICIENT_HISTORY
    return Card(
        symbol=symbol,
        status=CardStatus.UNAVAILABLE if rank is None else CardStatus.SCORED,
        reason=reason,
        families=families,
        composite=None if rank is None else float(ndtr(z)),
        z=None if rank is None else z,
        confidence=None if rank is None else confidence,
        rank=rank,
        volatility=volatility,
        factors=readings,
        detail=detail,
        noise=None if rank is None else noise,
        neutralisation=neutralisation,
    )


def _unexposed_reason(
    column: int, measured: Sequence[Measurement], result: CompositeResult
) -> tuple[str, str] | None:
    """Reason and detail where only the neutralisation lacks something; None elsewhere."""
    if not math.isfinite(result.plain_z[column]) or math.isfinite(result.z[column]):
        return None
    reasons = {one.factor.name: one.reasons[column] for one in measured}
    known = [reasons[name] for name in result.exposures if reasons[name] is not None]
    return (EXPOSURE_UNKNOWN, str(known[0])) if known else (UNIVERSE_TOO_SMALL, EXPOSURE_UNKNOWN)


def _unavailable_reason(readings: Sequence[FactorReading]) -> tuple[str, str]:
    """Reason code, and the factor reason that removes most weight from the composite."""
    lost: defaultdict[str, float] = defaultdict(float)
    for reading in readings:
        if reading.reason is not None:
            lost[reading.reason] += reading.weight
    heaviest = max(sorted(lost), key=lambda reason: to_millionths(lost[reason]))
    known = sum(reading.weight for reading in readings if reading.raw is not None)
    if not known:
        return NO_MARKET_DATA, heaviest
    return (
        UNIVERSE_TOO_SMALL
        if to_millionths(known) >= to_millionths(MIN_COVERAGE)
        else INSUFFICIENT_INPUTS
    ), heaviest


def _excluded_card(symbol: str, rule: str) -> Card:
    return Card(
        symbol=symbol,
        status=CardStatus.UNAVAILABLE,
        reason=NOT_ELIGIBLE,
        families=_by_family(np.full(len(Family), np.nan)),
        composite=None,
        z=None,
        confidence=None,
        rank=None,
        volatility=None,
        factors=(),
        detail=rule,
    )


def _by_family(values: Floats) -> MappingProxyType[Family, float | None]:
    figures = (_known(value) for value in values.tolist())
    return MappingProxyType(dict(zip(Family, figures, strict=True)))


def _all_known(values: Floats) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]  # noqa: PLR0124  # NaN alone differs from itself


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
