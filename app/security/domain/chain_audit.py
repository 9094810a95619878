"""Verifies the chain of security events from its anchor to its stored head."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from app.foundation.hash_chain import (
    ChainBreak,
    ChainFindings,
    ChainHead,
    StoredEvent,
    verify_head,
    verify_link,
    with_breaks,
)
from app.security.domain.audit import SecurityAnchor, SecurityEvent, SecurityEventKind


@dataclass(frozen=True, slots=True)
class SecurityFindings(ChainFindings):
    """Result so far; `anchor` ends the deleted part of the chain (None: nothing was deleted)."""

    anchor: SecurityAnchor | None = None
    is_anchored: bool = True  # an event of the chain names the anchor


def begin_security(anchor: SecurityAnchor | None) -> SecurityFindings:
    """Findings before the first stored event, which follows the anchor."""
    if anchor is None:
        return SecurityFindings()
    return SecurityFindings(
        due=anchor.seq + 1, last_hash=anchor.hash, anchor=anchor, is_anchored=False
    )


def verify_security(
    findings: SecurityFindings, rows: Iterable[StoredEvent[SecurityEvent]]
) -> SecurityFindings:
    """Returns the findings after further rows, which must be in order of their numbers."""
    for row in rows:
        findings = verify_link(findings, row)
        if _names_anchor(row.event, findings.anchor):
            findings = replace(findings, is_anchored=True)
    return findings


def conclude_security(findings: SecurityFindings, head: ChainHead | None) -> SecurityFindings:
    """Returns the final result after all rows; `head` is the stored end of the chain.

    A forged anchor shows: the event that recorded the deletion is part of the chain.
    """
    findings = verify_head(findings, head)
    if findings.anchor is None or findings.is_anchored:
        return findings
    fault = ChainBreak(findings.anchor.seq, "no event of the chain records the anchor")
    return with_breaks(findings, [fault])


def _names_anchor(event: SecurityEvent | None, anchor: SecurityAnchor | None) -> bool:
    return (
        event is not None
        and anchor is not None
        and event.kind == SecurityEventKind.EVENTS_DELETED
        and event.payload == anchor.payload()
    )
