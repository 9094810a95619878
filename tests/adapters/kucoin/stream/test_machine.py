"""The connections of the stream in virtual time, whatever the exchange does; exact from a seed."""

import itertools
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from app.adapters.kucoin.limiter import KucoinLimits
from app.adapters.kucoin.stream.protocol import HOUR_S, Control, Send, StreamLimits
from app.market.domain.stream import LatestUpdate, StreamTopic, UpdateOrder
from tests.adapters.kucoin.stream_world import Heard, World, quotes

SOON_S = 30.0


def live(count: int = 20, **given: object) -> World:
    world = World(**given)  # type: ignore[arg-type]  # fields of the world by name
    world.want(quotes(count))
    world.until(world.all_live, SOON_S)
    return world


def gaps(world: World, topic: StreamTopic) -> list[int]:
    """How far the sequences that were taken are apart, each taken once."""
    newest, numbers = LatestUpdate(), []
    for now, number in world.taken[topic]:
        if newest.classify(int(now * 1000), number, int(now * 1000)) is UpdateOrder.NEWER:
            numbers.append(number)
    return [after - before for before, after in itertools.pairwise(numbers)]


def test_a_universe_is_spread_over_few_connections_and_asked_for_in_batches() -> None:
    world = live(550)
    assert sorted(len(one.topics) for one in world.sockets.values()) == [250, 300]
    asked = [command for _, command in world.sent if command.kind == "subscribe"]
    assert {len(command.topics) for command in asked} <= {100, 50}
    assert world.fleet.live().keys() == set(quotes(550))
    assert len({token for _, token in world.opened}) == 2


def test_the_same_seed_gives_the_same_story() -> None:
    def story(seed: int) -> list[object]:
        world = live(40, seed=seed)
        world.cut()
        world.run(60.0)
        return [*world.opened, *world.sent, *world.closed]

    assert story(7) == story(7)
    assert story(7) != story(8)


def test_W01_a_connection_is_replaced_within_its_day_without_losing_a_message() -> None:
    world = live(3, step_s=2.0, update_interval_s=5.0)
    first = next(iter(world.sockets.values()))
    world.until(lambda: first not in world.sockets.values(), 24 * HOUR_S)
    lived = world.now - first.born
    assert 20 * HOUR_S <= lived <= 23 * HOUR_S + 60
    world.run(120.0)
    assert world.all_live()
    assert [reason for _, reason in world.closed] == ["rotated"]
    tokens = [token for _, token in world.opened]
    assert len(set(tokens)) == len(tokens) == 2, "a fresh token on every connect"
    assert world.backfills == 1, "nothing was missed, so nothing was caught up with"
    for topic in quotes(3):
        assert set(gaps(world, topic)) == {1}
        times = [at for at, _ in world.taken[topic]]
        assert max(b - a for a, b in itertools.pairwise(times)) < 10.0


def test_W01_while_both_connections_bring_it_a_message_counts_once() -> None:
    world = live(5, terms=replace(StreamLimits(), rotate_s=(60.0, 60.0)))
    world.run(70.0)
    numbers = [number for _, number in world.taken[quotes(1)[0]]]
    assert len(numbers) > len(set(numbers)), "the two overlapped"
    assert set(gaps(world, quotes(1)[0])) == {1}


def test_W01_a_heir_that_cannot_connect_leaves_the_old_connection_alone() -> None:
    world = live(5, terms=replace(StreamLimits(), rotate_s=(60.0, 60.0)))
    world.tickets = lambda number: number > 8
    world.run(55.0)
    world.run(10.0)
    assert world.all_live()
    world.until(lambda: any(reason == "rotated" for _, reason in world.closed), 600.0)
    world.run(1.0)
    assert set(gaps(world, quotes(1)[0])) == {1}


def test_W02_an_expired_token_is_never_used_again_and_the_pauses_grow() -> None:
    world = World(accepts=lambda socket: Control("error", code=401, text="token is expired"))
    world.want(quotes(5))
    world.run(600.0)
    tokens = [token for _, token in world.opened]
    assert len(tokens) > 10
    assert len(set(tokens)) == len(tokens)
    assert len(tokens) < 250, "600 s of full jitter up to 8 s, at most 25 connections a minute"
    pauses = [b - a for (a, _), (b, _) in zip(world.opened, world.opened[1:], strict=False)]
    assert pauses[0] <= 0.5 + 0.3
    assert 4.0 < max(pauses) <= 8.0 + 0.3
    world.accepts = lambda socket: Control("welcome")
    world.until(world.all_live, 31.0)


