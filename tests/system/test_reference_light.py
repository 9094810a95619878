"""While KuCoin is away another exchange's prices are shown as its own; over sockets, end to end."""

import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from app.settings import ReferenceVariables
from tests.adapters.tellers import BinanceTeller, telling
from tests.support.service_in_process import running, settings_for

QUOTE = "/market/BTCUSDT"

pytestmark = pytest.mark.long


async def test_prices_from_elsewhere_go_on_while_kucoin_is_away(tmp_path: Path) -> None:
    options = SandboxOptions(contracts=14, quota=100_000)
    async with (
        serve_exchange(options, time.time) as url,
        telling(BinanceTeller(prices={"BTCUSDT": "1234.5"})) as binance,
        aiohttp.ClientSession() as control,
    ):
        wanted = ReferenceVariables(
            exchange="binance", base_url=binance.url, interval_s=3, timeout_s=3
        )
        settings = settings_for(url, f"sqlite+aiosqlite:///{tmp_path}/away.sqlite3")
        async with running(settings.model_copy(update={"reference": wanted})) as service:

            def told(price: str) -> Any:
                return lambda shown: (
                    shown["reference"] is not None
                    and Decimal(shown["reference"]["price"]) == Decimal(price)
                )

            def says(how: str) -> Any:
                return lambda shown: any(
                    one["name"] == "reference" and how in one["detail"]
                    for one in shown["components"]
                )

            await service.filled()
            first = await service.until(QUOTE, told("1234.5"))
            assert first["reference"]["source"] == "binance USDT"
            away = {"kind": "status", "path": "*", "status": 503}
            async with control.post(f"{url}/_control/faults", json=away) as done:
                assert done.status == 200
            await service.until("/health", says("streamed and polled"))
            await binance.tell({"BTCUSDT": "1300"})
            later = await service.until(QUOTE, told("1300"))
            binance.refuses_streams = True
            await binance.cut()
            await service.until("/health", says("no stream now"))
            binance.prices["BTCUSDT"] = "1250"
            await service.until(QUOTE, told("1250"))
            for shown in (first, later):
                own = {Decimal(shown[name]) for name in ("last_price", "mark_price", "index_price")}
                assert own.isdisjoint({Decimal("1234.5"), Decimal(1300)}), "they stay KuCoin's own"
                assert shown["data_source"] == "sandbox"
