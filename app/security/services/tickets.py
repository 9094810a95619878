"""Issues one-time tickets for event streams, and exchanges them for the principal behind them."""

from dataclasses import dataclass, field
from datetime import datetime

from app.foundation.principals import ANONYMOUS, LOCAL, Principal, PrincipalKind
from app.foundation.sql.database import UnitOfWork
from app.security.domain.addresses import ClientAddress
from app.security.domain.tickets import (
    TICKET_ENTROPY_BYTES,
    TICKET_LIFETIME,
    OneTimeTicket,
    address_of_ticket,
    create_ticket,
    hash_ticket,
)
from app.security.services.keys import ApiKeyService
from app.security.storage.tickets import OneTimeTicketRepository


@dataclass(frozen=True, slots=True)
class IssuedTicket:
    """Text of a new ticket, which is shown once, and its end (UTC)."""

    ticket: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class TicketExchange:
    """Principal of an exchanged ticket, or the code of the refusal and the actor of the ticket.

    The code is ticket_unknown, ticket_used, ticket_expired, ticket_address or ticket_withdrawn.
    """

    principal: Principal | None
    code: str = ""
    actor: str = ANONYMOUS.actor


@dataclass(frozen=True, slots=True)
class TicketService:
    """Use cases of one-time tickets. Each ticket opens one stream in one of all processes."""

    keys: ApiKeyService

    async def issue(self, principal: Principal, client: ClientAddress) -> IssuedTicket:
        """Stores a ticket for `principal` at the address of `client`.

        Raises PepperMissingError and UnavailableError.
        """
        pepper = self.keys.peppers.newest()
        text = create_ticket(pepper, self.keys.entropy(TICKET_ENTROPY_BYTES))
        now = self.keys.clock()
        ticket = OneTimeTicket(
            hash=hash_ticket((pepper,), text) or "",
            actor=principal.actor,
            key_id=principal.credential_id if principal.kind is PrincipalKind.KEY else None,
            session_id=principal.session_id,
            address=address_of_ticket(client),
            expires_at=now + TICKET_LIFETIME,
        )

        async def store(unit: UnitOfWork) -> None:
            tickets = unit.get(OneTimeTicketRepository)
            await tickets.trim(ticket.actor, now)
            await tickets.add(ticket)

        await self.keys.database.run(store)
        return IssuedTicket(text, ticket.expires_at)

    async def exchange(
        self, text: str, client: ClientAddress, *, is_local: bool, is_protected: bool
    ) -> TicketExchange:
        """Takes a ticket and returns its principal as it is now.

        A genuine ticket is used up also by a refusal. `is_local` and `is_protected` describe the
        request as for callers in open mode and for sessions. Raises UnavailableError.
        """
        stored_hash = hash_ticket(self.keys.peppers.known(), text)
        if stored_hash is None:
            return TicketExchange(None, "ticket_unknown")

        async def take(unit: UnitOfWork) -> OneTimeTicket | None:
            return await unit.get(OneTimeTicketRepository).take(stored_hash)

        ticket = await self.keys.database.run(take)
        if ticket is None:
            return TicketExchange(None, "ticket_used")
        if ticket.expires_at <= self.keys.clock():
            return TicketExchange(None, "ticket_expired", ticket.actor)
        if ticket.address != address_of_ticket(client):
            return TicketExchange(None, "ticket_address", ticket.actor)
        principal = self._owner(ticket, client, is_local=is_local, is_protected=is_protected)
        if principal is None:
            return TicketExchange(None, "ticket_withdrawn", ticket.actor)
        return TicketExchange(principal)

    def _owner(
        self, ticket: OneTimeTicket, client: ClientAddress, *, is_local: bool, is_protected: bool
    ) -> Principal | None:
        """Principal of the session, the key or the open mode; None once it has ended."""
        ring = self.keys.ring
        if ticket.session_id is not None:
            session = ring.people.by_id(ticket.session_id)
            if session is None:
                return None
            return ring.admit_session(session, client.proven, is_protected=is_protected)
        if ticket.key_id is not None:
            return ring.key_principal(ticket.key_id, client.proven)
        return LOCAL if ring.is_open and is_local else None
