"""Compares a new contract list with the known contracts, and detects implausible lists."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final

from app.market.domain.models import Contract, ContractListing, ContractStatus, Rejection
from app.market.domain.symbols import nameable, standard_symbol

MAX_VANISHING: Final = 0.20  # share of the known contracts that may leave at once
CONFIRMATIONS: Final = 3
CONFIRMATION_GAP_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ContractDiff:
    """Result of comparing a contract list with the known contracts, by contract code."""

    listed: tuple[Contract, ...]  # the valid contracts of the list
    changed: tuple[Contract, ...]  # of them: new, changed, or listed again
    vanished: tuple[Contract, ...]  # known but missing in the list; status Vanished
    rejections: tuple[Rejection, ...]

    def is_implausible(self, live: int) -> bool:
        """True if the list lacks too many of `live` known contracts to be accepted at once."""
        if live == 0:
            return False
        return not self.listed or len(self.vanished) > MAX_VANISHING * live


@dataclass(frozen=True, slots=True)
class ListAnomaly:
    """An implausible list, seen `times` times, last at `last_s` on the monotonic clock."""

    codes: frozenset[str]
    times: int
    last_s: float

    @property
    def is_confirmed(self) -> bool:
        return self.times >= CONFIRMATIONS


def find_relisted(
    listing: ContractListing, known: Mapping[str, Contract], seen_ms: Mapping[str, int]
) -> frozenset[str]:
    """Returns the codes under which the exchange now lists another contract than the known one.

    Each listing has its own opening date. An unknown date proves nothing; neither does a date that
    was moved before the contract opened. For a contract that is still listed, a date before its
    first sighting (`seen_ms`) is a correction: the exchange cannot have listed it later.
    """
    relisted = set()
    for one in listing.contracts:
        old = known.get(one.code)
        if old is None or one.listed_ms is None or old.listed_ms is None:
            continue
        if one.listed_ms == old.listed_ms or old.status is ContractStatus.INIT:
            continue
        if old.status is ContractStatus.VANISHED or one.listed_ms > seen_ms[one.code]:
            relisted.add(one.code)
    return frozenset(relisted)


def reuses_vanished_name(listing: ContractListing, known: Mapping[str, Contract]) -> bool:
    """True if a listed contract would take the name of a vanished one."""
    old = {standard_symbol(one) for one in known.values() if one.status not in _LIVE_STATUSES}
    return any(nameable(one) and standard_symbol(one) in old for one in listing.contracts)


def reconcile(
    listing: ContractListing,
    known: Mapping[str, Contract],
    members: AbstractSet[str] = frozenset(),
    relisted: AbstractSet[str] = frozenset(),
) -> ContractDiff:
    """Compares a list with the known contracts, by code.

    Rejected are invalid names, codes listed twice, and contracts whose standard name belongs to
    another contract. A known contract keeps its name against a new one. A contract of `members`
    (codes) keeps it even after it has vanished: its price must not become that of the new contract.
    Codes of `relisted` now name new contracts; the known contracts under them have vanished. A
    contract whose record was rejected by the parser still exists and does not vanish.
    """
    gone = {standard_symbol(one): one.code for one in known.values() if one.code in members}
    owners = gone | {
        standard_symbol(one): one.code
        for code, one in known.items()
        if one.status in _LIVE_STATUSES and code not in relisted
    }
    refused = relisted & members
    rejections: list[Rejection] = list(listing.rejections)
    listed: dict[str, Contract] = {}
    in_known_order = sorted(
        listing.contracts, key=lambda one: one.code not in known or one.code in relisted
    )
    for contract in in_known_order:
        problem = _problem(contract, listed, owners, refused)
        if problem is None:
            listed[contract.code] = contract
            owners[standard_symbol(contract)] = contract.code
        else:
            rejections.append(problem)
    there = listed.keys() | {one.key for one in rejections}
    vanished = tuple(
        replace(one, status=ContractStatus.VANISHED)
        for code, one in sorted(known.items())
        if (code not in there or code in relisted) and one.status in _LIVE_STATUSES
    )
    changed = tuple(one for one in listed.values() if known.get(one.code) != one)
    return ContractDiff(tuple(listed.values()), changed, vanished, tuple(rejections))


def count_anomaly(former: ListAnomaly | None, codes: frozenset[str], now_s: float) -> ListAnomaly:
    """Counts an implausible list; the same list counts again after `CONFIRMATION_GAP_S`."""
    if former is None or former.codes != codes:
        return ListAnomaly(codes, 1, now_s)
    if now_s - former.last_s < CONFIRMATION_GAP_S:
        return former
    return ListAnomaly(codes, former.times + 1, now_s)


def live(contracts: Sequence[Contract]) -> int:
    """Returns the number of contracts that the exchange still lists."""
    return sum(one.status in _LIVE_STATUSES for one in contracts)


_LIVE_STATUSES: Final = frozenset(ContractStatus) - {ContractStatus.VANISHED}


def _problem(
    contract: Contract,
    listed: Mapping[str, Contract],
    owners: Mapping[str, str],
    refused: AbstractSet[str],
) -> Rejection | None:
    if not nameable(contract):
        # An invalid name may be hostile, so the rejection does not repeat it.
        return Rejection("?", "symbol", "not a name that can be stored")
    if contract.code in listed:
        return Rejection(contract.code, "symbol", "listed twice")
    if contract.code in refused:
        return Rejection(
            contract.code, "firstOpenDate", "its former listing is still a portfolio member"
        )
    name = standard_symbol(contract)
    owner = owners.get(name, contract.code)
    if owner != contract.code:
        return Rejection(contract.code, "symbol", f"{owner} already has the name {name}")
    return None
