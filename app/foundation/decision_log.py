"""Records the inputs of decisions, and replays a decision with the live function.

Inputs and output are MessagePack of typed dataclasses, which keeps every bit of a number, packed by
zlib. The promise holds for one version of an algorithm: another version names the code that has it.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec

from app.foundation.errors import Code, ConflictError, NotFoundError
from app.foundation.ports import Clock
from app.foundation.sql.database import BULK_STATEMENT_S, Database, UnitOfWork
from app.foundation.sql.decision_inputs import DecisionInputRepository, StoredDecision

Given = TypeVar("Given")
_LEVEL: Final = 6
_DAY: Final = timedelta(days=1)


class DecisionKind(StrEnum):
    """Kinds of decisions whose inputs are stored."""

    REBALANCE = "rebalance"
    REPLACEMENT = "replacement"
    SIGNAL = "signal"
    ALERT = "alert"
    UNIVERSE = "universe"  # of one board, shared by the verdicts on its signals


# Version of each algorithm: raised whenever equal inputs may give another output.
ALGORITHMS: Final[Mapping[DecisionKind, int]] = MappingProxyType(dict.fromkeys(DecisionKind, 1))


@dataclass(frozen=True, slots=True)
class DecisionReplay:
    """A stored decision compared with its replay; equal hashes mean equal bytes."""

    kind: DecisionKind
    decision_id: str
    algorithm: int
    code_version: str
    decided_at: datetime
    input_hash: str
    output_hash: str
    replayed_output_hash: str
    differing: tuple[str, ...]  # fields of the output

    @property
    def is_identical(self) -> bool:
        return self.output_hash == self.replayed_output_hash


def _encode_other(value: object) -> object:
    if isinstance(value, MappingProxyType):
        return dict(value)
    raise NotImplementedError(type(value))


_INPUT: Final = msgspec.msgpack.Encoder(enc_hook=_encode_other)  # order of a map may matter
_OUTPUT: Final = msgspec.msgpack.Encoder(enc_hook=_encode_other, order="deterministic")


def pack_decision(given: object, output: object) -> bytes:
    """Returns inputs and output of a decision as packed bytes."""
    parts = (_INPUT.encode(given), _OUTPUT.encode(output))
    return zlib.compress(msgspec.msgpack.encode(parts), _LEVEL)


def _unpack(document: bytes) -> tuple[bytes, bytes]:
    return msgspec.msgpack.decode(zlib.decompress(document), type=tuple[bytes, bytes])


@dataclass(frozen=True, slots=True)
class DecisionLog:
    """Stores decisions in the transaction that makes them; `code_version` is that of the code."""

    code_version: str = "unknown"

    async def record(
        self,
        unit: UnitOfWork,
        kind: DecisionKind,
        decision_id: str,
        at: datetime,
        given: object,
        output: object,
    ) -> None:
        """Stores a decision; a second one with the same id changes nothing."""
        stored = self._stored(kind, decision_id, at, given, output)
        await unit.get(DecisionInputRepository).add(stored)

    async def replace(
        self,
        unit: UnitOfWork,
        kind: DecisionKind,
        decision_id: str,
        at: datetime,
        given: object,
        output: object,
    ) -> None:
        """Stores a decision in place of one with the same id."""
        stored = self._stored(kind, decision_id, at, given, output)
        await unit.get(DecisionInputRepository).put(stored)

    def _stored(
        self, kind: DecisionKind, decision_id: str, at: datetime, given: object, output: object
    ) -> StoredDecision:
        document = pack_decision(given, output)
        return StoredDecision(
            kind.value, decision_id, ALGORITHMS[kind], self.code_version, at, document
        )


async def load_decision(unit: UnitOfWork, kind: DecisionKind, decision_id: str) -> StoredDecision:
    """Returns a stored decision.

    Raises NotFoundError for an unknown or deleted one, ConflictError (algorithm_version) if this
    code has another version of the algorithm.
    """
    stored = await unit.get(DecisionInputRepository).get(kind.value, decision_id)
    if stored is None:
        raise NotFoundError(
            Code.NOT_FOUND, f"The inputs of this {kind.value} are not stored, or no longer."
        )
    if stored.algorithm != ALGORITHMS[kind]:
        raise ConflictError(
            Code.ALGORITHM_VERSION,
            f"This {kind.value} was decided by version {stored.algorithm} of its algorithm; this"
            f" service has version {ALGORITHMS[kind]}. Version {stored.code_version} of the"
            " service can replay it.",
            facts={
                "algorithm": str(stored.algorithm),
                "code_version": stored.code_version,
            },
        )
    return stored


def decode_inputs(stored: StoredDecision, kind: type[Given]) -> Given:
    """Returns the inputs of a stored decision as the type that was recorded."""
    return msgspec.msgpack.decode(_unpack(stored.document)[0], type=kind)


def compare_replay(
    kind: DecisionKind, stored: StoredDecision, replay: Callable[[], object]
) -> DecisionReplay:
    """Runs `replay` and compares its output with the stored one, byte for byte."""
    given, output = _unpack(stored.document)
    replayed = _OUTPUT.encode(replay())
    return DecisionReplay(
        kind,
        stored.decision_id,
        stored.algorithm,
        stored.code_version,
        stored.decided_at,
        sha256(given).hexdigest(),
        sha256(output).hexdigest(),
        sha256(replayed).hexdigest(),
        _differing(output, replayed),
    )


def _differing(one: bytes, other: bytes) -> tuple[str, ...]:
    """Names of top-level fields with different bytes; `output` for an output that is no map."""
    if one == other:
        return ()
    first, second = msgspec.msgpack.decode(one), msgspec.msgpack.decode(other)
    if not isinstance(first, dict) or not isinstance(second, dict):
        return ("output",)
    names = sorted(map(str, first.keys() | second.keys()))
    return tuple(name for name in names if _bytes_of(first, name) != _bytes_of(second, name))


def _bytes_of(document: Mapping[str, Any], name: str) -> bytes:
    return _OUTPUT.encode(document.get(name))


@dataclass(frozen=True, slots=True)
class DecisionInputs:
    """Size and retention of the stored inputs."""

    database: Database
    clock: Clock

    async def bytes_per_day(self) -> dict[str, int]:
        """Returns the bytes of the last 24 hours by kind. Raises UnavailableError."""
        async with self.database.read() as unit:
            found = await unit.get(DecisionInputRepository).bytes_since(self.clock() - _DAY)
        return {kind.value: found.get(kind.value, 0) for kind in DecisionKind}

    async def delete_old(self, max_age: timedelta) -> int:
        """Deletes the inputs of decisions older than `max_age`; returns their number."""
        async with self.database.write(BULK_STATEMENT_S) as unit:
            return await unit.get(DecisionInputRepository).delete_before(self.clock() - max_age)