def _recovery_s(seed: int) -> float:
    """Seconds from the end of five minutes without exchange until 1,800 topics are live again."""
    world = live(1_800, seed=seed)
    answers_from = (
        world.now + 300.0 + random.Random(seed).uniform(0, KucoinLimits().breaker_probe_s)
    )
    world.tickets = lambda _: world.now >= answers_from  # the circuit breaker's probe has been out
    world.cut()
    world.run(300.0)
    return world.until(world.all_live, 60.0)


def test_W02_after_an_outage_all_topics_are_live_within_half_a_minute() -> None:
    assert _recovery_s(1) < 30.0


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 32))
def test_W02_after_an_outage_all_topics_are_live_whatever_the_jitter(seed: int) -> None:
    assert _recovery_s(seed) < 25.0


def test_W02_a_ticket_for_one_connection_ends_the_wait_of_the_others() -> None:
    world = World(seed=3, terms=replace(StreamLimits(), backoff_first_s=50.0, backoff_cap_s=50.0))
    refused = 6  # the first attempt of each connection
    world.tickets = lambda number: number > refused
    world.want(quotes(1_800))
    world.until(lambda: bool(world.opened), 60.0)
    world.run(1.0)
    assert len(world.opened) == 6


def test_W02_attempts_without_a_ticket_do_not_count_as_connections() -> None:
    world = World(tickets=lambda number: number > 60)
    world.want(quotes(1_800))
    world.until(world.all_live, 120.0)
    assert len(world.opened) == 6


def test_W02_without_a_ticket_it_goes_on_asking() -> None:
    world = World(tickets=lambda number: number > 5)
    world.want(quotes(5))
    world.until(world.all_live, 60.0)
    assert [token for _, token in world.opened] == ["t6"]
    assert world.fleet.failures["no_ticket"] == 5


def test_W03_a_topic_that_others_see_move_is_asked_for_again_and_then_elsewhere() -> None:
    world = live(20)
    deaf = quotes(1)[0]
    first = next(iter(world.sockets))
    world.mute = lambda serial, topic: serial == first and topic == deaf
    world.fleet.resubscribe([deaf], world.now)
    assert not world.is_live(deaf), "what is not heard is not believed"
    assert world.is_live(quotes(2)[1])
    world.run(6.0)
    world._perform(world.fleet.resubscribe([deaf], world.now))
    took = world.until(lambda: world.is_live(deaf), 10.0)
    assert took < 10.0
    assert len(world.sockets) == 2, "it has a connection of its own"
    assert first in world.sockets, "the others keep theirs"


def test_W03_a_connection_that_says_nothing_at_all_is_replaced_within_20_seconds() -> None:
    world = live(20)
    first, begun = next(iter(world.sockets)), world.now
    world.mute = lambda serial, topic: serial == first
    for _ in range(3):  # as the probe sees it every 5 s
        world.run(5.0)
        world._perform(world.fleet.resubscribe(quotes(20), world.now))
    world.until(world.all_live, 20.0)
    assert first not in world.sockets
    assert world.now - begun < 20.0
    assert world.fleet.failures == {"stalled": 1}


def test_W04_a_half_open_connection_is_found_without_waiting_for_the_next_ping() -> None:
    world = live(20)
    begun = world.now
    for socket in world.sockets.values():
        socket.is_dead = True
    world.until(lambda: world.fleet.failures["no_pong"] == 1, 18.0)
    assert world.now - begun <= 10.0 + 5.0 + 1.0
    world.until(world.all_live, SOON_S)


def test_W04_pings_go_out_as_often_as_the_ticket_says() -> None:
    world = live(20)
    world.run(100.0)
    pings = [at for at, command in world.sent if command.kind == "ping"]
    assert len(pings) == 5
    assert not world.closed


