"""A factor and an algorithm of somebody else's."""

import numpy as np
from numpy.typing import NDArray

from app.plugins import AlgorithmScores, Factor, Family, ScoringInputs, Source


def week_return(inputs: ScoringInputs) -> NDArray[np.float64]:
    """ln(close / close a week ago)."""
    close = inputs.daily.close
    return np.asarray(np.log(close[-1] / close[-8]), np.float64)


WEEK_RETURN = Factor(
    name="week_return",
    family=Family.TECHNICAL,
    orientation=-1,
    weight=0.25,
    unit="log",
    sources=(Source.DAILY_CANDLES,),
    measure=week_return,
    gap="too_few_bars",
    meaning="ln(close / close 7 days before); short-term reversal",
)


class CalmFlow:
    """Prefers steady turnover; is the surer of it the more days it has seen."""

    name = "calm_flow"
    version = "1.2.0"
    family = Family.MARKET_STRUCTURE
    weight = 0.5
    sources = (Source.DAILY_CANDLES,)

    @staticmethod
    def score(inputs: ScoringInputs) -> AlgorithmScores:
        turnover = inputs.daily.turnover[-60:]
        days = np.isfinite(turnover).sum(axis=0)
        mean = np.nansum(turnover, axis=0) / np.maximum(days, 1)
        spread = np.sqrt(np.nansum((turnover - mean) ** 2, axis=0) / np.maximum(days, 1))
        unrest = spread / np.where(mean > 0.0, mean, np.nan)
        said = [
            {"days": int(count), "unrest": float(one)}
            for count, one in zip(days, unrest, strict=True)
        ]
        return AlgorithmScores(np.exp(-unrest), days / 60.0, said)
