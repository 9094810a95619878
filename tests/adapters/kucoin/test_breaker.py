"""R09 in small: when the breaker opens, how it probes, and what makes it forget."""

from app.adapters.kucoin.limiter import KucoinLimits
from app.adapters.kucoin.rest import CircuitBreaker
from app.settings import KucoinVariables
from tests.adapters.kucoin.harness import VirtualTime


def breaker_of(time: VirtualTime) -> CircuitBreaker:
    return CircuitBreaker(KucoinLimits(), monotonic=time.monotonic)


def ask(breaker: CircuitBreaker, *, well: bool) -> None:
    probe = breaker.enter()
    if well:
        breaker.success(probe)
    else:
        breaker.failure(probe)


def test_R09_five_in_a_row_open_it() -> None:
    breaker = breaker_of(VirtualTime())
    for _ in range(4):
        ask(breaker, well=False)
    assert breaker.wait() == 0
    ask(breaker, well=False)
    assert breaker.wait() == 15


def test_R09_threshold_and_probe_time_are_settings() -> None:
    time = VirtualTime()
    limits = KucoinVariables(breaker_failures=2, breaker_probe_s=300).limits
    breaker = CircuitBreaker(limits, monotonic=time.monotonic)
    ask(breaker, well=False)
    assert breaker.wait() == 0
    ask(breaker, well=False)
    assert breaker.wait() == 300
    time.advance(300)
    assert breaker.wait() == 0
    ask(breaker, well=False)
    assert breaker.wait() == 300, "a failed probe"


def test_R09_a_success_ends_the_row() -> None:
    time = VirtualTime()
    breaker = breaker_of(time)
    for _ in range(30):  # four failures in a minute, again and again, for a lifetime
        for _ in range(4):
            ask(breaker, well=False)
        for _ in range(5):
            ask(breaker, well=True)
        time.advance(60)
    assert breaker.wait() == 0


def test_R09_half_of_twenty_within_thirty_seconds_open_it() -> None:
    breaker = breaker_of(VirtualTime())
    for turn in range(19):
        ask(breaker, well=bool(turn % 2))
    assert breaker.wait() == 0
    ask(breaker, well=True)
    assert breaker.wait() == 0  # a success does not open it
    ask(breaker, well=False)
    assert breaker.wait() == 15


def test_R09_less_than_half_leaves_it_closed() -> None:
    breaker = breaker_of(VirtualTime())
    for turn in range(100):
        ask(breaker, well=turn % 5 > 1)
    assert breaker.wait() == 0


def test_R09_what_is_older_than_the_window_does_not_count() -> None:
    time = VirtualTime()
    breaker = breaker_of(time)
    for turn in range(19):
        ask(breaker, well=bool(turn % 2))
    time.advance(30)
    ask(breaker, well=True)
    ask(breaker, well=False)
    assert breaker.wait() == 0


def test_R09_one_probe_every_fifteen_seconds() -> None:
    time = VirtualTime()
    breaker = breaker_of(time)
    for _ in range(5):
        ask(breaker, well=False)
    time.advance(15)
    assert breaker.wait() == 0
    assert breaker.enter()
    assert breaker.wait() > 0  # the second caller waits for the first one's answer
    breaker.failure(True)
    assert breaker.wait() == 15
    time.advance(15)
    assert breaker.enter()
    breaker.success(True)
    assert breaker.wait() == 0
    assert not breaker.enter()


def test_R09_the_success_of_a_probe_forgets_the_past() -> None:
    time = VirtualTime()
    breaker = breaker_of(time)
    for _ in range(5):
        ask(breaker, well=False)
    for _ in range(14):
        breaker.failure(False)  # requests that were in flight when it opened
    time.advance(15)
    ask(breaker, well=True)
    ask(breaker, well=False)
    assert breaker.wait() == 0


def test_R09_late_failures_do_not_put_off_the_probe() -> None:
    time = VirtualTime()
    breaker = breaker_of(time)
    for _ in range(5):
        ask(breaker, well=False)
    time.advance(10)
    breaker.failure(False)
    assert breaker.wait() == 5


def test_R09_a_late_success_does_not_close_it() -> None:
    time = VirtualTime()
    breaker = breaker_of(time)
    for _ in range(5):
        ask(breaker, well=False)
    breaker.success(False)
    assert breaker.wait() == 15
