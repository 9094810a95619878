"""A list of contracts against the known universe."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.market.domain.contract_diff import (
    ContractDiff,
    count_anomaly,
    find_relisted,
    live,
    reconcile,
)
from app.market.domain.models import Contract, ContractListing, ContractStatus, Rejection
from tests.market.domain.test_eligibility import CONTRACT


def listed(*contracts: Contract, rejections: tuple[Rejection, ...] = ()) -> ContractListing:
    return ContractListing(contracts, (), rejections)


def named(base: str, code: str | None = None, **changes: object) -> Contract:
    return replace(CONTRACT, base=base, code=code or f"{base}USDTM", **changes)  # type: ignore[arg-type]  # any field of it


def by_code(*contracts: Contract) -> dict[str, Contract]:
    return {one.code: one for one in contracts}


def test_new_changed_and_unchanged() -> None:
    old, kept = named("AA"), named("BB")
    news = reconcile(listed(replace(old, lot_size=2), kept, named("CC")), by_code(old, kept))
    assert [one.code for one in news.listed] == ["AAUSDTM", "BBUSDTM", "CCUSDTM"]
    assert [one.code for one in news.changed] == ["AAUSDTM", "CCUSDTM"]
    assert news.vanished == ()
    assert news.rejections == ()


def test_missing_ones_vanish_once() -> None:
    gone = named("AA")
    (vanished,) = reconcile(listed(named("BB")), by_code(gone)).vanished
    assert vanished == replace(gone, status=ContractStatus.VANISHED)
    assert reconcile(listed(named("BB")), by_code(vanished)).vanished == ()
    assert reconcile(listed(gone), by_code(vanished)).changed == (gone,)


def test_R13_a_record_refused_at_the_border_does_not_vanish() -> None:
    news = reconcile(
        listed(rejections=(Rejection("AAUSDTM", "tickSize", "bool"),)), by_code(named("AA"))
    )
    assert news.vanished == ()
    assert [one.key for one in news.rejections] == ["AAUSDTM"]


@pytest.mark.parametrize(
    ("old", "new", "is_another"),
    [
        ({"listed_ms": 10, "status": ContractStatus.VANISHED}, {"listed_ms": 11}, True),
        ({"listed_ms": 10, "status": ContractStatus.VANISHED}, {"listed_ms": 9}, True),
        ({"listed_ms": 10, "status": ContractStatus.VANISHED}, {"listed_ms": 10}, False),
        ({"listed_ms": 10, "status": ContractStatus.VANISHED}, {"listed_ms": None}, False),
        ({"listed_ms": None, "status": ContractStatus.VANISHED}, {"listed_ms": 11}, False),
        ({"listed_ms": 10}, {"listed_ms": 21}, True),  # it was first seen at 20
        ({"listed_ms": 10}, {"listed_ms": 20}, False),
        ({"listed_ms": 30, "status": ContractStatus.INIT}, {"listed_ms": 40}, False),
    ],
)
def test_D16_a_code_with_another_opening_date_is_another_contract(
    old: dict[str, Any], new: dict[str, Any], is_another: bool
) -> None:
    known, present = named("AA", **old), named("AA", **new)
    found = find_relisted(listed(present, named("BB")), by_code(known), {"AAUSDTM": 20})
    assert found == ({"AAUSDTM"} if is_another else set())


def test_D16_what_is_listed_anew_is_new_and_what_was_there_has_vanished() -> None:
    old, new, other = named("AA", listed_ms=1), named("AA", listed_ms=2), named("BB")
    anew = frozenset({"AAUSDTM"})
    news = reconcile(listed(new, other), by_code(old, other), relisted=anew)
    assert news.changed == (new,)
    assert news.vanished == (replace(old, status=ContractStatus.VANISHED),)
    refused = reconcile(listed(new, other), by_code(old, other), anew, anew)
    assert refused.listed == (other,), "the price of a member must not become the newcomer's"
    assert refused.vanished == news.vanished
    assert [(one.key, one.field) for one in refused.rejections] == [("AAUSDTM", "firstOpenDate")]


def test_D23_hostile_names_are_refused_without_being_repeated() -> None:
    news = reconcile(listed(named("<script>", "XUSDTM"), named("A", "=cmd()")), {})
    assert news.listed == ()
    assert [(one.key, one.field) for one in news.rejections] == [("?", "symbol")] * 2


def test_one_name_one_contract_and_the_known_one_keeps_it() -> None:
    known = named("AA", "AAUSDTM")
    news = reconcile(listed(named("AA", "ZZUSDTM"), known), by_code(known))
    assert news.listed == (known,)
    (refused,) = news.rejections
    assert refused == Rejection("ZZUSDTM", "symbol", "AAUSDTM already has the name AAUSDT")
    twice = reconcile(listed(known, known), {})
    assert twice.listed == (known,)
    assert twice.rejections[0].reason == "listed twice"
    gone = replace(known, status=ContractStatus.VANISHED)
    assert reconcile(listed(named("AA", "ZZUSDTM")), by_code(gone)).rejections == ()


@pytest.mark.parametrize(
    ("alive", "listed_count", "vanished", "anomalous"),
    [(0, 0, 0, False), (10, 0, 10, True), (10, 8, 2, False), (10, 7, 3, True), (1, 1, 0, False)],
)
def test_R11_what_is_anomalous(
    alive: int, listed_count: int, vanished: int, *, anomalous: bool
) -> None:
    contracts = (CONTRACT,) * listed_count
    news = ContractDiff(contracts, (), (CONTRACT,) * vanished, ())
    assert news.is_implausible(alive) is anomalous


def test_R11_three_equal_lists_a_minute_apart_dispel_the_doubt() -> None:
    codes = frozenset({"A"})
    doubt = count_anomaly(None, codes, 0.0)
    assert not doubt.is_confirmed
    assert count_anomaly(doubt, codes, 59.9) is doubt
    doubt = count_anomaly(doubt, codes, 60.0)
    assert not doubt.is_confirmed
    assert count_anomaly(doubt, codes, 119.9) is doubt
    assert count_anomaly(doubt, codes, 120.0).is_confirmed
    assert count_anomaly(doubt, frozenset({"B"}), 500.0).times == 1


@given(
    st.lists(st.sampled_from(["AA", "BB", "CC", "DD"]), unique=True),
    st.lists(st.sampled_from(["AA", "BB", "CC", "DD"]), unique=True),
)
def test_every_known_contract_is_listed_or_vanished(old: list[str], new: list[str]) -> None:
    known = by_code(*map(named, old))
    news = reconcile(listed(*map(named, new)), known)
    assert live(list(known.values())) == len(old)
    assert {one.base for one in news.listed} == set(new)
    assert {one.base for one in news.vanished} == set(old) - set(new)
    assert {one.base for one in news.changed} == set(new) - set(old)
