"""Local exchange: clock, market, funding, books, contracts, limits and faults."""

from collections.abc import Callable
from datetime import UTC, datetime

from app.sandbox.history.bars import DailyHistory
from app.sandbox.history.replay import replayed_history
from app.sandbox.history.synthetic import synthetic_history
from app.sandbox.history.universe import DAY_MS
from app.sandbox.http.faults import FaultBoard
from app.sandbox.http.rate_limit import PublicPool
from app.sandbox.http.responses import ResponseBody
from app.sandbox.market.contracts import Contracts
from app.sandbox.market.funding import FundingBook
from app.sandbox.market.order_books import OrderBooks
from app.sandbox.market.price_path import SimulatedMarket
from app.sandbox.options import SandboxOptions


class ExchangeClock:
    """Exchange time from a real clock, with an offset and a speed."""

    def __init__(self, clock: Callable[[], float], start_ms: int | None, speed: float) -> None:
        self._clock = clock
        self._real = clock()
        self._base_ms = float(start_ms if start_ms is not None else int(self._real * 1000))
        self.speed = speed

    def now_ms(self) -> int:
        """The exchange's time in milliseconds."""
        return int(self._base_ms + (self._clock() - self._real) * 1000.0 * self.speed)

    def set(self, now_ms: float | None = None, speed: float | None = None) -> None:
        """Jump to a time and/or change the speed from now on."""
        base = float(self.now_ms()) if now_ms is None else now_ms
        self._real = self._clock()
        self._base_ms = base
        if speed is not None:
            self.speed = speed


class LocalExchange:
    """State that the routes serve; built once per application."""

    def __init__(
        self,
        options: SandboxOptions,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.options = options
        history = load_history(options, int(clock() * 1000))
        # Generating the market takes a second: a clock set to its start would lag by that.
        is_now = options.now_ms is None and options.replay is None
        self.clock = ExchangeClock(clock, None if is_now else history.start_ms, options.speed)
        self.market = SimulatedMarket(history, options.seed)
        tomorrow = history.start_ms // DAY_MS + 1
        for day in range(max(tomorrow - options.ready_days, history.first_day), tomorrow):
            self.market.hours(day)
        self.funding = FundingBook(self.market)
        self.books = OrderBooks(self.market)
        self.contracts = Contracts(self.market, self.funding, self.books)
        self.pool = PublicPool(options.quota, monotonic)
        self.faults = FaultBoard()
        self._active: tuple[float, ResponseBody] | None = None
        self.monotonic = monotonic

    def forget_answers(self) -> None:
        """Drop cached answers after a manual change."""
        self._active = None

    def active_body(self) -> ResponseBody:
        """Body of contracts/active, cached for a fifth of a real second."""
        real = self.monotonic()
        if self._active is not None and real - self._active[0] < 0.2:
            return self._active[1]
        now_ms = self.clock.now_ms()
        parts = self.contracts.encoded(now_ms, self.contracts.active(now_ms))
        body = ResponseBody(b'{"code":"200000","data":[' + b",".join(parts) + b"]}")
        self._active = (real, body)
        return body

    @property
    def is_over(self) -> bool:
        """True if the known future is used up."""
        return self.clock.now_ms() >= self.market.end_ms


def load_history(options: SandboxOptions, clock_ms: int) -> DailyHistory:
    """Generate the market, or replay the given file."""
    if options.replay is None:
        start = options.now_ms if options.now_ms is not None else clock_ms
        return synthetic_history(options.seed, start, options.contracts)
    day = None
    if options.replay_from is not None:
        parsed = datetime.fromisoformat(options.replay_from).replace(tzinfo=UTC)
        day = int(parsed.timestamp() * 1000) // DAY_MS
    return replayed_history(options.replay, day, options.seed, options.contracts)
