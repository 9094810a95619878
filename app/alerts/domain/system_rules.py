"""Alert rules about the service and its exchange; many affected symbols give one alert."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from app.alerts.domain.facts import Facts
from app.alerts.domain.models import RuleReading
from app.configuration.domain.model import Configuration
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code
from app.market.domain.models import LinkState
from app.security.domain.bursts import EVERY_ADDRESS, HOLD

EXCHANGE: Final = "exchange"
REPLICAS: Final = "replicas"
MARKET: Final = "market"
# A sandbox exchange may run on simulated time; a larger offset is no clock skew.
MAX_SANDBOX_OFFSET: Final = timedelta(hours=1)
_MAX_NAMED: Final = 5  # symbols that a message names


def exchange_banned(facts: Facts, _: Configuration) -> Sequence[RuleReading] | None:
    """The exchange has banned this address; one alert for all affected requests."""
    link = facts.system.link
    if link is None or link.state is LinkState.UNTRIED:
        return None
    banned = link.cause == Code.EXCHANGE_BANNED
    message = "The exchange has blocked this address; requests stop until the ban ends."
    return [RuleReading(EXCHANGE, message, holds=banned)]


def exchange_disconnected(facts: Facts, _: Configuration) -> Sequence[RuleReading] | None:
    """The exchange does not answer; a ban has its own rule."""
    link = facts.system.link
    if link is None or link.state is LinkState.UNTRIED:
        return None
    down = link.state is LinkState.DOWN and link.cause != Code.EXCHANGE_BANNED
    return [RuleReading(EXCHANGE, f"The exchange does not answer: {link.detail}.", holds=down)]


def redirect_refused(facts: Facts, _: Configuration) -> Sequence[RuleReading]:
    """An endpoint redirects to another address; redirects are never followed."""
    return [
        RuleReading(path, f"{path} redirects to another address; it is not followed.", holds=True)
        for path in facts.system.redirected
    ]


def universe_anomaly(facts: Facts, _: Configuration) -> Sequence[RuleReading] | None:
    """The newest list of contracts is implausible and not applied."""
    if not facts.system.universe_known:
        return None
    reason = facts.system.anomaly
    message = f"The list of contracts is not applied until it is confirmed: {reason}."
    return [RuleReading(EXCHANGE, message, holds=reason is not None)]


def schema_drift(facts: Facts, _: Configuration) -> Sequence[RuleReading]:
    """Records of the exchange failed validation; `value` counts them."""
    return [
        RuleReading(
            f"{one.endpoint}:{one.field}",
            f"{one.count} records of {one.endpoint} are refused for {one.field} ({one.reason})"
            f"{_list_symbols(one.symbols)}.",
            one.symbols,
            float(one.count),
            holds=True,
        )
        for one in facts.system.refused
    ]


def unknown_contract_status(facts: Facts, _: Configuration) -> Sequence[RuleReading] | None:
    """Contracts have an unknown status; they are not traded."""
    if not facts.system.universe_known:
        return None
    odd = facts.system.odd_status
    names = _list_symbols(odd)
    message = f"{len(odd)} contracts have an unknown status{names}; they are not traded."
    count = float(len(odd)) if odd else None
    return [RuleReading(EXCHANGE, message, odd, count, holds=bool(odd))]


def data_stale(facts: Facts, _: Configuration) -> Sequence[RuleReading] | None:
    """Market data as a whole and of each member is stale, after the first fill."""
    status = facts.system.data_status
    if status is None:
        return None
    whole = RuleReading(
        MARKET,
        f"The market data is {status.value}: decisions wait until it is fresh.",
        holds=status is not DataStatus.FRESH,
    )
    # Stale data of the whole market makes alerts of members redundant.
    members = [
        RuleReading(
            one.symbol,
            f"The market data of {one.symbol} is stale: its weight may not grow.",
            (one.symbol,),
            holds=one.is_fresh is False and status is DataStatus.FRESH,
        )
        for one in facts.portfolio.members
    ]
    return [whole, *members]


def clock_offset(facts: Facts, _: Configuration) -> Sequence[RuleReading]:
    """Lower bound of the offset to the exchange's clock, in seconds."""
    system = facts.system
    offset = system.clock_offset_s
    if offset is not None and offset > MAX_SANDBOX_OFFSET.total_seconds():
        offset = None if system.data_source is DataSource.SANDBOX else offset
    value = None if offset is None else round(offset, 1)
    return [
        RuleReading(
            "clock", f"Our clock and the exchange's are {value} s apart or more.", value=value
        )
    ]


def job_late(facts: Facts, _: Configuration) -> Sequence[RuleReading]:
    """Intervals since the last success of each background task."""
    return [
        RuleReading(one.name, f"{one.name} is {one.late} intervals old.", value=one.late)
        for one in facts.system.jobs
    ]


def job_failing(facts: Facts, _: Configuration) -> Sequence[RuleReading]:
    """Consecutive failures of each background task."""
    return [
        RuleReading(
            one.name,
            f"{one.name} has failed {one.failures} times in a row: {one.last_error}.",
            value=float(one.failures),
        )
        for one in facts.system.jobs
    ]


def config_drift(facts: Facts, _: Configuration) -> Sequence[RuleReading] | None:
    """Processes on the same database run with different code or settings."""
    drifted = facts.system.drifted
    if drifted is None:
        return None
    named = ", ".join(drifted)
    message = f"Other code or other settings than here: {named}."
    return [RuleReading(REPLICAS, message, value=float(len(drifted)), holds=bool(drifted))]


def authentication_burst(facts: Facts, _: Configuration) -> Sequence[RuleReading]:
    """Failed authentications within a minute, per address or in all; a burst is over after HOLD."""
    return [
        RuleReading(
            burst.subject,
            f"{burst.failures} or more authentications failed within a minute from"
            f" {'several addresses' if burst.subject == EVERY_ADDRESS else burst.subject}.",
            value=float(burst.failures),
        )
        for burst in facts.system.bursts
        if facts.at - burst.occurred_at < HOLD
    ]


def _list_symbols(symbols: tuple[str, ...]) -> str:
    if not symbols:
        return ""
    more = "" if len(symbols) <= _MAX_NAMED else f" and {len(symbols) - _MAX_NAMED} more"
    return f": {', '.join(symbols[:_MAX_NAMED])}{more}"
