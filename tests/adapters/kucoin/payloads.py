"""Answers written by hand from the protocol: the shapes of several years and their quirks."""

import copy
import json
from typing import Any

from app.adapters.kucoin.limiter import CONTRACTS, SILENT
from app.adapters.kucoin.transport import (
    ExchangeResponse,
    RequestFailure,
    RequestSuccess,
    interpret_response,
)

# The full object of 2025-26: absolute next settlement, null prediction, a cycle in force.
LINEAR_2026 = """{"symbol":"XBTUSDTM","rootSymbol":"USDT","type":"FFWCSX",
"firstOpenDate":1585555200000,"expireDate":null,"settleDate":null,"baseCurrency":"XBT",
"quoteCurrency":"USDT","settleCurrency":"USDT","maxOrderQty":1000000,"maxPrice":1000000.0,
"lotSize":1,"tickSize":0.1,"indexPriceTickSize":0.01,"multiplier":0.001,"initialMargin":0.008,
"maintainMargin":0.004,"maxRiskLimit":100000,"makerFeeRate":2.0E-4,"takerFeeRate":6.0E-4,
"takerFixFee":0E-8,"settlementFee":null,"isDeleverage":true,"isQuanto":true,"isInverse":false,
"markMethod":"FairPrice","fairMethod":"FundingRate","fundingRateSymbol":".XBTUSDTMFPI8H",
"settlementSymbol":"","status":"Open","fundingFeeRate":5.1E-5,"predictedFundingFeeRate":null,
"fundingRateGranularity":14400000,"currentFundingRateGranularity":28800000,"openInterest":"5940782",
"turnoverOf24h":6.353834194265137E8,"volumeOf24h":5735.963,"markPrice":110205.37,
"indexPrice":110207.22,"lastTradePrice":110196,"nextFundingRateTime":28149691,
"nextFundingRateDateTime":1756224000000,"maxLeverage":125,"sourceExchanges":["okex","binance"],
"lowPrice":108682.5,"highPrice":112958.8,"priceChgPct":-0.0085,"priceChg":-948.9,"k":490.0,
"adjustK":null,"crossRiskLimit":5.0E8,"marketStage":"NORMAL","marketType":"CRYPTO",
"displaySymbol":"\\u6bd4\\u7279\\u5e01USDTM","somethingNew":{"a":[1,2,{"b":null}]}}"""

# The inverse contract: multiplier -1, negative turnover in base coins, no granularity yet.
INVERSE_2023 = """{"symbol":"XBTUSDM","rootSymbol":"XBT","type":"FFWCSX",
"firstOpenDate":1552638575000,"expireDate":"","settleDate":"","baseCurrency":"XBT",
"quoteCurrency":"USD","settleCurrency":"XBT","maxOrderQty":10000000,"lotSize":1,
"tickSize":1.0000000000,"multiplier":-1.0,"isInverse":true,"status":"Open",
"fundingFeeRate":0.000100,"openInterest":"36857949","turnoverOf24h":-202.50582578,
"volumeOf24h":14215097.00000000,"markPrice":29519.05,"indexPrice":29515.53,
"lastTradePrice":29486.0000000000,"nextFundingRateTime":25242830,"maxLeverage":50,
"priceChgPct":0.0004}"""

# A dated future: nulls where a perpetual has funding.
DATED = """{"symbol":"XBTMH26","rootSymbol":"XBT","type":"FFICSX","firstOpenDate":1750000000000,
"expireDate":1774598400000,"settleDate":1774598400000,"baseCurrency":"XBT","quoteCurrency":"USD",
"settleCurrency":"XBT","maxOrderQty":10000000,"lotSize":1,"tickSize":1,"multiplier":-1,
"isInverse":true,"fairMethod":null,"status":"Open","fundingFeeRate":null,
"nextFundingRateTime":null,"openInterest":"812","turnoverOf24h":-1.5,"volumeOf24h":160000,
"markPrice":null,"lastTradePrice":null,"maxLeverage":25}"""

