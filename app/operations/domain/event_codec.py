"""Table of all stored events and their codec."""

from typing import Final

from app.alerts.domain import events as alerts
from app.configuration.domain import events as configuration
from app.foundation.events import JOB_EVENTS, EventCodec
from app.market.domain import events as market
from app.portfolio.domain import events as portfolio
from app.scoring.domain import events as scoring
from app.security.domain import events as security
from app.signals.domain import events as signals

CODEC: Final = EventCodec(
    (
        *scoring.EVENTS,
        *portfolio.EVENTS,
        *signals.EVENTS,
        *configuration.EVENTS,
        *alerts.EVENTS,
        *JOB_EVENTS,
        *market.EVENTS,
        *security.EVENTS,
    ),
    configuration.FORMS,
)
# A new event class needs an entry in EVENTS of its capability or here; a test checks it.
NOT_STORED: Final[frozenset[type]] = frozenset({signals.SignalOutcomesBooked})  # metrics only
encode_event = CODEC.encode
decode_event = CODEC.decode
try_decode_event = CODEC.try_decode
