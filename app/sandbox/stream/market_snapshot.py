"""Market at one instant, computed on demand and shared by all frames of that instant."""

from functools import cached_property
from typing import Any

import numpy as np

from app.sandbox.exchange import LocalExchange
from app.sandbox.market.order_books import Tops
from app.sandbox.market.price_path import InstantPrices


class InstantMarket:
    """Quotes at `now_ms`, each computed at its first use."""

    def __init__(self, exchange: LocalExchange, now_ms: int) -> None:
        self.exchange = exchange
        self.now_ms = now_ms
        self.quote_ms = exchange.market.clamp(now_ms)

    @cached_property
    def moment(self) -> InstantPrices:
        """State of the market."""
        return self.exchange.market.moment(self.now_ms)

    @cached_property
    def tops(self) -> Tops:
        """Best bids and asks of all contracts."""
        return self.exchange.books.tops(self.now_ms)

    @cached_property
    def prices(self) -> tuple[np.ndarray, np.ndarray]:
        """Index and mark prices of all contracts."""
        return self.exchange.contracts.index_and_mark(self.now_ms)

    def top(self, row: int) -> tuple[int, int, int, int]:
        """Bid, bid lots, ask and ask lots of one contract."""
        tops = self.tops
        return (
            int(tops.bid[row]),
            int(tops.bid_size[row]),
            int(tops.ask[row]),
            int(tops.ask_size[row]),
        )

    def ticker(self, row: int) -> dict[str, Any]:
        """Ticker of one contract in REST form."""
        ticker: dict[str, Any] = self.exchange.contracts.tickers(self.now_ms, [row])[0]
        return ticker
