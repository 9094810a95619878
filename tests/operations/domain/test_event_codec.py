"""Events survive being stored, and none is forgotten."""

import json
from dataclasses import asdict, is_dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from app.alerts.domain.events import AlertRaised, AlertResolved
from app.alerts.domain.models import AlertRule, Resolution
from app.configuration.domain.events import ConfigurationChanged
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Severity
from app.foundation import events
from app.foundation.data_status import DataSource
from app.foundation.events import (
    EventDraft,
    EventKind,
    EventRecord,
    EventTopic,
    JobChange,
    JobChanged,
    ValueCodec,
)
from app.foundation.jobs import JobState
from app.market.domain.events import ModeChanged, SectorsChanged
from app.market.domain.sectors import AssetClass, CapCategory, Classification, SectorChange
from app.operations.domain.event_codec import CODEC, NOT_STORED, decode_event, encode_event
from app.operations.services.event_messages import event_envelope
from app.portfolio.domain.events import (
    ChangeEntry,
    MemberWeights,
    PlanCreated,
    PortfolioChanged,
    ProposalDecided,
    ProposalOpened,
    ProposedWeight,
)
from app.scoring.domain.board import Board, Card, CardStatus
from app.scoring.domain.events import ScoreChanged, ScoresUpdated, score_changes
from app.security.domain.events import (
    ApiKeyChanged,
    AuthenticationBurst,
    KeyChange,
    SessionChange,
    SessionChanged,
    UserChange,
    UserChanged,
)
from app.signals.domain.events import SignalChanged

T0 = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
SCORE = ScoreChanged("run", "BTCUSDT", 0.1 + 0.2, None, 3, T0)

# One of each; a new event belongs here as well.
EXAMPLES: tuple[object, ...] = (
    SCORE,
    ScoresUpdated("run", T0, 250, 306, 0.1, T0),
    PortfolioChanged(7, 12, "REPLACE", "BTCUSDT", T0, "ETHUSDT", "because", "operator"),
    PortfolioChanged(
        8,
        13,
        "REBALANCE",
        None,
        T0,
        run_id="run",
        proposal_id="p",
        old_cash_u=100_000_000,
        cash_u=1,
        members=(
            MemberWeights("BTCUSDT", "XBTUSDTM", 1, None, 99_999_999, "new"),
            MemberWeights("ETHUSDT", "ETHUSDTM", None, 5_000_000, None),
        ),
        entries=(ChangeEntry(13, "REBALANCE", None, None, "drift"),),
    ),
    PlanCreated("run", 7, 3, T0),
    ProposalOpened("p", "replacement", "BTCUSDT", 7, T0 + timedelta(days=1), T0),
    ProposalOpened(
        "p",
        "rebalance",
        "portfolio",
        7,
        T0 + timedelta(days=1),
        T0,
        reason="drift",
        leaving="ETHUSDT",
        entering="BTCUSDT",
        weights=(ProposedWeight("BTCUSDT", 1, 2),),
    ),
    ProposalDecided("p", "rebalance", "portfolio", "declined", "operator", T0),
    SignalChanged(
        "s", "desk", "momentum", "BTCUSDT", "BUY", "approved", "APPROVE", 0.7, "likely", T0
    ),
    AlertRaised(
        "id", AlertRule.LOW_SCORE, "BTCUSDT", ("BTCUSDT",), Severity.WARNING, 0.4, 0.5, "low", T0
    ),
    AlertResolved(
        "id", AlertRule.JOB_LATE, "market", (), Severity.INFO, Resolution.CLEARED, None, "late", T0
    ),
    JobChanged(
        "scoring:1", "scoring", JobChange.ENDED, JobState.FAILED, "board", 0.5, "internal_error", T0
    ),
    ModeChanged("NORMAL", "FROZEN", "market_stale", 3, T0),
    SectorsChanged(
        2,
        (
            SectorChange("BTC", Classification(AssetClass.COIN, "layer1", CapCategory.LARGE), None),
            SectorChange(
                "XYZ",
                Classification(AssetClass.COIN, "unclassified", CapCategory.UNCLASSIFIED),
                Classification(AssetClass.STABLE, "stablecoin", CapCategory.MICRO),
            ),
        ),
        "why",
        "key:desk",
        T0,
    ),
    ConfigurationChanged(replace(Configuration(), version=4, max_portfolio_symbols=7), T0),
    ConfigurationChanged(Configuration(), T0, ("entry_score: 0.6 to 0.7",), "why", "user:ana"),
    ApiKeyChanged(
        "id", "engine", "mysym_0aB3dE9x", KeyChange.ROTATED, "trader", ("signals",), "key:boss", T0
    ),
    UserChanged("id", "ana", UserChange.DISABLED, "admin", ("live",), "user:boss", T0),
    SessionChanged("id", "user:ana", SessionChange.ENDED, "user:boss", T0),
    AuthenticationBurst("10.0.0.1", 11, T0),
)


APP = Path(events.__file__).parents[1]
PUBLISHERS = sorted(path.parents[1].name for path in APP.glob("*/domain/events.py"))


def _events() -> set[type]:
    """Event classes of all capabilities, without their parts and the forms of storage."""
    declared = [events, *(import_module(f"app.{name}.domain.events") for name in PUBLISHERS)]
    return {
        one
        for module in declared
        for one in vars(module).values()
        if isinstance(one, type) and is_dataclass(one) and one.__module__ == module.__name__
    } - {EventDraft, EventRecord, EventKind, ValueCodec, MemberWeights, ChangeEntry, ProposedWeight}


