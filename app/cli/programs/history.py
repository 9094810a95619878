"""Program of `my-symbols history download`: candles of the exchange into history files."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from secrets import SystemRandom
from typing import Any, Final

import typer

from app.adapters.kucoin.exchange import open_exchange
from app.adapters.kucoin.limiter import KLINE
from app.cli.exit_codes import CommandError, ExitCode, exit_code_of_error
from app.cli.output import Output, create_table, report_errors
from app.cli.programs.settings import read_settings
from app.cli.programs.trials import run_on_database
from app.container.runtime_values import utc_now
from app.foundation.errors import ServiceError
from app.market.domain.models import Interval, Rejection
from app.research.services.history_download import (
    DownloadedFile,
    HistoryDownload,
    RefusedRows,
    SymbolCoverage,
    choose_contracts,
    store_older_bars,
    time_left_s,
)
from app.research.services.history_files import load_parquet
from app.research.services.history_parts import INTERVALS, PartFolder, lock_directory
from app.settings import Settings

_NOTE_EVERY_S: Final = 5.0
_PATIENCE_S: Final = 600.0  # of one request, while the quota is used up
_DAY_MS: Final = Interval.DAY.ms
_COLUMNS: Final = ("symbol", "bars>", "first", "last", "missing>", "refused>", "gaps")
_GAPS_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class _Request:
    directory: Path
    begin_ms: int
    end_ms: int
    intervals: Mapping[str, Interval]
    symbols: Sequence[str]


def download_history(options: Mapping[str, Any]) -> None:
    """Downloads, then prints the coverage of each file; exits with 69 if a contract failed.

    `options` are those of the command by name.
    """
    with report_errors(options["as_json"]) as output:
        try:
            request = _read_request(options)
        except ValueError as error:
            raise _usage(f"{error}.") from None
        settings = read_settings()
        try:
            load_parquet()
        except ValueError as error:
            raise CommandError(ExitCode.CONFIGURATION, "pyarrow_missing", f"{error}.") from None
        try:
            with lock_directory(request.directory):
                files = asyncio.run(_download(settings, request, output))
                stored = _store(settings, files) if options["database"] else {}
        except ServiceError as error:
            detail = f"{error.detail}; the same command continues the download"
            raise CommandError(exit_code_of_error(error), error.code.value, detail) from None
        except OSError as error:
            detail = f"{request.directory}: {error.strerror or error}."
            raise CommandError(ExitCode.CONFIGURATION, "output_unusable", detail) from None
        except ValueError as error:
            raise _usage(f"{error}.") from None
        _print_files(files, stored, output)
        failed = sum(len(one.failures) for one in files.values())
        if failed:
            note = f"{failed} downloads failed; the same command continues them"
            output.notes.print(note, markup=False)
            raise typer.Exit(int(ExitCode.UNAVAILABLE))


def _read_request(options: Mapping[str, Any]) -> _Request:
    begin_ms = _day_ms(options["begin"])
    end_ms = _day_ms("9999-12-31" if options["end"] is None else options["end"]) + _DAY_MS
    if begin_ms >= end_ms:
        raise ValueError("--to must not lie before --from")
    intervals: dict[str, Interval] = {}
    for name in _words(options["interval"]):
        if name not in INTERVALS:
            raise ValueError(f"--interval takes {' and '.join(INTERVALS)}, not {name!r}")
        intervals[name] = INTERVALS[name]
    symbols = [] if options["symbols"] is None else _words(options["symbols"])
    return _Request(options["output"], begin_ms, end_ms, intervals, symbols)


def _words(text: str) -> list[str]:
    words = [one.strip() for one in text.split(",")]
    if not all(words):
        raise ValueError(f"{text!r} has an empty entry")
    return words


def _day_ms(text: str) -> int:
    try:
        return (date.fromisoformat(text) - date(1970, 1, 1)).days * _DAY_MS
    except ValueError:
        raise ValueError(f"{text!r} is no day such as 2024-01-31") from None


async def _download(
    settings: Settings, request: _Request, output: Output
) -> dict[str, DownloadedFile]:
    refused = RefusedRows()

    def count(path: str, symbol: str, rejections: Sequence[Rejection]) -> None:
        if path == KLINE.path:
            refused.record(symbol, len(rejections))

    async with open_exchange(
        base_url=settings.kucoin.base_url,
        source=settings.kucoin.data_source,
        now=utc_now,
        monotonic=time.monotonic,
        sleep=asyncio.sleep,
        dice=SystemRandom(),
        limits=settings.kucoin.limits,
        on_answer=count,
    ) as opened:
        exchange = opened.patient(_PATIENCE_S)
        now_ms = await exchange.server_time_ms()
        contracts = choose_contracts((await exchange.contracts()).contracts, request.symbols)
        work = HistoryDownload(exchange, refused, request.begin_ms, request.end_ms, now_ms)
        return {
            name: await work.run(
                PartFolder(request.directory, interval),
                contracts,
                _Notes(name, output, time.monotonic).show,
            )
            for name, interval in request.intervals.items()
        }


def _store(settings: Settings, files: Mapping[str, DownloadedFile]) -> dict[str, int]:
    """Stores older bars in the database; returns the number of new bars by interval."""
    return {
        name: run_on_database(settings, partial(store_older_bars, folder=one.folder))
        for name, one in files.items()
    }


@dataclass(slots=True)
class _Notes:
    """Progress of one file as lines on stderr: the first, the last, and one every few seconds."""

    name: str
    output: Output
    monotonic: Callable[[], float]
    _began: float | None = field(default=None, init=False)
    _next: float = field(default=0.0, init=False)

    def show(self, done: int, total: int) -> None:
        now = self.monotonic()
        if self._began is None:
            self._began = now
        elif now < self._next and done < total:
            return
        self._next = now + _NOTE_EVERY_S
        left = time_left_s(done, total, now - self._began)
        text = "time left unknown" if left is None else f"about {left:.0f} s left"
        line = f"{done} of {total} windows, {text}" if total else "nothing is missing"
        self.output.notes.print(f"{self.name}: {line}", markup=False)


def _print_files(
    files: Mapping[str, DownloadedFile], stored: Mapping[str, int], output: Output
) -> None:
    if output.as_json:
        items = [_document(name, one, stored.get(name)) for name, one in files.items()]
        output.print_document({"files": items})
        return
    for name, one in files.items():
        faulty = [row for row in one.coverage if row.missing or row.refused or not row.bars]
        if faulty:
            rows = [_row(row) for row in faulty]
            output.console.print(create_table(f"{name}: incomplete symbols", _COLUMNS, rows))
        for code, error in one.failures.items():
            output.console.print(f"{code} failed: {error.code}: {error.detail}", markup=False)
        totals = _totals(one)
        output.console.print(
            f"{one.folder.output}: {totals['symbols']} symbols, {totals['bars']} bars,"
            f" {totals['missing']} missing, {totals['refused']} refused,"
            f" {totals['without_data']} symbols without data",
            markup=False,
            soft_wrap=True,
        )
        if name in stored:
            output.console.print(f"database: {stored[name]} new bars of {name}", markup=False)


def _totals(one: DownloadedFile) -> dict[str, int]:
    return {
        "symbols": len(one.coverage),
        "bars": sum(row.bars for row in one.coverage),
        "missing": sum(row.missing for row in one.coverage),
        "refused": sum(row.refused for row in one.coverage),
        "without_data": sum(not row.bars for row in one.coverage),
    }


def _row(one: SymbolCoverage) -> tuple[object, ...]:
    shown = [f"{_time(first)} to {_time(last)}" for first, last in one.gaps[:_GAPS_SHOWN]]
    more = len(one.gaps) - len(shown)
    gaps = "; ".join([*shown, *([f"{more} more"] if more else [])])
    first, last = _time(one.first_ms), _time(one.last_ms)
    return (one.symbol, one.bars, first, last, one.missing, one.refused, gaps)


def _document(name: str, one: DownloadedFile, stored: int | None) -> dict[str, Any]:
    return {
        "interval": name,
        "path": str(one.folder.output),
        **_totals(one),
        "stored_in_database": stored,
        "failed": [
            {"code": code, "error": error.code.value, "detail": error.detail}
            for code, error in one.failures.items()
        ],
        "items": [
            {
                "symbol": row.symbol,
                "code": row.code,
                "bars": row.bars,
                "first": _time(row.first_ms),
                "last": _time(row.last_ms),
                "missing": row.missing,
                "refused": row.refused,
                "gaps": [{"first": _time(a), "last": _time(b)} for a, b in row.gaps],
            }
            for row in one.coverage
        ],
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%MZ}"


def _usage(detail: str) -> CommandError:
    return CommandError(ExitCode.USAGE, "invalid_argument", detail)