# A tiny price as text with an exponent, sizes as text, a delisting announced, scaled base.
SCALED = """{"symbol":"1MBABYDOGEUSDTM","type":"FFWCSX","firstOpenDate":1700000000000,
"expireDate":1790000000000,"settleDate":null,"baseCurrency":"1MBABYDOGE","quoteCurrency":"USDT",
"settleCurrency":"USDT","lotSize":"1","tickSize":"1E-7","multiplier":"1E+2","isInverse":false,
"status":"Open","fundingFeeRate":"-2.503E-3","openInterest":"123456.0","turnoverOf24h":"12.5",
"volumeOf24h":"6250","markPrice":"0.0019997","fundingRateGranularity":14400000}"""

TICKER = """{"sequence":1707992727046,"symbol":"XBTUSDTM","side":"sell","size":21,
"tradeId":"1784299761369","price":"67153","bestBidPrice":"67152.9","bestBidSize":2767,
"bestAskPrice":"67153.1","bestAskSize":5368,"ts":1729163466659000000}"""
ONE_SIDED_TICKER = """{"sequence":12,"symbol":"4USDTM","side":"buy","size":3,"price":"1E-7",
"bestBidPrice":"","bestBidSize":0,"bestAskPrice":null,"ts":1729163466659000000}"""

BOOK = """{"sequence":1697895963339,"symbol":"XBTUSDM","bids":[[66964.8,25596],["66968",2],
[0.1,15602000],[66960,0]],"asks":[[66968.7,2032],[66968.1,13501]],"ts":1729168101216000000}"""
EMPTY_BOOK = '{"sequence":-1,"symbol":"XBTUSDM","bids":null,"ts":1729168101216000000}'

FUNDING_2026 = """{"symbol":".ETHUSDTMFPI8H","granularity":28800000,"timePoint":1776672000000,
"value":-3.2E-5,"dailyInterestRate":3.0E-4,"fundingRateCap":0.00375,"period":1,
"fundingTime":1776700800000}"""
FUNDING_2024 = """{"symbol":".XBTUSDTMFPI8H","granularity":28800000,"timePoint":1705896000000,
"value":0.000136,"predictedValue":0.00008}"""

FUNDING_HISTORY = """[{"symbol":"IDUSDTM","fundingRate":0.018750,"timepoint":1702310400000},
{"symbol":"IDUSDTM","fundingRate":-2.1E-4,"timepoint":1702296000000},
{"symbol":"IDUSDTM","fundingRate":4.0E-4,"timepoint":1702267200000}]"""

KLINE = """[[1728604800000,60299.9,60924.1,60077.4,60666.1,1220980],
[1728576000000,60791.1,61035,58940,60300,5501167,331000000.5]]"""

MARK = """{"symbol":"XBTUSDTM","granularity":1000,"timePoint":1729254307000,"value":67687.08,
"indexPrice":67683.58}"""


def success(data: str) -> bytes:
    """An envelope with the extra keys that some answers carry."""
    head = '{"success":true,"code":"200000","msg":"success","retry":false,"data":'
    return f"{head}{data}}}".encode()


def decoded(data: str) -> Any:
    """The data of a success as the adapter sees it: numbers exact."""
    judged = interpret_response(ExchangeResponse(200, SILENT, success(data)), CONTRACTS)
    assert isinstance(judged, RequestSuccess)
    return judged.data


def judged(body: bytes) -> RequestSuccess | RequestFailure:
    return interpret_response(ExchangeResponse(200, SILENT, body), CONTRACTS)


def changed(data: str, **fields: Any) -> Any:
    """One record with fields replaced; a field set to ... is removed."""
    record = copy.deepcopy(decoded(data))
    for name, value in fields.items():
        if value is ...:
            record.pop(name, None)
        else:
            record[name] = decoded(json.dumps(value)) if isinstance(value, float) else value
    return record
