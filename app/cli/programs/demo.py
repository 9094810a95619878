"""Program of `my-symbols demo`: local exchange and service, up to a portfolio of ten."""

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from app.cli.client import Client
from app.cli.commands.portfolio import exact_decimal, format_sum, sum_weights
from app.cli.commands.watch import ServerEventReader, follow_events
from app.cli.exit_codes import CommandError, ExitCode, exit_code_of_error
from app.cli.output import MIN_ID_CHARS, Output, create_table, format_number, report_errors
from app.cli.programs.sandbox import (
    ExchangeOptions,
    parse_day,
    require_file,
    require_replay,
    run_exchange,
)
from app.cli.programs.service import Server, listening, run
from app.cli.programs.settings import read_settings
from app.foundation.data_status import DataSource
from app.foundation.sql.file_lock import DatabaseInUseError, DatabasePathError, FileLock
from app.foundation.sql.job_store import jobs_file
from app.settings import Settings

_FAMILIES: Final = ("technical_score", "fundamental_score", "market_structure_score", "risk_score")
_MEMBER_COLUMNS: Final = (
    "rank>", "symbol", "contract", "weight %>", "score>", "confidence>", "technical>",
    "fundamental>", "structure>", "risk>",
)  # fmt: skip
_FUNNEL_COLUMNS: Final = ("rule", "", "limit", "entered>", "failed>")
_REFUSAL_COLUMNS: Final = ("symbol", "score>", "reason", "against", "correlation>")
_MAX_REFUSALS: Final = 15
_MAX_CHANGES: Final = 5  # that one line names


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Responses of the service; `choice` is None if the portfolio already had members."""

    url: str
    portfolio: Mapping[str, Any]
    choice: Mapping[str, Any] | None
    rankings: Mapping[str, Any]
    run: Mapping[str, Any]
    funnel: Mapping[str, Any]
    usable_s: float | None  # from the start to the first complete board; None without one

    @property
    def scores(self) -> Sequence[Mapping[str, Any]]:
        """Scored lines of the board."""
        return [score for score in self.rankings["items"] if score["status"] == "scored"]

    @property
    def refusals(self) -> Sequence[Mapping[str, Any]]:
        """Candidates that were refused as members."""
        return list(self.choice["refused"]) if self.choice else []


def print_result(result: DemoResult, output: Output, seconds: float) -> None:
    """Prints one JSON document, or the tables."""
    if output.as_json:
        output.print_document(_create_document(result, seconds))
        return
    output.console.print(_create_members_table(result))
    output.console.print(format_sum(result.portfolio))
    output.console.print(_create_coverage_table(result.run))
    output.console.print(_format_spread(result.run))
    output.console.print(_create_funnel_table(result.funnel))
    output.console.print(_create_refusals(result))
    source, as_of = result.run["data_source"], result.run["as_of"]
    output.console.print(f"data of {source}, as of {as_of}; from start to table: {seconds:.1f} s")
    usable = "none yet" if result.usable_s is None else f"after {result.usable_s:.1f} s"
    output.console.print(f"first usable board: {usable}")


def _create_members_table(result: DemoResult) -> Table:
    scores = {score["symbol"]: score for score in result.scores}
    rows = []
    for member in result.portfolio["members"]:
        score = scores.get(member["symbol"], {})
        rows.append(
            (
                member["position_rank"],
                member["symbol"],
                member["contract"],
                format_number(member["weight_percentage"], 6),
                format_number(score.get("composite_score"), 4),
                format_number(score.get("confidence_level"), 2),
                *(format_number(score.get(family)) for family in _FAMILIES),
            )
        )
    return create_table("portfolio", _MEMBER_COLUMNS, rows)


def _create_coverage_table(run: Mapping[str, Any]) -> Table:
    rows = [(factor, f"{float(share):.1%}") for factor, share in run["coverage"].items()]
    title = "coverage of the eligible symbols, per factor"
    return create_table(title, ("factor", "covered>"), rows)


def _format_spread(run: Mapping[str, Any]) -> str:
    spread = run["score_spread"] or {}
    figures = (f"{name.replace('_', ' ')} {format_number(value)}" for name, value in spread.items())
    confidence = format_number(run["median_confidence"], 2)
    return (
        f"{run['scores_calculated']} scores: {', '.join(figures)}; median confidence {confidence}"
    )


def _create_funnel_table(funnel: Mapping[str, Any]) -> Table:
    rows = [
        (stage["name"], stage["title"], stage["limit"], stage["entered"], stage["failed"])
        for stage in funnel["stages"]
    ]
    title = f"funnel: {funnel['universe']} contracts, {funnel['eligible']} eligible"
    return create_table(title, _FUNNEL_COLUMNS, rows)


def _create_refusals(result: DemoResult) -> Table | str:
    refusals = result.refusals
    if not refusals:
        below = len(result.scores) - len(result.portfolio["members"])
        return f"refused candidates: none; {below} scored symbols rank below the members"
    counts = Counter(str(refusal["reason"]) for refusal in refusals)
    summary = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    rows = [
        (
            refusal["symbol"],
            format_number(refusal["score"], 4),
            refusal["reason"],
            refusal["conflicting_symbol"],
            format_number(refusal["correlation"]),
        )
        for refusal in refusals[:_MAX_REFUSALS]
    ]
    title = f"refused candidates: {summary} (the first {len(rows)} of {len(refusals)})"
    return create_table(title, _REFUSAL_COLUMNS, rows)


def _create_document(result: DemoResult, seconds: float) -> dict[str, Any]:
    cash = exact_decimal(result.portfolio["cash_percentage"])
    return {
        "url": result.url,
        "seconds": round(seconds, 3),
        "first_usable_board_seconds": result.usable_s,
        "portfolio": result.portfolio,
        "weights_and_cash": sum_weights(result.portfolio) + cash,
        "run": result.run,
        "funnel": result.funnel,
        "refused": result.refusals,
        "board": result.scores,
    }


# KuCoin allows 2000 per 30 s and address. At that pace the first fill (daily and hourly candles of
# about 500 contracts) takes minutes, so the exchange of the demo allows more.
DEMO_QUOTA: Final = 100_000
HOST: Final = "127.0.0.1"
_POLL_INTERVAL_S: Final = 0.2
_FILL_TIMEOUT_S: Final = 600.0
_MAX_SCORINGS: Final = 20  # until a board is complete
_SCORING_PAUSE_S: Final = 3.0
_COMPLETE: Final = "complete"
_NOTE_INTERVAL_S: Final = 2.0  # between two lines about one stage
_END_TIMEOUT_S: Final = 1.2  # after Ctrl-C; an unfinished transaction is undone by the database
_TOPICS: Final = "portfolio_change,rebalance,signal"


@dataclass(slots=True)
class DemoLog:
    """Lines on stderr with the seconds since the start, and the count of decisions."""

    output: Output
    started: float
    database: Path
    decisions: int = 0
    is_serving: bool = False
    _stage: str = ""
    _noted_s: float = 0.0

    def note(self, text: str) -> None:
        seconds = time.monotonic() - self.started
        self.output.notes.print(f"[{seconds:5.1f} s] {text}", markup=False, soft_wrap=True)

    def follow(self, stage: str, done: int, total: int) -> None:
        """Notes a new stage at once, and its progress every two seconds."""
        now = time.monotonic()
        if stage == self._stage and now - self._noted_s < _NOTE_INTERVAL_S:
            return
        self._stage, self._noted_s = stage, now
        count = f", {done} of {total}" if total else ""
        self.note(f"first fill: {stage.replace('_', ' ')}{count}")

    def close(self) -> None:
        """Prints the closing line."""
        word = "decision" if self.decisions == 1 else "decisions"
        self.note(f"demo ended after {self.decisions} {word}; its database is {self.database}")


def run_demo(
    *,
    seed: int,
    port: int,
    replay: Path | None,
    replay_from: str | None,
    contracts: int | None,
    database: Path,
    once: bool,
    as_json: bool,
    started: float,
) -> None:
    """Starts exchange and service, forms a portfolio, prints it, and serves until Ctrl-C.

    Lines on stderr show the progress since `started`, a monotonic time, and each decision.
    """
    with report_errors(as_json) as output:
        log = DemoLog(output, started, database)
        day = parse_day(replay_from)
        require_replay(replay, day)
        exchange = ExchangeOptions(seed, DEMO_QUOTA, require_file(replay), day, contracts)
        log.note("starting the local exchange")

        def on_wait() -> None:
            log.note("the local exchange is preparing its market")

        with listening(HOST, port) as listener, run_exchange(exchange, on_wait) as base_url:
            settings = _create_settings(base_url, database, port)
            # After port and exchange are ready: a demo that cannot start keeps the earlier data.
            delete_database(database)
            log.note(f"local exchange at {base_url}; starting the service")
            try:
                run(settings, listener, lambda server: _form_and_serve(server, log, once))
            finally:
                log.close()


async def _form_and_serve(server: Server, log: DemoLog, once: bool) -> None:
    server.on_interrupt = lambda: _end_in_time(server, log)
    result = await _form_portfolio(Client(server.url, is_anonymous=True), server, log)
    print_result(result, log.output, time.monotonic() - log.started)
    if once:
        return
    log.is_serving = True
    log.note(f"serving {server.url} (docs at {server.url}/docs); Ctrl-C ends the demo")
    async with asyncio.TaskGroup() as group:
        decisions = group.create_task(_follow_decisions(server, log))
        await server.ending.wait()
        decisions.cancel()


def _end_in_time(server: Server, log: DemoLog) -> None:
    """Ends the process soon after Ctrl-C, even if a task takes long to end."""

    def end() -> None:
        log.close()
        server.exit_process(ExitCode.OK if log.is_serving else ExitCode.INTERRUPTED)

    timer = threading.Timer(_END_TIMEOUT_S, end)
    timer.daemon = True
    timer.start()


async def _follow_decisions(server: Server, log: DemoLog) -> None:
    """Prints a line for each decision of the service."""
    reader = ServerEventReader(server.url, _TOPICS, None, uses_key=False)
    with suppress(CommandError):  # a stream that is refused does not end the demo
        async for message in follow_events(reader, lambda: None):
            line = describe_decision(message)
            if line is not None:
                log.decisions += 1
                log.note(line)


def describe_decision(message: Mapping[str, Any]) -> str | None:
    """Returns one line about an event of the stream; None if it is no decision."""
    if message["type"] != "event":
        return None
    data = message["data"]
    if message["topic"] == "portfolio_change":
        return _describe_change(data["type"], data["details"])
    if data["type"] == "proposal_opened":
        identity = data["proposal_id"][:MIN_ID_CHARS]
        advice = f"decide with `my-symbols portfolio approve {identity}` or `decline`"
        return f"proposal: {data['kind']} of {data['subject']}; {data['reason']}; {advice}"
    if data["type"] == "proposal_decided":
        return (
            f"proposal {data['state']} by {data['decided_by']}: {data['kind']} of {data['subject']}"
        )
    if message["topic"] == "signal" and data["evaluation"] is not None:
        subject = f"{data['type']} of {data['source']} for {data['symbol'] or 'the market'}"
        return f"signal {data['evaluation']}: {subject}; {data['reason']}"
    return None


def _describe_change(kind: str, details: Mapping[str, Any]) -> str:
    changes = [
        " ".join(text for text in (one["type"], one["symbol"], _replaced(one)) if text)
        for one in details["history"]
    ]
    moved = sum(
        one["old_weight_percentage"] != one["new_weight_percentage"] for one in details["members"]
    )
    weights = f"; {moved} weights changed" if moved else ""
    named = ", ".join(changes[:_MAX_CHANGES]) or kind
    more = f" and {len(changes) - _MAX_CHANGES} more" if len(changes) > _MAX_CHANGES else ""
    return f"version {details['version']}: {named}{more}{weights}; {details['reason']}"


def _replaced(entry: Mapping[str, Any]) -> str:
    return "" if entry["other_symbol"] is None else f"for {entry['other_symbol']}"


def _create_settings(base_url: str, database: Path, port: int) -> Settings:
    log_level = None if "MYSYMBOLS_LOG__LEVEL" in os.environ else "error"
    settings = read_settings(
        {
            "kucoin": {
                "base_url": base_url,
                "source": DataSource.SANDBOX,
                "quota_per_window": DEMO_QUOTA,
            },
            # On a busy machine a change may wait for a write of candles of the whole market.
            "database": {"url": f"sqlite+aiosqlite:///{database}", "pool_wait_s": 60.0},
            "http": {"host": HOST, "port": port},
            "log": {"level": log_level, "form": "console"},
        }
    )
    # The demo speaks plain HTTP on loopback, whatever the environment says.
    plain = {"tls_certificate": None, "tls_key": None, "tls_key_password_file": None}
    return settings.model_copy(update={"http": settings.http.model_copy(update=plain)})


def delete_database(database: Path) -> None:
    """Deletes the database of an earlier demo: data of two markets must not mix.

    Raises CommandError and deletes nothing while another process has the file, or if no file can
    be created there.
    """
    try:
        lock = FileLock.acquire(str(database))
    except DatabaseInUseError as error:
        raise CommandError(
            ExitCode.CONFIGURATION,
            "database_in_use",
            f"{error.detail}, by `--database`. It was left unchanged.",
        ) from None
    except DatabasePathError as error:
        raise CommandError(exit_code_of_error(error), error.code, error.detail) from None
    # The service takes the lock again. Another demo that takes it in between may also delete the
    # file, but never while it is open: the later process is refused.
    try:
        for name in (database.name, jobs_file(database).name):
            for suffix in ("", "-wal", "-shm"):
                database.with_name(name + suffix).unlink(missing_ok=True)
    finally:
        lock.release()


async def _form_portfolio(client: Client, server: Server, log: DemoLog) -> DemoResult:
    log.note(f"service at {server.url}")
    await _wait_for_fill(client, server, log)
    log.note("scoring the market")
    run_id, usable_s = await _score_until_complete(client, log.started)
    log.note("choosing the members")
    portfolio = await client.get("/portfolio")
    choice: Any = None
    if not portfolio.document["members"]:
        choice = (await client.post("/portfolio/initialize")).document
        portfolio = await client.get("/portfolio")
    return DemoResult(
        url=server.url,
        portfolio=portfolio.document,
        choice=choice,
        rankings=(await client.get("/scoring/rankings", limit=1000)).document,
        run=(await client.get(f"/scoring/runs/{run_id}")).document,
        funnel=(await client.get("/universe/funnel")).document,
        usable_s=usable_s,
    )


async def _score_until_complete(client: Client, started: float) -> tuple[str, float | None]:
    """Returns the newest run, and the seconds from `started` to the first complete board.

    Simultaneous calls share one run. The first call may join a run that began before the last
    candle arrived; the second cannot.
    """
    usable_s: float | None = None
    for attempt in range(_MAX_SCORINGS):
        board = (await client.post("/scoring/calculate")).document
        if not board["is_provisional"] and usable_s is None:
            usable_s = time.monotonic() - started
        if attempt and usable_s is not None:
            break
        if board["is_provisional"]:
            await asyncio.sleep(_SCORING_PAUSE_S)
    return board["run_id"], usable_s


async def _wait_for_fill(client: Client, server: Server, log: DemoLog) -> None:
    """Follows the first fill by stages. Raises CommandError on timeout or shutdown."""
    try:
        async with asyncio.timeout(_FILL_TIMEOUT_S):
            while not server.should_exit:
                feed = (await client.get("/status")).document["feed"]
                if feed["stage"] == _COMPLETE:
                    return
                log.follow(feed["stage"], feed["done"], feed["total"])
                await asyncio.sleep(_POLL_INTERVAL_S)
    except TimeoutError:
        raise CommandError(
            ExitCode.UNAVAILABLE,
            "fill_too_slow",
            f"The first fill took over {_FILL_TIMEOUT_S:.0f} s.",
        ) from None
    raise CommandError(ExitCode.INTERRUPTED, "interrupted", "Stopped before the first board.")
