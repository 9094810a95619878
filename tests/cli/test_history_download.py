"""`my-symbols history download` over real sockets: files, resumption, kills, gaps and refusals."""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen
from uuid import UUID

import numpy as np
import pyarrow.parquet
import pytest

from app.adapters.kucoin import parse_contracts
from app.cli.exit_codes import ExitCode
from app.cli.output import Output
from app.cli.programs.history import _Notes
from app.cli.programs.settings import read_settings
from app.cli.programs.trials import run_on_database
from app.foundation.sql.database import Database
from app.market.domain.models import CandleSeries, Funding, Interval
from app.market.domain.symbols import standard_symbol
from app.market.storage.candles import CandleRepository
from app.market.storage.symbols import SymbolRecord, SymbolRepository
from app.research.services.history_download import daily_funding
from app.research.services.history_files import read_history
from app.research.services.history_parts import HistoryPart, PartFolder, lock_directory
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.cli.command import PATIENCE_S, Ended, ended, here, started
from tests.support.recording_fixtures import PLENTY

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
NOW_MS = 1_760_000_000_000  # 2025-10-09T08:53:20Z
LAST_OPEN_MS = NOW_MS // DAY_MS * DAY_MS - DAY_MS
KLINE = "/api/v1/kline/query"
FUNDING = "/api/v1/contract/funding-rates"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A local exchange whose clock stands still, with its control routes."""

    url: str

    def ask(
        self, path: str, body: Any = None, method: str | None = None, numbers: Any = float
    ) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, method=method)  # noqa: S310  # a loopback address
        with urlopen(request) as answer:  # noqa: S310  # a loopback address
            return json.loads(answer.read(), parse_float=numbers)

    def fault(self, kind: str, **params: Any) -> None:
        self.ask("/_control/faults", {"kind": kind, "path": KLINE, **params})

    def count(self, path: str) -> int:
        return int(self.ask("/_control/counters")["by_path"].get(path, 0))

    def klines(self) -> list[dict[str, str]]:
        """Parameters of all requests of candles."""
        arrivals = self.ask("/_control/counters")["arrivals"]
        asked = [one["target"] for one in arrivals if one["path"] == KLINE]
        return [
            {name: values[0] for name, values in parse_qs(urlsplit(one).query).items()}
            for one in asked
        ]

    def download(self, *options: str, begin: str = "2025-03-01", **variables: str) -> Ended:
        known = {**self.variables, **variables}
        return here("history", "download", "--from", begin, *options, **known)

    @property
    def variables(self) -> dict[str, str]:
        return {
            "MYSYMBOLS_KUCOIN__BASE_URL": self.url,
            "MYSYMBOLS_KUCOIN__QUOTA_PER_WINDOW": str(PLENTY),
        }


@contextmanager
def local_exchange(contracts: int) -> Iterator[Exchange]:
    ready, found = threading.Event(), list[str]()
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        options = SandboxOptions(quota=PLENTY, contracts=contracts, now_ms=NOW_MS, speed=0.0)
        async with serve_exchange(options, time.time) as url:
            found.append(url)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(PATIENCE_S)
    try:
        yield Exchange(found[0])
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(PATIENCE_S)
        loop.close()


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with local_exchange(6) as one:
        yield one


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def daily(folder: str) -> bytes:
    return Path(folder, "candles-1d.parquet").read_bytes()


def test_a_download_is_a_history_that_the_backtest_runs() -> None:
    with local_exchange(24) as exchange:
        done = exchange.download("--output", "h", "--json", begin="2025-02-01")
        assert done.code == 0, done.err
        found = read_history(Path("h/candles-1d.parquet"))
        (file,) = done.document["files"]
        assert (file["interval"], file["path"]) == ("1d", "h/candles-1d.parquet")
        assert file["symbols"] == len(found.symbols) == len(file["items"]) > 12
        assert "BTCUSDT" in found.symbols
        assert int(found.panel.opened_ms[-1]) == LAST_OPEN_MS  # the running candle is left out
        contracts = exchange.ask("/api/v1/contracts/active")["data"]
        multiplier = {one["symbol"]: one["multiplier"] for one in contracts}
        query = f"?symbol=ETHUSDTM&granularity=1440&from={LAST_OPEN_MS - 9 * DAY_MS}"
        sent = exchange.ask(f"{KLINE}{query}&to={LAST_OPEN_MS}")["data"]
        column = found.symbols.index("ETHUSDT")
        assert len(sent) == 10
        for row, bar in zip(range(-10, 0), sent, strict=True):
            known = [
                float(getattr(found.panel, name)[row, column])
                for name in ("open", "high", "low", "close", "volume", "turnover")
            ]
            assert known == [*bar[1:5], bar[5] * multiplier["ETHUSDTM"], bar[6]]
        query = f"?symbol=ETHUSDTM&from={LAST_OPEN_MS}&to={LAST_OPEN_MS + DAY_MS - 1}"
        settled = exchange.ask(f"{FUNDING}{query}")["data"]
        assert len(settled) >= 3
        assert found.funding[-1, column] == pytest.approx(
            sum(one["fundingRate"] for one in settled), rel=1e-12
        )
    run = here("backtest", "h/candles-1d.parquet", "--json")
    assert run.code == 0, run.err
    assert run.document["funding_coverage"] > 0.9


def test_a_second_start_requests_only_missing_bars(exchange: Exchange) -> None:
    first = exchange.download(
        "--output", "h", "--interval", "1d,1h", "--symbols", "BTCUSDT,ETH-USDT"
    )
    assert first.code == 0, first.err
    assert "1d: 4 of 4 windows, about 0 s left" in first.err
    before = daily("h"), exchange.count(KLINE), exchange.count(FUNDING)
    second = exchange.download(
        "--output", "h", "--interval", "1d,1h", "--symbols", "XBTUSDTM,ETHUSDTM"
    )
    assert second.code == 0
    assert "1h: nothing is missing" in second.err
    assert (daily("h"), exchange.count(KLINE), exchange.count(FUNDING)) == before
    exchange.ask("/_control/clock", {"advance_ms": 2 * DAY_MS})
    known = len(exchange.klines())
    later = exchange.download("--output", "h", "--symbols", "BTCUSDT", begin="2024-08-01")
    assert later.code == 0
    asked = [(int(one["from"]), int(one["to"])) for one in exchange.klines()[known:]]
    assert asked == [
        (1_739_750_400_000, 1_740_787_199_999),  # 2025-02-17 to the former first day
        (1_722_470_400_000, 1_739_750_399_999),  # 2024-08-01 and 200 days
        (LAST_OPEN_MS + DAY_MS, LAST_OPEN_MS + 3 * DAY_MS - 1),
    ]
    fresh = exchange.download("--output", "new", "--symbols", "BTCUSDT", begin="2024-08-01")
    assert fresh.code == 0
    grown, whole = (
        pyarrow.parquet.read_table(f"{name}/candles-1d.parquet").filter(
            pyarrow.compute.field("symbol") == "BTCUSDT"
        )
        for name in ("h", "new")
    )
    assert whole.num_rows > 0
    assert [column for column in whole.column_names if column != "funding_rate"] == [
        "symbol", "venue", "ts", "open", "high", "low", "close", "volume", "quote_volume",
    ]  # fmt: skip
    assert grown.drop(["funding_rate"]).equals(whole.drop(["funding_rate"]))
    assert np.array_equal(
        grown["funding_rate"].to_numpy(), whole["funding_rate"].to_numpy(), equal_nan=True
    )
    assert set(whole["venue"].to_pylist()) == {"sandbox"}


def test_older_bars_enter_the_database_beside_those_of_the_service(
    exchange: Exchange, room: Path
) -> None:
    options = ("--symbols", "BTCUSDT,ETHUSDT", "--output", "h", "--database", "--json")
    empty = exchange.download(*options, begin="2025-10-01").document["files"][0]
    assert (empty["bars"], empty["stored_in_database"]) == (16, 0)  # no contract is known yet
    contracts = exchange.ask("/api/v1/contracts/active", numbers=Decimal)["data"]
    listing = parse_contracts.contracts(contracts, NOW_MS).contracts
    known = [one for one in listing if one.code in {"XBTUSDTM", "ETHUSDTM"}]
    at = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    records = [
        SymbolRecord(
            str(UUID(int=number)), standard_symbol(one), one, "other", "large", at, at, None
        )
        for number, one in enumerate(known)
    ]
    bitcoin, ether = (
        next(one.id for one in records if one.symbol == name) for name in ("BTCUSDT", "ETHUSDT")
    )
    service_bar = CandleSeries(np.array([LAST_OPEN_MS - 2 * DAY_MS]), *np.full((6, 1), 9.0))

    async def prepare(database: Database) -> None:
        async with database.write() as unit:
            await unit.get(SymbolRepository).save(records, at)
            await unit.get(CandleRepository).save({bitcoin: service_bar}, Interval.DAY)

    async def read(database: Database) -> dict[str, CandleSeries]:
        async with database.read() as unit:
            return await unit.get(CandleRepository).load([bitcoin, ether], Interval.DAY)

    settings = read_settings()
    run_on_database(settings, prepare)
    done = exchange.download(*options, begin="2025-10-01")
    assert (done.code, done.document["files"][0]["stored_in_database"]) == (0, 5)
    again = exchange.download(*options[:-1], begin="2025-10-01")
    assert "database: 0 new bars of 1d" in again.out
    stored = run_on_database(settings, read)
    assert set(stored) == {bitcoin}  # a contract without a bar of the service gets none
    series, last = stored[bitcoin], LAST_OPEN_MS - 2 * DAY_MS
    assert series.opened_ms.tolist() == [*range(last - 5 * DAY_MS, last + 1, DAY_MS)]
    assert series.close[-1] == 9.0  # the bar of the service stays
    part = read_history(Path("h/candles-1d.parquet")).panel
    column = part.symbols.index("BTCUSDT")
    assert np.array_equal(series.volume[:5], part.volume[:5, column])
    assert np.array_equal(series.turnover[:5], part.turnover[:5, column])


def test_a_killed_download_resumes_to_the_same_bytes(exchange: Exchange, room: Path) -> None:
    options = ("--interval", "1h", "--from", "2025-08-01")
    whole = here("history", "download", *options, "--output", "whole", **exchange.variables)
    assert whole.code == 0
    requests = exchange.count(KLINE)
    exchange.fault("delay", seconds=0.05)
    child = started(
        "history", "download", *options, "--output", "cut", cwd=room, **exchange.variables
    )
    parts = room / "cut/candles-1h.parts"
    until = time.monotonic() + PATIENCE_S
    while not [*parts.glob("*.parquet")]:
        assert time.monotonic() < until
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    child.kill()
    ended(child)
    exchange.ask("/_control/faults", method="DELETE")
    assert not (room / "cut/candles-1h.parquet").exists()
    (parts / "XBTUSDTM.parquet.partial").write_bytes(b"cut off")
    before = exchange.count(KLINE)
    again = here("history", "download", *options, "--output", "cut", **exchange.variables)
    assert again.code == 0, again.err
    assert exchange.count(KLINE) - before < requests
    left, right = (Path(name, "candles-1h.parquet").read_bytes() for name in ("cut", "whole"))
    assert left == right


def test_an_interrupted_join_leaves_the_former_file(exchange: Exchange) -> None:
    assert exchange.download("--symbols", "BTCUSDT,ETHUSDT", "--output", "h").code == 0
    before, seen = daily("h"), list[str]()

    def interrupt(part: HistoryPart) -> None:
        seen.append(part.code)
        if len(seen) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        PartFolder(Path("h"), Interval.DAY).join(interrupt)
    assert seen == ["ETHUSDTM", "XBTUSDTM"]
    assert daily("h") == before


def test_a_contract_listed_after_the_period_is_reported_without_data(exchange: Exchange) -> None:
    contracts = exchange.ask("/api/v1/contracts/active")["data"]
    listed = next(one["firstOpenDate"] for one in contracts if one["symbol"] == "XBTUSDTM")
    first = datetime.fromtimestamp(listed / 1000, UTC).date()
    end = str(first - timedelta(days=1))
    options = ("--symbols", "BTCUSDT", "--output", "h", "--to", end, "--json")
    done = exchange.download(*options, begin="1970-01-01")
    (file,) = done.document["files"]
    assert (done.code, file["symbols"], file["without_data"]) == (0, 1, 1)
    assert file["items"][0]["symbol"] == "BTCUSDT"
    assert "1d: nothing is missing" in done.err  # no window, and so no part, for each 200 days
    assert exchange.count(KLINE) == 0


def test_gaps_and_refused_bars_are_reported(exchange: Exchange) -> None:
    gap = {"begin": LAST_OPEN_MS - 6 * DAY_MS, "end": LAST_OPEN_MS - 4 * DAY_MS}
    exchange.fault("gap", **gap)
    options = ("--symbols", "BTCUSDT", "--output")
    done = exchange.download(*options, "gap", "--json")
    (file,) = done.document["files"]
    (row,) = file["items"]
    assert (done.code, row["missing"], row["refused"], file["missing"]) == (0, 3, 0, 3)
    assert row["gaps"] == [{"first": "2025-10-02T00:00Z", "last": "2025-10-04T00:00Z"}]
    assert (row["first"], row["last"]) == ("2025-03-01T00:00Z", "2025-10-08T00:00Z")
    assert row["bars"] == 222 - 3
    shown = exchange.download(*options, "gap")
    assert "2025-10-02T00:00Z to 2025-10-04T00:00Z" in shown.out
    assert "gap/candles-1d.parquet: 1 symbols, 219 bars, 3 missing, 0 refused" in shown.out
    exchange.ask("/_control/faults", method="DELETE")
    # The first window of 200 bars and its repetition have highs below the other prices.
    exchange.fault("malformed", field=2, value=1e-9, times=2)
    done = exchange.download(*options, "broken", "--json")
    (row,) = done.document["files"][0]["items"]
    assert (done.code, row["bars"], row["refused"], row["missing"]) == (0, 22, 200, 0)
    assert row["first"] == "2025-09-17T00:00Z"
    exchange.fault("empty_list")
    nothing = exchange.download(*options, "empty", "--json")
    (file,) = nothing.document["files"]
    assert (nothing.code, file["without_data"], file["bars"]) == (0, 1, 0)
    assert file["items"][0]["first"] is None


def test_a_failed_contract_ends_with_69_and_the_next_start_completes_it(
    exchange: Exchange,
) -> None:
    exchange.fault("error", code="400100", message="refused", times=1)
    options = ("--symbols", "BTCUSDT,ETHUSDT", "--output", "h")
    failed = exchange.download(*options, "--json")
    assert failed.code == ExitCode.UNAVAILABLE
    (file,) = failed.document["files"]
    assert len(file["failed"]) == 1
    assert file["symbols"] == 1
    assert "1 downloads failed; the same command continues them" in failed.err
    done = exchange.download(*options, "--json")
    assert (done.code, done.document["files"][0]["symbols"]) == (0, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--from", "yesterday"), "no day such as 2024-01-31"),
        (("--to", "2025-02-28"), "--to must not lie before --from"),
        (("--from", "2025-10-09"), "the period has no closed bar"),
        (("--interval", "3m"), "--interval takes 1d and 1h, not '3m'"),
        (("--interval", "1d,"), "has an empty entry"),
        (("--symbols", "BTCUSDT,NOPEUSDTM"), "NOPEUSDTM: No contract has this spelling"),
        (("--symbols", "XBTUSDM"), "XBTUSDM is not a linear perpetual contract"),
        (("--output", "file"), "file"),
    ],
)
def test_wrong_use_is_a_usage_error_without_a_file(
    room: Path, options: tuple[str, ...], message: str
) -> None:
    (room / "file").touch()
    with local_exchange(14) as exchange:
        refused = exchange.download("--output", "h", *options)
        assert (refused.code, message in refused.err) == (ExitCode.USAGE, True), refused.err
        assert exchange.count(KLINE) == 0
    assert [*room.rglob("*.parquet")] == []


def test_unusable_folders_and_a_missing_library_are_named(
    exchange: Exchange, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--symbols", "BTCUSDT", "--output", "h")
    with lock_directory(room / "h"):
        locked = exchange.download(*options)
    assert (locked.code, "another download writes into h" in locked.err) == (ExitCode.USAGE, True)
    assert exchange.download(*options).code == 0
    mixed = exchange.download(*options, MYSYMBOLS_KUCOIN__SOURCE="kucoin")
    assert (mixed.code, "h has bars of sandbox, not of kucoin" in mixed.err) == (2, True)
    part = room / "h/candles-1d.parts/XBTUSDTM.parquet"
    part.write_bytes(part.read_bytes()[:100])
    damaged = exchange.download(*options)
    assert "XBTUSDTM.parquet is damaged; delete it and start again" in damaged.err
    assert damaged.code == ExitCode.USAGE
    (room / "plain").touch()
    below = exchange.download("--output", "plain/h")
    assert (below.code, below.err.startswith("output_unusable")) == (ExitCode.CONFIGURATION, True)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    without = exchange.download(*options)
    assert without.code == ExitCode.CONFIGURATION
    assert without.err == (
        "pyarrow_missing: parquet needs pyarrow: pip install 'my-symbols[replay]'.\n"
    )


def test_funding_of_a_day_is_unknown_where_a_settlement_may_be_missing() -> None:
    eight = 8 * HOUR_MS

    def settle(hour: int, interval_ms: int | None = eight) -> Funding:
        return Funding(hour * HOUR_MS, Decimal("0.0003"), interval_ms)

    days = {
        "whole": [settle(0), settle(8), settle(16)],
        "no last one": [settle(0), settle(8)],
        "unknown interval": [settle(0, None), settle(8), settle(16)],
        "none": [],
    }
    opened = np.zeros(1, np.int64)
    rates = {name: float(daily_funding(rows, opened)[0]) for name, rows in days.items()}
    assert rates.pop("whole") == pytest.approx(0.0003)
    assert np.isnan(list(rates.values())).all()


def test_progress_says_the_time_left_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter((100.0, 101.0, 110.0, 111.0, 140.0))
    notes = _Notes("1d", Output(as_json=True), lambda: next(times))
    for done in range(5):
        notes.show(done, 4)
    assert capsys.readouterr().err.splitlines() == [
        "1d: 0 of 4 windows, time left unknown",
        "1d: 2 of 4 windows, about 10 s left",
        "1d: 4 of 4 windows, about 0 s left",
    ]
