"""The part of a contract object that its specification decides."""

from typing import Any

import msgspec

from app.sandbox.funding import cap, granularity_ms, leverage, margins
from app.sandbox.universe import DAY_MS, HOUR_MS, Listing

SOURCES = ["okex", "binance", "kucoin", "bybit", "bitmart", "gateio"]

Json = dict[str, Any]


def index_symbol(listing: Listing) -> str:
    """The index a contract follows: `.KXBTUSDT` of linear ones, `.BXBT` of inverse ones."""
    return f".B{listing.base}" if listing.inverse else f".K{listing.base}{listing.quote}"


def static_part(listing: Listing, effective_ms: int | None) -> Json:
    """The keys of a contract object that do not move with the market.

    `effective_ms` is when the configured funding interval takes or took effect, None when it
    has always been so.
    """
    initial, maintain = margins(listing)
    dated = listing.kind == "dated"
    interval = granularity_ms(listing)
    later = listing.next_funding_hours
    limit = max(10_000, 1_000_000 // max(listing.rank, 8) // 5_000 * 5_000)
    limit = 40 if listing.inverse else limit
    tick = float(f"1e-{listing.tick_digits}")
    quote = "USD" if listing.inverse else listing.quote
    return {
        "symbol": listing.symbol,
        "rootSymbol": listing.base if listing.inverse else listing.settle,
        "type": "FFICSX" if dated else "FFWCSX",
        "firstOpenDate": listing.first_open_ms,
        "expireDate": listing.expire_ms,
        "settleDate": listing.expire_ms,
        "baseCurrency": listing.base,
        "quoteCurrency": listing.quote,
        "settleCurrency": listing.settle,
        "maxOrderQty": 10_000_000 if listing.inverse else 1_000_000,
        "marketMaxOrderQty": 500_000,
        "maxPrice": 1_000_000.0,
        "lotSize": 1,
        "tickSize": tick,
        "indexPriceTickSize": tick,
        "multiplier": listing.multiplier,
        "initialMargin": initial,
        "maintainMargin": maintain,
        "maxRiskLimit": limit,
        "minRiskLimit": limit,
        "riskStep": limit // 2,
        "makerFeeRate": 0.0002,
        "takerFeeRate": 0.0006,
        "takerFixFee": 0.0,
        "makerFixFee": 0.0,
        "settlementFee": None,
        "isDeleverage": True,
        # Deprecated, and true on plain linear contracts: no way to tell linear from inverse.
        "isQuanto": not listing.inverse and listing.rank <= 60,
        "isInverse": listing.inverse,
        "markMethod": "FairPrice",
        "fairMethod": None if dated else "FundingRate",
        "fundingBaseSymbol": None if dated else f".{listing.base}INT8H",
        "fundingQuoteSymbol": None if dated else f".{quote}INT8H",
        "fundingRateSymbol": None if dated else f".{listing.symbol}FPI8H",
        "indexSymbol": index_symbol(listing),
        "settlementSymbol": (f".{listing.symbol}" if dated else None) if listing.inverse else "",
        "predictedFundingFeeRate": None,
        "fundingRateGranularity": later * HOUR_MS if later else interval,
        "currentFundingRateGranularity": interval,
        "effectiveFundingRateCycleStartTime": effective_ms,
        "fundingRateCap": None if dated else cap(listing),
        "fundingRateFloor": None if dated else -cap(listing),
        "dailyInterestRate": None if dated else 0.0003,
        "period": None if dated else 1,
        "maxLeverage": leverage(listing),
        "sourceExchanges": SOURCES,
        "premiumsSymbol1M": None if dated else f".{listing.symbol}PI",
        "premiumsSymbol8H": None if dated else f".{listing.symbol}PI8H",
        "fundingBaseSymbol1M": None if dated else f".{listing.base}INT",
        "fundingQuoteSymbol1M": None if dated else f".{quote}INT",
        "k": 490.0,
        "m": 300.0,
        "f": 1.3,
        "mmrLimit": 0.3,
        "mmrLevConstant": float(leverage(listing)),
        "supportCross": True,
        "adjustK": None,
        "adjustM": None,
        "adjustMmrLevConstant": None,
        "adjustActiveTime": None,
        "crossRiskLimit": 5.0e8 if listing.rank == 1 else 2.0e6,
        "marketStage": listing.stage,
        "preMarketToPerpDate": (
            listing.first_open_ms + 30 * DAY_MS if listing.stage == "PRE_MARKET" else None
        ),
        "marketType": "CRYPTO",
        "orderPriceRange": 0.05,
        "displaySymbol": display(listing.symbol),
        "displayBaseCurrency": display(listing.base),
    }


def head(listing: Listing, effective_ms: int | None = None) -> bytes:
    """The unmoving part as JSON without its closing brace, to put the moving part behind it."""
    if effective_ms is None and listing.next_funding_hours is not None:
        effective_ms = listing.first_open_ms
    return msgspec.json.encode(static_part(listing, effective_ms))[:-1] + b","


def display(name: str) -> str:
    """The name shown to people, Chinese for some: never a key."""
    return name.replace("BINANCELIFE", "币安人生").replace("WOTAMALAILE", "我踏马来了")
