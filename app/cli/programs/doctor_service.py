"""What the doctor finds at a service that runs: which part is ill since when, and what is next."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from app.cli.client import Client
from app.cli.exit_codes import CommandError, ExitCode
from app.cli.programs.doctor_checks import Check, Verdict

_PATIENCE_S: Final = 5.0
_NAME: Final = "service"
# A part that is down is told as a warning: the service is there and heals itself.
_WELL: Final = frozenset({"up", "starting"})


async def checked(url: str) -> list[Check]:
    """One check of the service, and one for each of its parts that is not well."""
    try:
        answer = await replace(Client(url), timeout_s=_PATIENCE_S).get("/health")
    except CommandError as error:
        if error.exit_code is ExitCode.UNAVAILABLE:
            return [Check(_NAME, Verdict.SKIPPED, f"nothing runs at {url}")]
        return [Check(_NAME, Verdict.WARNING, error.detail, "name the service with --url")]
    health = answer.document
    ill = [part for part in health["components"] if part["state"] not in _WELL]
    said = f"{health['status']} at {url}, decides {health['mode']}; {_levels(health)}"
    whole = Check(_NAME, Verdict.WARNING if ill else Verdict.OK, said)
    return [whole, *map(_part, ill)]


def _part(part: Mapping[str, Any]) -> Check:
    why = ": ".join(str(one) for one in (part["cause"], part["detail"]) if one is not None)
    last = part["last_success"] or "never"
    said = f"{part['state']} since {part['since']}, last well {last}; {why or 'cause unknown'}"
    name = f"{_NAME}:{part['name']}"
    return Check(name, Verdict.WARNING, said, part["next_step"] or "look at its log")


def _levels(health: Mapping[str, Any]) -> str:
    """The service levels that are known, as people read them."""
    known = [one for one in health["service_levels"] if one["share"] is not None]
    shown = [
        f"{one['name']} {100 * one['share']:.2f} % of {one['looks']} looks within"
        f" {one['window_s']} s"
        for one in known
    ]
    return ", ".join(shown) or "no service levels yet"
