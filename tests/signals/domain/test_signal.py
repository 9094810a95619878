"""The life of a signal: what is not in the table cannot happen."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from app.configuration.domain.sections import SignalSettings
from app.foundation.errors import Code, ConflictError, RefusedError
from app.signals.domain.consensus import reach_consensus
from app.signals.domain.evaluated_signal import with_consensus, without_consensus
from app.signals.domain.models import (
    NEXT,
    Direction,
    Signal,
    SignalClaim,
    SignalState,
    receive_signal,
)
from app.signals.domain.outcomes import OutcomeWindow, SignalOutcome
from tests.support.signal_features import evidence

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULES = SignalSettings()
CLAIM = SignalClaim("desk", "momentum", 0.8, 0.9, "BTCUSDT", Direction.BUY)
S = SignalState
DRAWN = {
    S.RECEIVED: {S.VALIDATED, S.REJECTED},
    S.VALIDATED: {S.EVALUATING, S.EXPIRED},
    S.EVALUATING: {S.APPROVED, S.REJECTED, S.EXPIRED, S.FAILED},
    S.APPROVED: {S.APPLIED, S.EXPIRED},
    S.FAILED: {S.VALIDATED, S.EXPIRED},
}

WINDOW = OutcomeWindow.after(NOW, timedelta(days=1))


def claim(**changed: object) -> SignalClaim:
    given = {name: getattr(CLAIM, name) for name in CLAIM.__dataclass_fields__}
    return SignalClaim(**{**given, **changed})


def signal(state: SignalState) -> Signal:
    return Signal("s", CLAIM, state, NOW, NOW + timedelta(hours=1))


def test_only_the_ways_of_the_table_lead_on() -> None:
    for old, new in product(S, S):
        if new in DRAWN.get(old, set()):
            assert signal(old).transition_to(new).state is new
            continue
        with pytest.raises(ConflictError) as caught:
            signal(old).transition_to(new)
        assert caught.value.code is Code.INVALID_STATE_TRANSITION
    assert NEXT[S.APPLIED] == NEXT[S.REJECTED] == NEXT[S.EXPIRED] == frozenset()


def test_a_sound_signal_waits_for_a_day_unless_its_source_says_otherwise() -> None:
    came = receive_signal("s", CLAIM, NOW, RULES)
    assert (came.state, came.expires_at) == (S.VALIDATED, NOW + timedelta(days=1))
    said = NOW - timedelta(hours=2)
    assert receive_signal("s", claim(claimed_at=said), NOW, RULES).expires_at == said + timedelta(
        days=1
    )
    ends = NOW + timedelta(seconds=1)
    assert receive_signal("s", claim(expires_at=ends), NOW, RULES).expires_at == ends


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"strength": 0.49}, "strength 0.49 is below 0.5"),
        ({"confidence": 0.49}, "confidence 0.49 is below 0.5"),
        ({"symbol": None}, "no symbol"),
    ],
)
def test_the_thresholds_are_applied(changed: dict[str, object], said: str) -> None:
    came = receive_signal("s", claim(**changed), NOW, RULES)
    assert (came.state, came.completed_at) == (S.REJECTED, NOW)
    assert said in (came.reason or "")
    lower = SignalSettings(min_strength=0.4, min_confidence=0.4)
    expected = S.REJECTED if changed.get("symbol", 0) is None else S.VALIDATED
    assert receive_signal("s", claim(**changed), NOW, lower).state is expected


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"expires_at": NOW}, Code.SIGNAL_EXPIRED),
        ({"claimed_at": NOW - timedelta(days=2)}, Code.SIGNAL_EXPIRED),
        ({"claimed_at": NOW + timedelta(seconds=6)}, Code.VALIDATION_FAILED),
        ({"claimed_at": NOW, "expires_at": NOW - timedelta(hours=1)}, Code.VALIDATION_FAILED),
    ],
)
def test_I23_expired_and_future_signals_are_refused(changed: dict[str, object], code: Code) -> None:
    with pytest.raises(RefusedError) as caught:
        receive_signal("s", claim(**changed), NOW, RULES)
    assert caught.value.code is code


def test_what_waits_ends_at_its_time_and_not_before() -> None:
    waits = signal(S.VALIDATED)
    assert waits.expire_if_due(waits.expires_at - timedelta(microseconds=1)) is waits
    over = waits.expire_if_due(waits.expires_at + timedelta(days=1))
    assert (over.state, over.completed_at) == (S.EXPIRED, waits.expires_at)
    done = signal(S.REJECTED)
    assert done.expire_if_due(done.expires_at) is done


def test_a_verdict_settles_a_signal_and_a_failed_one_can_be_tried_again() -> None:
    waits = signal(S.VALIDATED)
    yes = with_consensus(
        waits, reach_consensus(Direction.BUY, evidence(), RULES), "board", 1, WINDOW, NOW
    )
    assert (yes.signal.state, yes.signal.attempts, yes.signal.completed_at) == (S.APPROVED, 1, NOW)
    no = with_consensus(
        waits, reach_consensus(Direction.SELL, evidence(), RULES), "board", 1, WINDOW, NOW
    )
    assert no.signal.state is S.REJECTED
    blind = evidence(volatility=None, impact=None)
    nobody = with_consensus(
        waits, reach_consensus(Direction.BUY, blind, RULES), "board", 1, WINDOW, NOW
    )
    assert nobody.signal.state is S.FAILED
    assert yes.outcome == no.outcome == SignalOutcome(WINDOW)
    assert nobody.outcome is None, "it is tried again"
    again = without_consensus(nobody.signal.requeue(), "not on the board", NOW).signal
    assert (again.state, again.attempts, again.reason) == (S.FAILED, 2, "not on the board")
    with pytest.raises(ConflictError):
        with_consensus(
            yes.signal, reach_consensus(Direction.BUY, evidence(), RULES), "board", 1, WINDOW, NOW
        )
