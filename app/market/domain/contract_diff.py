"""Reconciles a new list of contracts with the known universe, and says when not to believe it."""

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
class Reconciled:
    """A list against the known universe; contracts by code, `known` ones keep their place."""

    listed: tuple[Contract, ...]  # those of the list that can be taken
    changed: tuple[Contract, ...]  # of them: new, respecified, other status, or back again
    vanished: tuple[Contract, ...]  # known, not in the list any more; status Vanished
    rejections: tuple[Rejection, ...]

    def anomalous(self, live: int) -> bool:
        """Whether it loses too much of `live` known contracts to be believed at once."""
        if live == 0:
            return False
        return not self.listed or len(self.vanished) > MAX_VANISHING * live


@dataclass(frozen=True, slots=True)
class Suspicion:
    """The same doubtful list, seen `times` times, at `last_s` on the monotonic clock."""

    codes: frozenset[str]
    times: int
    last_s: float

    @property
    def dispelled(self) -> bool:
        return self.times >= CONFIRMATIONS


def listed_anew(
    listing: ContractListing, known: Mapping[str, Contract], seen_ms: Mapping[str, int]
) -> frozenset[str]:
    """Codes under which the exchange now lists another contract than the one that we know.

    Each listing has an opening date of its own. A date that we do not know proves nothing, nor
    does one that is put off before the contract has opened. Of a contract that is still there
    (`seen_ms`: when we first saw it) a date before that is a correction of the exchange's: what
    was there then cannot have been listed by it later.
    """
    found = set()
    for one in listing.contracts:
        old = known.get(one.code)
        if old is None or one.listed_ms is None or old.listed_ms is None:
            continue
        if one.listed_ms == old.listed_ms or old.status is ContractStatus.INIT:
            continue
        if old.status is ContractStatus.VANISHED or one.listed_ms > seen_ms[one.code]:
            found.add(one.code)
    return frozenset(found)


def wants_an_old_name(listing: ContractListing, known: Mapping[str, Contract]) -> bool:
    """Whether a contract would have the name of one that has vanished."""
    old = {standard_symbol(one) for one in known.values() if one.status not in _LIVE_STATUSES}
    return any(nameable(one) and standard_symbol(one) in old for one in listing.contracts)


def reconcile(
    listing: ContractListing,
    known: Mapping[str, Contract],
    held: AbstractSet[str] = frozenset(),
    anew: AbstractSet[str] = frozenset(),
) -> Reconciled:
    """Compare a list with the known contracts, by code.

    Refused are names that we could not store or show, codes listed twice, and contracts whose
    standard name another one has; a contract that we know keeps its name against a newcomer, one
    of `held` (codes) also after it has vanished: its price must not become that of the newcomer.
    Under the codes of `anew` stand newcomers; what we know under them has vanished. A record that
    the border rejected says that the contract is there: it does not vanish.
    """
    gone = {standard_symbol(one): one.code for one in known.values() if one.code in held}
    owners = gone | {
        standard_symbol(one): one.code
        for code, one in known.items()
        if one.status in _LIVE_STATUSES and code not in anew
    }
    refused = anew & held
    rejections: list[Rejection] = list(listing.rejections)
    listed: dict[str, Contract] = {}
    in_known_order = sorted(
        listing.contracts, key=lambda one: one.code not in known or one.code in anew
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
        if (code not in there or code in anew) and one.status in _LIVE_STATUSES
    )
    changed = tuple(one for one in listed.values() if known.get(one.code) != one)
    return Reconciled(tuple(listed.values()), changed, vanished, tuple(rejections))


def suspect(former: Suspicion | None, codes: frozenset[str], now_s: float) -> Suspicion:
    """Count a doubtful list: the same one again, long enough after the last time, counts."""
    if former is None or former.codes != codes:
        return Suspicion(codes, 1, now_s)
    if now_s - former.last_s < CONFIRMATION_GAP_S:
        return former
    return Suspicion(codes, former.times + 1, now_s)


def live(contracts: Sequence[Contract]) -> int:
    """How many are still in the exchange's list."""
    return sum(one.status in _LIVE_STATUSES for one in contracts)


_LIVE_STATUSES: Final = frozenset(ContractStatus) - {ContractStatus.VANISHED}


def _problem(
    contract: Contract,
    listed: Mapping[str, Contract],
    owners: Mapping[str, str],
    refused: AbstractSet[str],
) -> Rejection | None:
    if not nameable(contract):
        # the name is hostile: it is not repeated
        return Rejection("?", "symbol", "not a name that can be stored")
    if contract.code in listed:
        return Rejection(contract.code, "symbol", "listed twice")
    if contract.code in refused:
        return Rejection(contract.code, "firstOpenDate", "its former listing is a member still")
    name = standard_symbol(contract)
    owner = owners.get(name, contract.code)
    if owner != contract.code:
        return Rejection(contract.code, "symbol", f"{owner} is {name} already")
    return None
