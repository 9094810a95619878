"""One local exchange: clock, market, funding, books, rendering, limits and faults together."""

from collections.abc import Callable
from datetime import UTC, datetime

from app.sandbox.answers import Payload
from app.sandbox.books import Books
from app.sandbox.clock import ExchangeClock
from app.sandbox.contracts import Contracts
from app.sandbox.faults import FaultBoard
from app.sandbox.funding import FundingBook
from app.sandbox.history import History
from app.sandbox.limits import PublicPool
from app.sandbox.market import Market
from app.sandbox.options import SandboxOptions
from app.sandbox.replay import replayed_history
from app.sandbox.synthetic import synthetic_history
from app.sandbox.universe import DAY_MS


class Exchange:
    """What the routes serve from; built once per application."""

    def __init__(
        self,
        options: SandboxOptions,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.options = options
        history = load_history(options, int(clock() * 1000))
        # Making the market takes a second: a clock set to its beginning would be behind by that.
        is_now = options.now_ms is None and options.replay is None
        self.clock = ExchangeClock(clock, None if is_now else history.start_ms, options.speed)
        self.market = Market(history, options.seed)
        tomorrow = history.start_ms // DAY_MS + 1
        for day in range(max(tomorrow - options.ready_days, history.first_day), tomorrow):
            self.market.hours(day)
        self.funding = FundingBook(self.market)
        self.books = Books(self.market)
        self.contracts = Contracts(self.market, self.funding, self.books)
        self.pool = PublicPool(options.quota, monotonic)
        self.faults = FaultBoard()
        self._active: tuple[float, Payload] | None = None
        self.monotonic = monotonic

    def forget_answers(self) -> None:
        """Drop rendered answers after something was changed by hand."""
        self._active = None

    def active_body(self) -> Payload:
        """The body of contracts/active; the same for a fifth of a real second, as if cached."""
        real = self.monotonic()
        if self._active is not None and real - self._active[0] < 0.2:
            return self._active[1]
        now_ms = self.clock.now_ms()
        parts = self.contracts.encoded(now_ms, self.contracts.active(now_ms))
        body = Payload(b'{"code":"200000","data":[' + b",".join(parts) + b"]}")
        self._active = (real, body)
        return body

    @property
    def over(self) -> bool:
        """Whether the known future is used up."""
        return self.clock.now_ms() >= self.market.end_ms


def load_history(options: SandboxOptions, clock_ms: int) -> History:
    """The invented market, or the replayed one when a file is given."""
    if options.replay is None:
        start = options.now_ms if options.now_ms is not None else clock_ms
        return synthetic_history(options.seed, start, options.contracts)
    day = None
    if options.replay_from is not None:
        parsed = datetime.fromisoformat(options.replay_from).replace(tzinfo=UTC)
        day = int(parsed.timestamp() * 1000) // DAY_MS
    return replayed_history(options.replay, day, options.seed, options.contracts)
