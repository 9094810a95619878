"""Every recorded payload of these endpoints parses; skipped where the recordings are absent."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest

from app.adapters.kucoin import parse, parse_contracts
from app.adapters.kucoin.limiter import CONTRACTS, SILENT
from app.adapters.kucoin.transport import (
    ExchangeResponse,
    RequestFailure,
    RequestSuccess,
    interpret_response,
)
from app.foundation.errors import Code
from app.market.domain.models import ContractListing, TickerListing

RECORDED = Path(__file__).resolve().parents[4] / "shared/kucoin/recorded"
pytestmark = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recordings are not here")

NOW_MS = 1_756_195_850_309


def _history(data: object, asked: str) -> None:
    rows, rejections = parse.funding_rows(data, asked)
    assert rows
    assert not rejections
    assert parse.link_settlements(rows)


def _contracts(data: object) -> None:
    listing = parse_contracts.contracts(data, NOW_MS)
    assert isinstance(data, list)
    assert len(listing.contracts) == len(listing.stats) == len(data) > 0
    assert listing.rejections == ()
    for contract, stats in zip(listing.contracts, listing.stats, strict=True):
        assert contract.multiplier > 0
        assert contract.base != "XBT"
        assert stats.turnover_24h is not None
        assert stats.volume_24h is not None
        assert stats.mark_price is not None
        if not contract.is_inverse:  # base coins, not lots: turnover is volume times price
            ratio = stats.turnover_24h / (stats.volume_24h * stats.mark_price)
            assert 0.9 < ratio < 1.1


def _tickers(data: object) -> None:
    listing: TickerListing = parse.tickers(data)
    assert isinstance(data, list)
    assert len(listing.tickers) == len(data)


def _candles(data: object) -> None:
    rows, rejections = parse.candle_rows(data)
    assert rows
    assert not rejections


def _contract(code: str) -> Callable[[object], ContractListing]:
    return partial(parse_contracts.contract, requested=code, received_ms=NOW_MS)


READERS: dict[str, Callable[[object], object]] = {
    "GET_v1_contracts_active": _contracts,
    "GET_v1_contracts_symbol": _contract("XBTUSDTM"),
    "GET_v1_allTickers": _tickers,
    "GET_v1_ticker__XBTUSDTM": partial(parse.ticker, requested="XBTUSDTM"),
    "GET_v1_ticker": partial(parse.ticker, requested="XBTUSDM"),
    "GET_v1_kline_query": _candles,
    "GET_v1_level2_snapshot__MYROUSDTM": partial(parse.book, requested="MYROUSDTM"),
    "GET_v1_level2_snapshot__XBTUSDTM": partial(parse.book, requested="XBTUSDTM"),
    "GET_v1_level2": partial(parse.book, requested="XBTUSDM"),
    "GET_v1_funding_rate": partial(parse.funding_now, requested="XBTUSDTM"),
    "GET_v1_contract_funding_rates__IDUSDTM": partial(_history, asked="IDUSDTM"),
    "GET_v1_contract_funding_rates": partial(_history, asked="XBTUSDTM"),
    "GET_v1_mark_price": partial(parse.mark_price, requested="XBTUSDTM"),
    "GET_v1_status": parse.status,
    "GET_v1_timestamp": parse.server_time,
}
# Recorded too, but no question of ours.
OTHERS = ("contracts_risk_limit", "trade_", "interest_query", "index_query", "premium_query")


def _reader(name: str) -> Callable[[object], object] | None:
    return next((read for prefix, read in READERS.items() if name.startswith(prefix)), None)


FILES = sorted(RECORDED.glob("GET_*.json")) + sorted(RECORDED.glob("sdk_rest_public/GET_*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recorded_answer_parses(path: Path) -> None:
    read = _reader(path.stem)
    if read is None:
        assert any(other in path.stem for other in OTHERS), "a recording without a reader"
        return
    outcome = interpret_response(ExchangeResponse(200, SILENT, path.read_bytes()), CONTRACTS)
    assert isinstance(outcome, RequestSuccess)
    read(outcome.data)


def test_every_reader_met_a_recording() -> None:
    used = {
        next(prefix for prefix in READERS if path.stem.startswith(prefix))
        for path in FILES
        if _reader(path.stem)
    }
    assert used == set(READERS)


def test_recorded_rest_errors_are_faults() -> None:
    seen: dict[str, set[Code]] = {}
    for entry in msgspec.json.decode((RECORDED / "errors.json").read_bytes()):
        if not entry["where"].startswith("REST"):
            continue
        outcome = interpret_response(
            ExchangeResponse(200, SILENT, msgspec.json.encode(entry["payload"])), CONTRACTS
        )
        assert isinstance(outcome, RequestFailure)
        seen.setdefault(entry["payload"]["code"], set()).add(outcome.error.code)
    assert seen["429000"] == seen["200002"] == {Code.EXCHANGE_RATE_LIMITED}
    assert seen["200000"] == seen["404"] == {Code.EXCHANGE_BAD_RESPONSE}
    assert seen["400100"] == {Code.EXCHANGE_REFUSED}
