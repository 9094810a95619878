"""Public interfaces for packages that extend the service by `my_symbols.*` entry points.

Entry point groups: `my_symbols.factors` for a `Factor`, `my_symbols.algorithms` for a
`ScoringAlgorithm`, `my_symbols.signal_agents` for an `Agent`, `my_symbols.signal_sources` for a
`SignalSource`, `my_symbols.analytics` for `CustomAnalytics`. Import nothing else of `app`: other
modules may move.
"""

from app.configuration.domain.sections import AutomationMode, Family, SignalSettings, Source
from app.foundation.data_status import DataSource
from app.market.domain.models import (
    Book,
    CandleSeries,
    Floats,
    Funding,
    Interval,
    Level,
)
from app.market.domain.panel import Panel, ScoringInputs
from app.market.domain.segments import ContiguousPanel, contiguous
from app.market.domain.trade_flow import MinuteFlow, TradeFlow, TradeWindow
from app.performance.domain.equity_curve import Day
from app.performance.services.custom_figures import (
    AnalyticsInput,
    AnalyticsMember,
    CustomAnalytics,
)
from app.portfolio.domain.returns import Figures
from app.scoring.domain.board import Board, Card, CardStatus, Confidence, FactorReading
from app.scoring.domain.factors import Factor
from app.scoring.domain.historical_moments import HistoricMoments
from app.scoring.domain.plugins import AlgorithmScores, ScoringAlgorithm
from app.signals.domain.agents import Abstention, Agent, AgentVote, SignalFeatures, UniverseContext
from app.signals.domain.models import Direction, SignalClaim
from app.signals.domain.sources import GeneratedSignal, SourceInput
from app.signals.services.sources import SignalSource

__all__ = [
    "Abstention",
    "Agent",
    "AgentVote",
    "AlgorithmScores",
    "AnalyticsInput",
    "AnalyticsMember",
    "AutomationMode",
    "Board",
    "Book",
    "CandleSeries",
    "Card",
    "CardStatus",
    "Confidence",
    "ContiguousPanel",
    "CustomAnalytics",
    "DataSource",
    "Day",
    "Direction",
    "Factor",
    "FactorReading",
    "Family",
    "Figures",
    "Floats",
    "Funding",
    "GeneratedSignal",
    "HistoricMoments",
    "Interval",
    "Level",
    "MinuteFlow",
    "Panel",
    "ScoringAlgorithm",
    "ScoringInputs",
    "SignalClaim",
    "SignalFeatures",
    "SignalSettings",
    "SignalSource",
    "Source",
    "SourceInput",
    "TradeFlow",
    "TradeWindow",
    "UniverseContext",
    "contiguous",
]