def test_every_event_has_a_place_in_the_table_and_an_example() -> None:
    stored = {kind.cls for kind in CODEC.kinds}
    assert stored | NOT_STORED == _events()
    assert not stored & NOT_STORED
    assert len({kind.type for kind in CODEC.kinds}) == len(CODEC.kinds)
    assert {type(one) for one in EXAMPLES} == stored


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda one: type(one).__name__)
def test_stored_events_are_read_back_unchanged(event: object) -> None:
    (draft,) = encode_event(event)
    stored = replace(draft, data=json.loads(json.dumps(draft.data, allow_nan=False)))
    assert decode_event(stored) == event
    assert draft.occurred_at == T0


def test_a_run_is_stored_symbol_by_symbol_and_then_as_a_whole() -> None:
    other = replace(SCORE, symbol="ETHUSDT", new_score=0.5)
    run = ScoresUpdated("run", T0, 2, 0, 0.1, T0, (SCORE, other))
    drafts = encode_event(run)
    assert [(one.topic, one.subject) for one in drafts] == [
        (EventTopic.SCORE_UPDATE, "BTCUSDT"),
        (EventTopic.SCORE_UPDATE, "ETHUSDT"),
        (EventTopic.SCORING_RUN, None),
    ]
    assert [decode_event(one) for one in drafts] == [SCORE, other, replace(run, changes=())]


def test_an_event_of_an_older_version_has_defaults_for_the_fields_that_it_lacks() -> None:
    stored = {
        "version": 7,
        "seq": 12,
        "type": "REPLACE",
        "symbol": "BTCUSDT",
        "occurred_at": "2026-03-04T05:06:07.000089Z",
        "other_symbol": "ETHUSDT",
        "reason": "because",
        "actor": "operator",
    }
    draft = EventDraft(EventTopic.PORTFOLIO_CHANGE, "portfolio_changed", "BTCUSDT", stored, T0)
    event = decode_event(draft)
    assert event == PortfolioChanged(
        7, 12, "REPLACE", "BTCUSDT", T0, "ETHUSDT", "because", "operator"
    )
    assert event.history == (ChangeEntry(12, "REPLACE", "BTCUSDT", "ETHUSDT", "because"),)
    message = event_envelope(EventRecord(**asdict(draft), seq=3))
    assert (message["data"]["details"]["members"], message["sequence"]) == ([], 3)
    with pytest.raises(KeyError):  # a field without a default is missing
        decode_event(replace(draft, data={"symbol": "BTCUSDT"}))


def test_unknown_events_are_not_stored() -> None:
    assert encode_event("anything") == ()
    with pytest.raises(LookupError, match="never_heard"):
        decode_event(EventDraft(EventTopic.ALERT, "never_heard", None, {}, T0))


def test_times_are_written_in_utc_and_numbers_exactly() -> None:
    east = T0.astimezone(timezone(timedelta(hours=5)))
    (draft,) = encode_event(replace(SCORE, calculated_at=east))
    assert draft.data["calculated_at"] == "2026-03-04T05:06:07.000089Z"
    assert draft.data["old_score"] == 0.1 + 0.2


@pytest.mark.parametrize(
    "wrong",
    [
        replace(SCORE, new_score=float("nan")),
        replace(SCORE, new_score=float("inf")),
        replace(SCORE, calculated_at=T0.replace(tzinfo=None)),
    ],
)
def test_values_without_a_json_form_are_refused(wrong: ScoreChanged) -> None:
    with pytest.raises(ValueError, match="event"):
        encode_event(wrong)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Decimal("1.10"), "1.10"),
        ([EventTopic.JOB, True], ["job", True]),
        ({"a": (1, None)}, {"a": [1, None]}),
    ],
)
def test_every_kind_of_value_has_one_form(value: Any, written: Any) -> None:
    (draft,) = encode_event(replace(SCORE, rank=value))
    assert draft.data["rank"] == written


def test_a_value_without_a_form_is_refused() -> None:
    with pytest.raises(TypeError, match="complex"):
        encode_event(replace(SCORE, rank=1j))  # type: ignore[arg-type]  # as a mistake would


def _card(symbol: str, score: float | None) -> Card:
    status = CardStatus.UNAVAILABLE if score is None else CardStatus.SCORED
    return Card(symbol, status, None, {}, score, None, None, 1, None, ())


def _board(run_id: str, **scores: float | None) -> Board:
    cards = tuple(_card(symbol, score) for symbol, score in scores.items())
    return Board(run_id, "a", 1, 1, T0, T0, 1.0, DataSource.SANDBOX, "h", len(cards), {}, cards)


def test_only_scores_that_differ_are_changes() -> None:
    before = _board("one", SAME=0.5, DOWN=0.5, GONE=0.4, SILENT=0.3, NEVER=None)
    after = _board("two", SAME=0.5, DOWN=0.25, SILENT=None, NEW=0.7, NEVER=None)
    found = {one.symbol: one for one in score_changes(before, after)}
    assert {name: (one.old_score, one.new_score, one.change) for name, one in found.items()} == {
        "DOWN": (0.5, 0.25, -0.25),
        "GONE": (0.4, None, None),
        "NEW": (None, 0.7, None),
        "SILENT": (0.3, None, None),
    }
    assert found["GONE"].rank is None
    assert {one.run_id for one in found.values()} == {"two"}
    assert len(score_changes(None, after)) == 3