@pytest.mark.parametrize("greets", [False, True])
def test_W05_without_a_welcome_or_with_data_before_it_nothing_is_applied(greets: bool) -> None:
    world = World(greets=greets, early=greets)
    world.want(quotes(5))
    world.until(lambda: len(world.opened) >= 3, 120.0)
    assert not world.taken
    assert not world.sent
    assert set(world.fleet.failures) == {"data_before_welcome" if greets else "no_welcome"}
    world.greets, world.early = True, False
    world.until(world.all_live, 60.0)


def refusing(code: int, text: str, *, of: Callable[[Send], bool]) -> Callable[[Send], Control]:
    def answer(command: Send) -> Control:
        if command.kind == "subscribe" and of(command):
            return Control("error", command.number, code, text)
        return Control("ack", command.number)

    return answer


def test_W06_what_is_not_acknowledged_is_asked_for_three_times_and_then_gets_its_own_line() -> None:
    world = World()
    bad = quotes(300)[250]
    first: list[int] = []

    def answer(command: Send) -> Control | None:
        first.append(command.connection)
        silent = bad in command.topics and command.connection == first[0]
        return None if silent else Control("ack", command.number)

    world.answers = answer
    world.want(quotes(300))
    world.run(4.0)
    assert not world.is_live(bad)
    world.until(world.all_live, 60.0)
    tries = [
        command.connection
        for _, command in world.sent
        if bad in command.topics and command.kind == "subscribe"
    ]
    assert tries == [first[0]] * 3 + [tries[-1]]
    assert tries[-1] != first[0]
    assert len(world.sockets) == 2


def test_W06_a_topic_that_is_never_acknowledged_is_never_live_and_costs_few_connections() -> None:
    world = World()
    bad = quotes(30)[7]
    world.answers = lambda command: (
        None if bad in command.topics else Control("ack", command.number)
    )
    world.want([*quotes(7), *quotes(22, 8)])
    world.until(world.all_live, SOON_S)
    world.want(quotes(30))
    world.run(900.0)
    assert not world.is_live(bad)
    assert all(world.is_live(topic) for topic in quotes(30) if topic != bad)
    assert len(world.opened) < 60


def test_W06_exceeded_permits_are_waited_for_and_messages_are_never_more_than_8_a_second() -> None:
    tried: list[int] = []

    def of(command: Send) -> bool:
        tried.append(1)
        return len(tried) % 3 == 1

    small = replace(StreamLimits(), topics_per_message=10)
    world = World(terms=small, answers=refusing(509, "exceed max permits per second", of=of))
    world.want(quotes(550))
    world.until(world.all_live, 60.0)
    by_line: dict[int, list[float]] = {}
    for at, command in world.sent:
        by_line.setdefault(command.connection, []).append(at)
    for times in by_line.values():
        for at in times:
            assert sum(at <= other < at + 1.0 for other in times) <= 8


def test_W06_pings_count_among_the_messages_and_do_not_have_to_wait_for_all_of_them() -> None:
    terms = replace(StreamLimits(), topics_per_message=1)
    world = World(terms=terms, step_s=0.025)
    world.want(quotes(250))
    world.until(world.all_live, 60.0)
    kinds = [command.kind for _, command in world.sent]
    assert 0 < kinds.index("ping") < 18 * 8 < len(kinds)
    times = [at for at, _ in world.sent]
    assert min(after - before for before, after in itertools.pairwise(times)) > 0.1249


def test_W06_topics_over_the_limit_of_a_session_go_to_another() -> None:
    def answer(command: Send) -> Control:
        held = world.sockets[command.connection].topics
        if command.kind == "subscribe" and len(held) + len(command.topics) > 100:
            text = "exceed max subscription count limitation of 100 per session"
            return Control("error", command.number, 509, text)
        return Control("ack", command.number)

    world = World(answers=answer)
    world.want(quotes(250))
    world.until(world.all_live, 60.0)
    assert len(world.sockets) == 3


