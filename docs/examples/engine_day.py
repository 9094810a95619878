"""One hour of an engine, with a client generated from the service's OpenAPI document."""

from dataclasses import dataclass, field
from datetime import datetime

from my_symbols_client import (
    Client,
    PlanOut,
    PortfolioOut,
    PositionSizesOut,
    RebalanceIn,
    ResultIn,
    SignalIn,
    SignalOut,
    TradeOut,
)


@dataclass
class Hour:
    """What the engine read and sent in one hour."""

    best: str
    plan: PlanOut
    portfolio: PortfolioOut
    sizes: PositionSizesOut
    tradeable: list[str]
    signal: SignalOut
    trade: TradeOut
    topics: list[str]


@dataclass
class Engine:
    """Reads what changed since its last hour; `known` are its weights in per cent."""

    client: Client
    balance: str
    sequence: str = "0"
    known: dict[str, float] = field(default_factory=dict)

    async def run_hour(self, number: int, now: datetime) -> Hour:
        """Rebalance, size, send a signal, report a result, and read the changes."""
        client = self.client
        rankings = await client.list_rankings(limit=10)
        best = rankings.items[0].symbol
        plan = await client.rebalance_portfolio(
            RebalanceIn(reason="hourly", user="engine"), idempotency_key=f"hour-{number}"
        )
        portfolio = await client.get_portfolio()
        sizes = await client.calculate_position_sizes(account_balance=self.balance)
        decisions = [
            await client.get_trading_decision(one.symbol, specification=None)
            for one in portfolio.members
        ]
        signal = await client.send_signal(
            SignalIn(
                source_name="engine",
                source_signal_id=f"signal-{number}",
                signal_type="momentum",
                signal_strength=0.7,
                confidence_level=0.8,
                symbol=best,
                signal_direction="BUY",
            )
        )
        result = ResultIn(trade_id=f"fill-{number}", pnl="12.5", currency="USDT", occurred_at=now)
        trade = await client.book_trade(portfolio.members[0].symbol, result)
        topics = await self._read_changes()
        tradeable = [one.symbol for one in decisions if one.trade]
        return Hour(best, plan, portfolio, sizes, tradeable, signal, trade, topics)

    async def _read_changes(self) -> list[str]:
        topics: list[str] = []
        cursor = None
        while True:
            page = await self.client.list_changes(since=self.sequence, cursor=cursor)
            topics += [one.topic for one in page.items]
            if cursor is None and page.portfolio is not None:
                for one in page.portfolio.members:
                    self.known.pop(one.symbol, None)
                    if one.new_weight_percentage is not None:
                        self.known[one.symbol] = one.new_weight_percentage
            cursor = page.next_cursor
            if cursor is None:
                self.sequence = str(page.sequence)
                return topics
