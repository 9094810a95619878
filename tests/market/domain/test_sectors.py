"""The editable table of coins: what it says, and how it refuses a slip of the pen."""

import time
from pathlib import Path

import aiohttp
import pytest

from app.market.domain.sectors import UNCLASSIFIED, AssetClass, CapCategory, parse_sectors
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange

SHIPPED = Path(__file__).resolve().parents[3] / "app/market/domain/sectors.csv"
HEADER = "base,asset_class,sector,cap_category\n"


def test_the_shipped_table_knows_the_well_known() -> None:
    table = parse_sectors(SHIPPED.read_text())
    assert len(table.rows) >= 300
    assert table.classify("BTC").cap_category is CapCategory.LARGE
    assert table.classify("UNI").sector == "defi"
    kinds = {"USDC": "stable", "WBTC": "wrapped", "BTCDOM": "index", "ETHBTC": "index"}
    kinds |= {
        "PAXG": "commodity",
        "XAG": "commodity",
        "EUR": "fiat",
        "SPX": "coin",
        "USDG": "stable",
    }
    assert {base: table.classify(base).asset_class.value for base in kinds} == kinds


def test_an_unlisted_coin_is_an_unclassified_coin() -> None:
    unknown = parse_sectors("# nothing yet\n\n" + HEADER).classify("XYZ")
    assert unknown.asset_class is AssetClass.COIN
    assert unknown.sector == UNCLASSIFIED
    assert unknown.cap_category is CapCategory.UNCLASSIFIED


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must begin with"),
        ("base,sector\n", "must begin with"),
        (HEADER + "BTC,coin,layer1\n", "line 2 .* needs 4 cells"),
        (HEADER + "BTC,coin,,large\n", "line 2 .* needs 4 cells"),
        (HEADER + "# note\nBTC,coin,layer1,huge\n", "line 3 .*'huge'"),
        (HEADER + "BTC,rock,layer1,large\n", "line 2 .*'rock'"),
        (HEADER + "BTC,coin,Layer 1,large\n", "line 2 .*lower-case"),
        (HEADER + "B-T,coin,layer1,large\n", "line 2 .*letters and digits"),
        (HEADER + "BTC,coin,a,large\nBTC,coin,b,large\n", "line 3 .* second time"),
    ],
)
def test_a_wrong_line_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_sectors(text)


async def test_few_coins_of_the_whole_list_of_the_exchange_are_unclassified() -> None:
    table = parse_sectors(SHIPPED.read_text())
    async with (
        serve_exchange(SandboxOptions(), time.time) as url,
        aiohttp.ClientSession() as web,
        web.get(f"{url}/api/v1/contracts/active") as answer,
    ):
        contracts = (await answer.json())["data"]
    bases = {one["baseCurrency"] for one in contracts} - {"XBT"}
    assert len(bases) > 500
    assert len([base for base in bases if base not in table.rows]) <= 2