def test_a_name_that_does_not_exist_spoils_nothing_and_is_not_asked_for_again_at_once() -> None:
    bad = quotes(100)[42]
    world = World(answers=refusing(404, "is not found", of=lambda sent: bad in sent.topics))
    world.want(quotes(100))
    world.until(world.all_live, SOON_S)
    assert world.fleet.live().keys() == set(quotes(100)) - {bad}
    before = len(world.sent)
    world.want(quotes(100))
    world.run(1.0)
    assert len(world.sent) == before
    world.run(600.0)
    world.answers = lambda command: Control("ack", command.number)
    world.want(quotes(100))
    world.until(lambda: world.is_live(bad), SOON_S)


def test_W07_when_the_exchange_restarts_connects_are_spread_and_never_over_30_a_minute() -> None:
    world = live(550, terms=replace(StreamLimits(), backoff_cap_s=1.0))
    for _ in range(80):  # it takes them and lets them fall
        world.cut("closed_1012")
        world.run(1.0)
    times = [at for at, _ in world.opened]
    for at in times:
        assert sum(at <= other < at + 60.0 for other in times) <= 30
    assert len(times) > 30
    world.until(world.all_live, 90.0)
    pairs = list(itertools.pairwise(times))
    assert len({round(b - a, 1) for a, b in pairs}) > len(pairs) / 4, "not in step"


def test_W11_what_nobody_asked_for_is_told_apart() -> None:
    world = live(5)
    serial = next(iter(world.sockets))
    stranger = StreamTopic(quotes(1)[0].kind, "NOBODYASKEDUSDTM")
    assert world.hear(serial, stranger) is Heard.STRANGE
    assert world.hear(serial + 99, quotes(1)[0]) is Heard.EARLY
    world.want(quotes(4))
    assert world.hear(serial, quotes(5)[4]) is Heard.STRANGE


def test_W13_a_little_garbage_is_borne_and_a_row_of_it_ends_the_connection() -> None:
    world = live(5)
    serial = next(iter(world.sockets))
    for _ in range(10):
        world.fleet.garbage(serial, world.now)
        world.run(6.5)
    assert not world.closed
    for _ in range(11):
        world.fleet.garbage(serial, world.now)
    world.run(0.2)
    assert [reason for _, reason in world.closed] == ["garbage"]
    world.until(world.all_live, SOON_S)


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1012])
def test_W14_after_a_break_everything_is_subscribed_again_and_nothing_counts_before_the_backfill(
    code: int,
) -> None:
    world = live(120)
    world.catches_up = False
    world.cut(f"closed_{code}")
    taken = {topic: len(told) for topic, told in world.taken.items()}
    world.until(lambda: world.backfills == 2, SOON_S)
    world.run(5.0)
    assert {topic for socket in world.sockets.values() for topic in socket.topics} == set(
        quotes(120)
    )
    assert world.heard[Heard.WANTED] > sum(taken.values()), "it is heard"
    assert {topic: len(told) for topic, told in world.taken.items()} == taken, "not yet believed"
    assert not world.fleet.live()
    world._perform(world.fleet.caught_up(next(iter(world.sockets)), world.now))
    world.run(2.0)
    assert world.all_live()


def test_W14_a_break_during_the_handover_is_one_that_has_to_be_caught_up_with() -> None:
    world = live(5, terms=replace(StreamLimits(), rotate_s=(60.0, 60.0)))
    world.until(lambda: len(world.opened) == 2, 120.0)
    old = next(iter(world.sockets))
    del world.sockets[old]
    world._perform(world.fleet.ended(old, "closed_1006", world.now))
    world.until(world.all_live, SOON_S)
    assert world.backfills == 2


def test_after_a_long_quiet_time_the_first_failure_is_tried_again_at_once() -> None:
    took = []
    for seed in range(4):
        world = live(5, seed=seed)
        for _ in range(6):
            world.cut()
            world.until(world.all_live, 60.0)
        world.run(61.0)
        world.cut()
        took.append(world.until(world.all_live, 60.0))
    assert max(took) < 1.5


def test_topics_come_and_go_without_a_new_connection() -> None:
    world = live(20)
    world.want(quotes(10, 5))
    world.until(world.all_live, 10.0)
    world.run(2.0)
    assert len(world.opened) == 1
    assert [socket.topics for socket in world.sockets.values()] == [set(quotes(10, 5))]
    world.want([])
    assert not world.sockets
